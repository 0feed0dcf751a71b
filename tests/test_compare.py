"""``python compare.py``: the same trials however they are run, and files that are whole however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import ROOT, assert_refused, assert_refused_here, run
from dask_cluster import dask_cluster

import compare
from compare import Trial
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import EMBEDDED, from_entries, save
from options import SearchOptions, preset

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
    result = run("compare.py", "--methods", "mcts, mcts:cp=0.5,evolution ,random", *OPTIONS, "--out", folder)
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
        of_method = [result for (name, _), result in results.items() if name == method["method"]]
        assert {result["outcome"] for result in of_method} == {"found"} and method["solved"] == 1
        assert method["samples_to_best"]["mean"] == pytest.approx(np.mean([result["samples"] for result in of_method]))
    for name in ("best-so-far", "samples-to-best"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        text = "".join(ElementTree.parse(folder / f"{name}.svg").getroot().itertext())
        for words in ("unique valid samples", "3 trials of each method", "not NAS-Bench-101 itself", "mcts:cp=0.5"):
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
    options = ["--max-nodes", 4, "--dataset", EMBEDDED, "--trials", 1, "--samples", 5, "--jobs", 1, "--quiet"]
    result = run("compare.py", "--methods", "mcts-metadnn,predictor", *options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert {method for method, _ in trials(tmp_path)} == {"mcts-metadnn", "predictor"}


@pytest.mark.parametrize("backend", ["numpy", "elephants"])
def test_a_backend_that_cannot_fit_is_refused_before_any_trial(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert_refused(run("compare.py", "--methods", "random,predictor", *OPTIONS, "--out", tmp_path), backend)
    assert not list(tmp_path.iterdir())


def test_only_what_is_missing_or_unusable_is_run(compared):
    """With far more workers allowed than there are trials."""
    folder, _ = compared
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}
    damaged = next(path for path in before if path.name.startswith("mcts-1"))
    content = damaged.read_text()
    damaged.write_text(content.replace('"found"', '"lost"'))
    result = run("compare.py", "--methods", "mcts,local-search", *OPTIONS, "--jobs", 999, "--out", folder)
    assert result.returncode == 0, result.stderr
    words = f"1 trial in {folder / 'trials'} cannot be used and will be run again ({damaged.name}: its outcome"
    assert result.stderr.startswith(words) and len(result.stderr.splitlines()) == 1
    after = {path: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}
    new = set(after) - set(before)
    assert {json.loads(path.read_text())["trial"]["method"] for path in new} == {"local-search"} and len(new) == 3
    assert {path for path in before if before[path] != after[path]} == {damaged}
    assert json.loads(damaged.read_text())["trace"] == json.loads(content)["trace"]


def start_and_wait_for(folder, count: int, *options) -> subprocess.Popen:
    """A comparison of longer trials, in a group of processes of its own, when so many trials have ended."""
    command = [sys.executable, "compare.py", *KILLED, *options, "--jobs", 2, "--out", folder]
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (folder / "trials").exists() or len(list(folder.glob("trials/*.json"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


KILLED = ["--methods", "random,evolution", "--max-nodes", 5, "--dataset", EMBEDDED, "--trials", 8, "--quiet"]
UNIX = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


@UNIX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_comparison_goes_on(tmp_path, number):
    """Killed when some trials have ended; those are kept and the whole comes out as it should."""
    process = start_and_wait_for(tmp_path, 5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)  # as long as any process has standard error open
    assert process.returncode == (130 if number == signal.SIGTERM else -number)
    assert errors == "interrupted\n" or number == signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*.json")}
    assert 5 <= len(kept) < 16
    assert run("compare.py", *KILLED, "--out", tmp_path).returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert len(trials(tmp_path)) == 16


@UNIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_its_processes_ends_them_in_seconds_and_in_one_line(tmp_path, number):
    """As a terminal sends it, while both workers have long to go."""
    long = ["--methods", "evolution", "--max-nodes", 7, "--patience", 10**9]
    process = start_and_wait_for(tmp_path, 0, *long)
    time.sleep(2)  # the workers have been started, and may not be ready
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (130, "interrupted\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk")
def test_what_cannot_be_printed_changes_no_file(compared):
    folder, printed = compared
    with open("/dev/full", "w") as full:
        methods = ["--methods", "mcts,mcts:cp=0.5,evolution,random"]
        command = [sys.executable, "compare.py", *methods, *OPTIONS, "--out", folder]
        result = subprocess.run(list(map(str, command)), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2 and "cannot write the output" in result.stderr
    seconds = re.compile(r"\| [\d.]+ \|$", re.MULTILINE)  # other tests here have some trials run again
    written = (folder / "comparison.md").read_text()
    assert seconds.sub("|", written).splitlines()[6:] == seconds.sub("|", printed).splitlines()[6:-2]


def test_a_table_of_one_cell(tmp_path, monkeypatch):
    """It is found at once, with no regret that a logarithmic scale could show; the words of the table do no harm."""
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # workers find their modules, too
    source = "made\x1b[2J up\nof <b>|\ud800" + "9" * 3_000
    save(from_entries("test", {cells.cell_count(3) - 1: 0.9}, source, measured=False), tmp_path / "t")
    methods = ["--methods", "random,evolution,local-search", "--max-nodes", 3, "--trials", 1, "--quiet"]
    result = run("compare.py", *methods, "--dataset", tmp_path / "t", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert {result["samples"] for result in trials(tmp_path).values()} == {1}
    text = (tmp_path / "comparison.md").read_text()
    assert text in result.stdout and "made [2J up of &lt;b>| 999999999999..." in text and "\x1b" not in text


def test_a_cluster_of_two_workers_gives_the_same(compared, tmp_path):
    with dask_cluster(tmp_path) as (address, _):
        cluster = ["--backend", "dask", "--cluster", address, "--out", tmp_path / "c"]
        result = run("compare.py", "--methods", "mcts,random", *OPTIONS, *cluster)
    assert result.returncode == 0, result.stderr
    ours = trials(compared[0])
    assert trials(tmp_path / "c") == {key: ours[key] for key in ours if key[0] in ("mcts", "random")}


# --- trials on disk ---------------------------------------------------------------------------


TRIAL = Trial("mcts:cp=0.5", "{}", 0, 6, 9, "test", "exact", 40, 10, "abc")
RESULT = {
    "trial": vars(TRIAL),
    "outcome": "found",
    "samples": 30,
    "lookups": 50,
    "seconds": 0.5,
    "trace": [[1, 0.5, 0.5], [30, 0.9, 0.9]],
}


def test_results_that_a_trial_can_have_are_taken():
    for changes in (
        {},
        {"outcome": "stalled", "trace": [[1, 0.5, 0.5]]},
        {"outcome": "samples", "samples": 40, "trace": [[1, 0.5, 0.5]]},
        {"outcome": "exhausted", "samples": 0, "trace": []},
    ):
        compare.check_result({**RESULT, **changes}, TRIAL, 0.9)
    valid = Trial(**{**vars(TRIAL), "metric": "valid"})
    compare.check_result({**RESULT, "trial": vars(valid), "trace": [[30, 0.9, None]]}, valid, 0.9)


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": {**vars(TRIAL), "seed": 1}},
        {"outcome": "lost"},
        {"outcome": None},
        {"outcome": "stalled"},  # although it has the best
        {"outcome": "samples", "trace": [[1, 0.5, 0.5]]},  # although 40 were allowed
        {"samples": -1},
        {"samples": 29},
        {"samples": "30"},
        {"samples": float("nan")},
        {"lookups": float("inf")},
        {"lookups": True},
        {"seconds": -0.1},
        {"seconds": None},
        {"trace": None},
        {"trace": []},
        {"trace": [[1, 0.5, 0.5], [30, 0.8, 0.8]]},  # not the best
        {"trace": [[30, 0.9, 0.9], [1, 0.95, 0.95]]},
        {"trace": [[1, 0.95, 0.5], [30, 0.9, 0.9]]},
        {"trace": [[1, -0.5, 0.5], [30, 0.9, 0.9]]},
        {"trace": [[1, 0.5, 1.5], [30, 0.9, 0.9]]},
        {"trace": [[1, 0.5, None], [30, 0.9, 0.9]]},
        {"trace": [[1, 0.5, float("nan")], [30, 0.9, 0.9]]},
        {"trace": [[1, 0.5], [30, 0.9, 0.9]]},
        {"trace": {"1": 0.9}},
        {"trace": [1, 0.5, 0.5]},
    ],
    ids=str,
)
def test_results_that_no_trial_can_have_are_not_taken(changes):
    with pytest.raises(ValueError):
        compare.check_result({**RESULT, **changes}, TRIAL, 0.9)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 10**5, b"9" * 5_000, b'{"trial": {}}', None])
def test_files_that_hold_no_result_are_run_again(tmp_path, capsys, content):
    path = tmp_path / TRIAL.file_name
    path.mkdir() if content is None else path.write_bytes(content)
    assert compare.read_results(tmp_path, [TRIAL], 0.9) == {}
    words = f"1 trial in {tmp_path} cannot be used and will be run again ({path.name}: "
    errors = capsys.readouterr().err
    assert errors.startswith(words) and len(errors.splitlines()) == 1


def test_other_trials_have_other_files():
    trial = Trial("mcts:cp=0.5", "{}", 0, 6, 9, "test", "exact", None, 10, "abc")
    assert trial.file_name == "mcts_cp=0.5-0-7a851fd6f1a4b7b9.json"  # else those of before would be run again
    others = Trial("mcts", "x", 1, 5, 8, "valid", "isomorphic", 5, 11, "x")
    names = {Trial(**{**vars(trial), name: value}).file_name for name, value in vars(others).items()}
    assert len(names | {trial.file_name}) == 11
    assert all(re.fullmatch(r"[\w.=-]+", name) for name in names | {trial.file_name})


def test_methods_with_options():
    assert compare.parse_method("tuned") == ("mcts", preset(SearchOptions, "tuned"))
    own = preset(SearchOptions, "tuned") | {"cp": 0.5, "close_exhausted": False}
    assert compare.parse_method("mcts:preset=tuned:cp=0.5:close_exhausted=no") == ("mcts", own)
    assert compare.parse_method("mcts-metadnn:epochs=3") == ("mcts-metadnn", {"epochs": 3})
    assert compare.parse_method("random") == ("random", {})


@pytest.mark.parametrize(
    "method",
    [
        *("mcts:cp", "mcts:cp=high", "mcts:cp=nan", "mcts:cp=-1", "mcts:guide=-1", "mcts:backup=both", "mcts:speed=1"),
        *("mcts:close_exhausted=maybe", "mcts-metadnn:guide=-5", "tuned:cp=1", "random:cp=1", "mcts:", "nothing", ""),
    ],
)
def test_unknown_methods_and_options(method):
    with pytest.raises(InputError, match="--methods"):
        compare.parse_method(method)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--methods", "mcts,annealing"], "'annealing'"),
        (["--methods", "hyperband"], "4, 12 and 36 epochs"),
        (["--cluster", "tcp://nowhere:1"], "--cluster needs --backend"),
        (["--cluster", "", "--backend", "dask"], "--cluster"),
        (["--trials", 0], "--trials"),
        (["--trials", 10**9], "100,000 trials"),
        (["--jobs", 0], "--jobs"),
        (["--at", 0], "--at"),
        (["--methods", ""], "--methods"),
        (["--dataset", ""], "--dataset"),
        (["--out", ""], "--out"),
        (["--at", "100,many"], "'many'"),
        (["--dataset", "absent"], "absent: No such file"),
        (["--out", ROOT / "LICENSE"], "--out"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(ROOT)
    assert_refused_here(capsys, compare.main, arguments, words)


def test_a_wrong_argument_is_refused_in_one_line_by_the_command():
    assert_refused(run("compare.py", "--jobs", 0), "--jobs")
    assert_refused(run("compare.py", "--methods", "mcts,annealing"), "'annealing'")


def test_a_table_without_test_accuracies_is_refused(small_table, tmp_path):
    small_table.columns["valid"] = small_table.columns.pop("test")
    save(small_table, tmp_path / "t")
    valid = ["--metric", "valid", "--max-nodes", 4]
    assert_refused(run("compare.py", "--dataset", tmp_path / "t", *valid), "no test accuracies")
