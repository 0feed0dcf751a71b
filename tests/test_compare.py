"""``python compare.py``: the same trials however they are run, and figures that follow from them."""

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from argparse import Namespace

import numpy as np
import pytest
from conftest import ROOT, assert_refused, run

import compare
import comparison_report
from compare import Trial
from MCTS import PRESETS
from nasbench_dataset import InputError
from nasbench_dataset.table import EMBEDDED, save

OPTIONS = ["--max-nodes", 4, "--dataset", EMBEDDED, "--trials", 3, "--patience", 3_000, "--quiet"]


def trials(folder) -> dict[tuple[str, int], dict]:
    """All results of a comparison, times apart."""
    results = [json.loads(path.read_text()) for path in sorted((folder / "trials").iterdir())]
    for result in results:
        result.pop("seconds")
    return {(result["trial"]["method"], result["trial"]["seed"]): result for result in results}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A small comparison on this machine."""
    folder = tmp_path_factory.mktemp("compared")
    result = run("compare.py", "--methods", "mcts,mcts:cp=0.5,evolution,random", *OPTIONS, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_a_comparison_and_its_files(compared):
    folder, printed = compared
    results = trials(folder)
    assert set(results) == {(m, s) for m in ("mcts", "mcts:cp=0.5", "evolution", "random") for s in range(3)}
    assert results["mcts", 0]["trace"] != results["mcts:cp=0.5", 0]["trace"]
    assert "SURROGATE" in printed and (folder / "comparison.md").read_text() in printed
    numbers = json.loads((folder / "comparison.json").read_text())
    for method in numbers["methods"]:
        needed = [r["samples"] for (name, _), r in results.items() if name == method["method"] and r["outcome"] == "found"]
        assert method["solved"] == len(needed) / 3
        assert method["samples_to_best"]["mean"] == pytest.approx(np.mean(needed))
    for name in ("best-so-far", "samples-to-best"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        text = "".join(ElementTree.parse(folder / f"{name}.svg").getroot().itertext())
        for words in ("unique valid samples", "n = 3 trials a method", "not NAS-Bench-101 itself", "mcts:cp=0.5"):
            assert words in text, words


def test_a_tree_search_here_is_that_of_its_own_command(compared, tmp_path):
    folder, _ = compared
    own = ["--max-nodes", 4, "--dataset", EMBEDDED, "--patience", 3_000, "--quiet", "--seed", 2, "--out", tmp_path]
    assert run("MCTS.py", *own).returncode == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    result = trials(folder)["mcts", 2]
    assert [[accuracy, samples] for samples, accuracy, _ in result["trace"]] == summary["trace"]
    assert (result["outcome"], result["lookups"]) == (summary["outcome"], summary["lookups"])


def test_methods_with_keras_run_where_its_backend_was_never_chosen(tmp_path, monkeypatch):
    """Keras alone would take TensorFlow, which is not installed, and write that down for the next time."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    options = ["--max-nodes", 4, "--dataset", EMBEDDED, "--trials", 1, "--samples", 5, "--jobs", 1, "--quiet", "--out", tmp_path]
    result = run("compare.py", "--methods", "mcts-metadnn,predictor", *options)
    assert result.returncode == 0, result.stderr
    assert {method for method, _ in trials(tmp_path)} == {"mcts-metadnn", "predictor"}


def test_only_what_is_missing_is_run(compared):
    folder, _ = compared
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}
    damaged = next(path for path in before if path.name.startswith("mcts-1"))
    content = damaged.read_text()
    damaged.write_text(content[:-20])
    result = run("compare.py", "--methods", "mcts,local-search", *OPTIONS, "--out", folder)
    assert result.returncode == 0, result.stderr
    after = {path: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}
    new = set(after) - set(before)
    assert {json.loads(path.read_text())["trial"]["method"] for path in new} == {"local-search"} and len(new) == 3
    assert {path for path in before if before[path] != after[path]} == {damaged}
    assert json.loads(damaged.read_text())["trace"] == json.loads(content)["trace"]


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_comparison_goes_on(tmp_path, number):
    """Killed when some trials have ended; those are kept and the whole comes out as it should."""
    command = ["compare.py", "--methods", "random,evolution", "--max-nodes", 5, "--dataset", EMBEDDED, "--trials", 12, "--jobs", 2, "--quiet"]
    errors = open(tmp_path / "errors", "w+")  # no pipe, which the processes of joblib would keep open
    process = subprocess.Popen([sys.executable, *map(str, command), "--out", str(tmp_path)], cwd=ROOT, stderr=errors)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("trials/*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert (tmp_path / "errors").read_text().endswith("interrupted\n")  # joblib's processes may say more
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*.json")}
    assert 5 <= len(kept) < 24
    assert run(*command, "--out", tmp_path).returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(trials(tmp_path)) == 24


def test_a_cluster_of_two_workers_gives_the_same(compared, tmp_path):
    """A real scheduler and two worker processes, as one would start them on several machines."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    dask, quiet = [sys.executable, "-m", "dask"], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [*dask, "scheduler", "--host", address, "--no-dashboard"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
    started = [subprocess.Popen(c, env=environment, cwd=tmp_path, **quiet) for c in (scheduler, worker, worker)]
    try:
        from distributed import Client

        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            pids = set(client.run(os.getpid).values())
        assert len(pids) == 2
        cluster = ["--backend", "dask", "--cluster", address, "--out", tmp_path / "c"]
        result = run("compare.py", "--methods", "mcts,random", *OPTIONS, *cluster)
        assert result.returncode == 0, result.stderr
    finally:
        for process in started:
            process.kill()
            process.wait()
    ours = trials(compared[0])
    assert trials(tmp_path / "c") == {key: ours[key] for key in ours if key[0] in ("mcts", "random")}


# --- figures by hand --------------------------------------------------------------------------


def result_of(outcome: str, samples: int, trace: list) -> dict:
    return {"outcome": outcome, "samples": samples, "trace": trace, "seconds": 1.0}


def test_the_best_so_far():
    trace = [[1, 0.5, 0.4], [10, 0.6, 0.3], [1_000, 0.9, 0.8]]
    places = np.array([0, 1, 9, 10, 999, 1_000, 5_000])
    np.testing.assert_array_equal(comparison_report.at_samples(trace, places), [np.nan, 0.4, 0.4, 0.3, 0.3, 0.8, 0.8])
    assert np.isnan(comparison_report.at_samples([], places)).all()


def test_statistics_by_hand():
    results = [
        result_of("found", 2_000, [[1, 0.5, 0.5], [2_000, 0.9, 0.9]]),
        result_of("found", 4_000, [[1, 0.7, 0.7], [4_000, 0.9, 0.9]]),
        result_of("samples", 6_000, [[1, 0.8, 0.6]]),
        result_of("stalled", 500, [[1, 0.8, 0.8]]),
    ]
    summary = comparison_report.summarise("x", results, 0.9, [1_000, 5_000, 10_000])
    assert summary["solved"] == 0.5 and summary["stalled"] == 1
    assert summary["samples_to_best"] == {"mean": 3_000, "sd": pytest.approx(1_000 * math.sqrt(2)), "quartiles": [2_000, 4_000, None]}
    assert list(summary["at"]) == [1_000, 5_000]  # one trial had no more than 6,000
    assert summary["at"][1_000] == {"test": pytest.approx(0.65), "regret": pytest.approx(0.25)}
    assert summary["at"][5_000]["test"] == pytest.approx((0.9 + 0.9 + 0.6 + 0.8) / 4)


def test_what_was_published_stands_only_beside_the_same_comparison():
    options = Namespace(max_nodes=6, max_edges=9, lookup="exact", metric="test")
    assert comparison_report.published_samples(options)["mcts"][0] == 10_367
    assert comparison_report.published_at(options)["mcts"][5_000] == pytest.approx(0.9423411 - 0.94220)
    for other in ({"max_nodes": 5}, {"lookup": "isomorphic"}, {"metric": "valid"}, {"max_edges": 8}):
        assert comparison_report.published_samples(Namespace(**{**vars(options), **other})) == {}
        assert comparison_report.published_at(Namespace(**{**vars(options), **other})) == {}
    assert comparison_report.published_at(Namespace(**{**vars(options), "max_nodes": 7, "lookup": "isomorphic"}))["bohb"][1_000] == 0.00369


def test_other_trials_have_other_files():
    trial = Trial("mcts:cp=0.5", "{}", 0, 6, 9, "test", "exact", None, 10, "abc")
    others = {"method": "mcts", "options": "x", "seed": 1, "max_nodes": 5, "max_edges": 8, "metric": "valid", "lookup": "isomorphic", "samples": 5, "patience": 11, "table": "x"}
    names = {Trial(**{**vars(trial), name: value}).file_name for name, value in others.items()}
    assert len(names | {trial.file_name}) == 11
    assert all(re.fullmatch(r"[\w.=-]+", name) for name in names | {trial.file_name})


def test_methods_with_options():
    assert compare.parse_method("tuned") == ("mcts", PRESETS["tuned"])
    own = PRESETS["tuned"] | {"cp": 0.5, "close_exhausted": False}
    assert compare.parse_method("mcts:preset=tuned:cp=0.5:close_exhausted=no") == ("mcts", own)
    assert compare.parse_method("mcts-metadnn:epochs=3") == ("mcts-metadnn", {"epochs": 3})
    assert compare.parse_method("random") == ("random", {})


@pytest.mark.parametrize("method", ["mcts:backup=both", "tuned:cp=1", "mcts:close_exhausted=maybe", "mcts:cp", "mcts:cp=high", "mcts:cp=nan", "mcts:cp=-1", "mcts:guide=-1", "mcts-metadnn:guide=5", "mcts:speed=1", "random:cp=1", "mcts:", "nothing", ""])
def test_unknown_methods_and_options(method):
    with pytest.raises(InputError, match="--methods"):
        compare.parse_method(method)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--methods", "mcts,annealing"], "'annealing'"),
        (["--methods", "hyperband"], "4, 12 and 36 epochs"),
        (["--cluster", "tcp://nowhere:1"], "--cluster needs --backend"),
        (["--trials", 0], "--trials"),
        (["--at", "100,many"], "'many'"),
        (["--dataset", "absent"], "cannot read the table"),
        (["--out", ROOT / "LICENSE"], "--out"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments, words):
    assert_refused(run("compare.py", *arguments), words)


def test_a_table_without_test_accuracies_is_refused(small_table, tmp_path):
    small_table.columns["valid"] = small_table.columns.pop("test")
    save(small_table, tmp_path / "t")
    assert_refused(run("compare.py", "--dataset", tmp_path / "t", "--metric", "valid", "--max-nodes", 4), "no test accuracies")
