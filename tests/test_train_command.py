"""``--train``: the commands as a user runs them, on tiny networks and images."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, assert_refused, run, run_here
from crews import made_up_data
from dask_cluster import dask_cluster
from kill_training import descendants, is_alive
import compare
import MCTS
import MCTS_metaDNN
from nasbench_dataset import InputError, convert
from nasbench_dataset.table import load
from training_crew import Processes, call, gpus
from training_store import TrainingStore

RECIPE = "--train-channels", "2", "--train-stacks", "1", "--train-epochs", "2", "--train-batch", "16"
SMALL = "--max-nodes", "3", "--seed", "1", "--quiet", *RECIPE


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of made-up images."""
    data, path = made_up_data(), tmp_path_factory.mktemp("data") / "images.npz"
    parts = {"train": data.train, "valid": data.valid, "test": data.test}
    arrays = {f"{kind}_{name}": getattr(part, kinds) for name, part in parts.items() for kind, kinds in (
        ("x", "images"), ("y", "labels"))}  # fmt: skip
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """A search of two workers that has trained six of the seven cells of up to three vertices, and its folder."""
    out = tmp_path_factory.mktemp("search") / "out"
    result = run("MCTS.py", "--train", images, "--samples", 6, "--workers", 2, "--keep-best", "--out", out, *SMALL)
    assert result.returncode == 0 and not result.stderr, result.stderr
    return out, result.stdout


def test_a_search_by_training(trained):
    out, words = trained
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["outcome"], summary["unique_samples"], summary["metric"]) == ("samples", 6, "valid")
    assert summary["training"]["made"] == 6 and summary["lookup"] == "isomorphic"
    with TrainingStore(out / "trainings.sqlite") as store:
        trainings = list(store)
    assert len(trainings) == 6
    best = max(trainings, key=lambda training: training.accuracy)
    assert summary["best_accuracy"] == best.accuracy and summary["test_accuracy"] == best.test
    assert f"test accuracy of the best cell {best.test:.7f}; 6 trained" in words


def test_without_a_keras_that_works_no_cell_is_trained_that_is_to_be_kept(images, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    result = run("MCTS.py", "--train", images, "--samples", 2, "--keep-best", "--out", tmp_path / "out", *SMALL)
    assert_refused(result, "KERAS_BACKEND=numpy is no backend that fits networks")
    with TrainingStore(tmp_path / "out" / "trainings.sqlite") as store:
        assert not list(store)


GONE = 'mkdir gone; cd gone; rmdir "$PWD"; exec "$@"'


@pytest.mark.skipif(os.name == "nt", reason="there a folder stays that somebody is in")
def test_a_search_trains_where_its_folder_is_gone_and_an_empty_backend_is_none(images, tmp_path):
    options = "--train", images, "--samples", 1, "--keep-best", "--out", tmp_path / "out", *SMALL
    result = subprocess.run(
        ["sh", "-c", GONE, "sh", sys.executable, str(ROOT / "MCTS.py"), *map(str, options)],
        cwd=tmp_path, env={**os.environ, "KERAS_BACKEND": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out" / "best.keras").is_file()


def test_the_best_network_is_kept_as_it_was_trained(trained, images):
    import cell_network  # chooses the backend

    out, words = trained
    about = json.loads((out / "best.json").read_text())
    summary = json.loads((out / "summary.json").read_text())
    assert about["valid_accuracy"] == about["valid_accuracy_in_the_search"] == summary["best_accuracy"]
    model = cell_network.keras.models.load_model(out / "best.keras")
    data = np.load(images)
    for part in ("valid", "test"):
        answers = model.predict(data[f"x_{part}"], verbose=0)
        assert np.allclose(answers.sum(axis=1), 1, atol=1e-5)
        right = (answers.argmax(axis=1) == data[f"y_{part}"]).mean()
        assert right == pytest.approx(about[f"{part}_accuracy"], abs=1e-9)
    assert "best.keras" in words


def test_the_same_command_again_trains_nothing(trained, images):
    out, words = trained
    before = json.loads((out / "summary.json").read_text())
    result = run_here(MCTS.main, "--train", images, "--samples", 6, "--workers", 2, "--out", out, *SMALL)
    after = json.loads((out / "summary.json").read_text())
    assert result.returncode == 0 and "0 trained, 6 from" in result.stdout
    assert after["trace"] == before["trace"] and after["episodes"] == before["episodes"]


def test_a_store_becomes_a_table_that_is_searched(trained, tmp_path):
    out, _ = trained
    result = run_here(convert.main, out / "trainings.sqlite", tmp_path / "table")
    assert result.returncode == 0 and "group 1: 6 on" in result.stdout, result.stderr
    assert "published optimum" not in result.stdout
    table = load(tmp_path / "table")
    with TrainingStore(out / "trainings.sqlite") as store:
        for training in store:
            assert table.columns["valid"][training.cell] == training.accuracy
    assert table.measured and np.count_nonzero(~np.isnan(table.columns["valid"])) == 6
    options = "--metric", "valid", "--max-nodes", 3, "--out", tmp_path / "o", "--quiet"
    searched = run_here(MCTS.main, "--dataset", tmp_path / "table", *options)
    assert searched.returncode == 0 and "found" in searched.stdout, searched.stderr


def test_trainings_of_two_kinds_are_told_apart(trained, images, tmp_path):
    out, _ = trained
    with TrainingStore(out / "trainings.sqlite") as store, TrainingStore(tmp_path / "both") as both:
        for training in store:
            both.put(training)
            if training.cell < 3:
                both.put(type(training)(**{**vars(training), "data": "0" * 64, "data_name": "others"}))
    dest = tmp_path / "table"
    assert_refused(run("-m", "nasbench_dataset.convert", tmp_path / "both", dest), "2 kinds", "others", "--group")
    assert_refused(run("-m", "nasbench_dataset.convert", tmp_path / "both", dest, "--group", 3), "no group 3")
    result = run_here(convert.main, tmp_path / "both", dest, "--group", 2)
    assert result.returncode == 0 and "group 2: 3 on others" in result.stdout


def test_the_meta_dnn_searches_by_training(trained, images, tmp_path):
    store = trained[0] / "trainings.sqlite"
    options = "--fit-every", 3, "--epochs", 1, "--out", tmp_path, "--store", store, *SMALL
    result = run_here(MCTS_metaDNN.main, "--train", images, "--samples", 6, *options)
    assert result.returncode == 0 and "samples: the wanted number" in result.stdout, result.stderr


def test_methods_are_compared_by_training(trained, images, tmp_path):
    store = trained[0] / "trainings.sqlite"
    options = "--samples", 5, "--trials", 2, "--max-nodes", 3, "--out", tmp_path, "--at", "2,5", *RECIPE
    result = run("compare.py", "--train", images, "--methods", "mcts,random", "--store", store, *options)
    assert result.returncode == 0, result.stderr
    assert "Regret is against the best test accuracy" in result.stdout and "| mcts |" in result.stdout
    assert (tmp_path / "best-so-far.png").stat().st_size > 10_000 and not (tmp_path / "samples-to-best.png").exists()


def test_a_killed_search_leaves_no_worker_and_goes_on(images, tmp_path):
    out = tmp_path / "out"
    command = ["MCTS.py", "--train", images, "--samples", "5", "--workers", "2", "--out", out, *SMALL]
    slow = ["--train-epochs", "40"]
    process = subprocess.Popen([sys.executable, *map(str, command + slow)], cwd=ROOT, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 100
    while not (out / "trainings.sqlite").exists() or len(TrainingStore(out / "trainings.sqlite")) < 1:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    workers = descendants(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(map(is_alive, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)
    with TrainingStore(out / "trainings.sqlite") as store:
        before = {training.cell: training for training in store}
    result = run(*command, *slow)
    assert result.returncode == 0, result.stderr
    with TrainingStore(out / "trainings.sqlite") as store:
        assert store.check() == 5 and all(t == before.get(t.cell, t) for t in store)
    assert f"{5 - len(before)} trained" in result.stdout


def test_a_cluster_trains_though_one_of_its_workers_dies(images, tmp_path):
    with dask_cluster(tmp_path) as (address, pids):
        command = ["MCTS.py", "--train", images, "--cluster", address, "--out", tmp_path / "out", *SMALL]
        command += ["--samples", "6", "--train-epochs", "20"]
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 100
        while not (store := tmp_path / "out" / "trainings.sqlite").exists() or len(TrainingStore(store)) < 2:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        os.kill(pids[0], signal.SIGKILL)
        words, _ = process.communicate(timeout=100)
    assert process.returncode == 0 and "6 trained" in words and "failed" not in words
    with TrainingStore(store) as trainings:
        assert len(trainings) == 6 and all(training.accuracy is not None for training in trainings)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        (["--train-epochs", "2"], ["--train-epochs needs --train DATA"]),
        (["--train", ""], ["--train is empty"]),
        (["--train", "absent.npz"], ["there is no", "absent.npz"]),
        (["--train", "digits", "--metric", "test"], ["--metric"]),
        (["--train", "digits", "--dataset", "x"], ["--dataset"]),
        (["--train", "digits", "--train-epochs", "0"], ["epochs of a recipe"]),
        (["--train", "digits", "--train-channels", "2"], ["2 channels", "4 vertices"]),
        (["--train", "digits", "--train-stacks", "5"], ["8 x 8", "fewer stacks"]),
        (["--train", "digits", "--train-seed", str(2**31)], ["--train-seed"]),
        (["--train", "digits", "--workers", "0"], ["--workers"]),
        (["--train", "digits", "--cluster", "no address"], ["--cluster"]),
        (["--train", "digits", "--store", "/proc/x/y"], ["/proc/x/y"]),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_trained(tmp_path, capsys, options, words):
    with pytest.raises((InputError, SystemExit)) as refused:
        MCTS.main(["--out", str(tmp_path), *options])
    line = f"{refused.value} {capsys.readouterr().err}"
    assert all(word in line for word in words) and not (tmp_path / "search").exists()


REFUSED = [(["--over", "seconds"], "--over"), (["--backend", "dask"], "--backend"), ([], "--samples")]


@pytest.mark.parametrize("option, words", REFUSED)
def test_what_a_comparison_by_training_cannot_do_is_refused(images, tmp_path, option, words):
    with pytest.raises(InputError, match=words):
        compare.main(["--train", str(images), "--out", str(tmp_path), "--methods", "random", *option])


def test_a_refusal_is_one_line_and_status_2(tmp_path):
    assert_refused(run("MCTS.py", "--out", tmp_path, "--workers", 2), "--workers needs --train DATA")


def test_a_foreign_store_is_refused(images, tmp_path):
    (tmp_path / "store").write_bytes(b"SQLite format 3\0" + bytes(2_000))
    assert_refused(run("MCTS.py", "--train", images, "--store", tmp_path / "store", "--out", tmp_path, *SMALL), "store")


def test_a_backend_without_a_device_is_refused_before_any_training(images, tmp_path):
    command = [sys.executable, "MCTS.py", "--train", str(images), "--out", str(tmp_path), *SMALL]
    environment = {**os.environ, "JAX_PLATFORMS": "cuda"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert_refused(result, "a worker cannot train", "JAX_PLATFORMS=cuda")


# --- workers ----------------------------------------------------------------------------------


def test_gpus_are_those_that_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    assert gpus() == ["3", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (program := tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: B'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpus() == ["0", "1"]
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert gpus() == []


def test_workers_share_processors_and_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("workers.processors", lambda: 7)
    crew = Processes(3)
    try:
        names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NPROC"
        calls = [crew.submit(values_of, names) for _ in range(3)]
        assert [call.result() for call in calls] == [["0", "2", "2"], ["1", "2", "2"], ["0", "2", "2"]]
        assert call(crew, values_of, names)[1] == "2"
        with pytest.raises(InputError, match="died 3 times"):
            call(crew, os._exit, 3)
        with pytest.raises(InputError, match="cannot train"):
            call(crew, values_of, ["absent"])
        died = crew.submit(os._exit, 3)
        assert isinstance(died.exception(), crew.lost)
        assert crew.submit(values_of, names).result()[1] == "2"
    finally:
        crew.close()


def values_of(names: tuple[str, ...]) -> list[str]:
    """What a process has in its environment."""
    return [os.environ[name] for name in names]
