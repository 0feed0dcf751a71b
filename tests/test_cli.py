"""``python MCTS.py`` as a user runs it."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
from conftest import EMBEDDED_TABLE, ROOT, assert_refused, assert_refused_here, run

import MCTS
from nasbench_dataset import cells
from nasbench_dataset.table import save

SUMMARY = [
    "method", "seed", "max_nodes", "max_edges", "dataset", "metric", "lookup", "cp", "outcome", "best_accuracy",
    "best_network", "unique_samples", "lookups", "episodes", "tree_nodes", "seconds", "trace",
    "preset", "backup", "close_exhausted", "guide", "guide_from",
]  # fmt: skip


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_the_embedded_table_is_searched_to_its_target(tmp_path):
    result = run("MCTS.py", "--seed", 0, "--max-nodes", 5, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "SURROGATE" in result.stdout and "found: the target was found" in result.stdout
    assert len(result.stdout.splitlines()) < 12
    content = summary(tmp_path)
    assert list(content) == SUMMARY
    assert content["outcome"] == "found" and content["dataset"] == "embedded surrogate"
    assert content["best_network"]["node_list"] == [
        "input", "conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "output", "term",
    ]  # fmt: skip
    assert content["trace"][-1] == [content["best_accuracy"], content["unique_samples"]]
    accuracies, samples = zip(*content["trace"])
    assert list(accuracies) == sorted(accuracies) and list(samples) == sorted(samples)
    assert (tmp_path / "result.txt").read_text() == json.dumps(content["trace"]) + "\n"


def test_the_published_cells_are_converted_and_searched(published_91, tmp_path):
    """Real input, in the original's JSON format."""
    source = tmp_path / "published.json"
    entries = {json.dumps(cells.to_dict(*cell), sort_keys=True): x for cell, x in published_91.items()}
    source.write_text(json.dumps(entries))
    table = tmp_path / "table.pickle"
    converted = run("-m", "nasbench_dataset.convert", source, table)
    assert converted.returncode == 0, converted.stderr
    assert "91 of 423,624 cells" in converted.stdout and "complete up to 4 vertices" in converted.stdout
    for seed, dataset in enumerate((table, source)):
        options = ["--dataset", dataset, "--max-nodes", 4, "--seed", seed, "--out", tmp_path / "r"]
        result = run("MCTS.py", *options)
        assert result.returncode == 0, result.stderr
        content = summary(tmp_path / "r")
        assert content["outcome"] == "found" and content["dataset"] == str(dataset)
        assert content["best_accuracy"] == pytest.approx(0.9359642, abs=5e-8)
        assert content["best_network"]["adj_mat"] == [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert len((tmp_path / "r" / "result.txt").read_text().splitlines()) == 2


def test_samples_seed_and_trace(tmp_path):
    for name in "ab":
        run("MCTS.py", "--samples", 500, "--seed", 7, "--quiet", "--out", tmp_path / name)
    first, second = summary(tmp_path / "a"), summary(tmp_path / "b")
    assert first["unique_samples"] == 500 and first["outcome"] == "samples"
    assert first | {"seconds": 0} == second | {"seconds": 0}
    run("MCTS.py", "--samples", 500, "--quiet", "--out", tmp_path / "c")
    assert summary(tmp_path / "c")["seed"] != 7


@pytest.mark.parametrize("metric, lookup", [("valid", "exact"), ("test", "isomorphic")])
def test_metric_and_lookup(tmp_path, metric, lookup):
    options = ["--metric", metric, "--lookup", lookup, "--max-nodes", 4, "--seed", 0]
    result = run("MCTS.py", *options, "--patience", 5_000, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    content = summary(tmp_path)
    assert (content["metric"], content["lookup"]) == (metric, lookup)
    assert ("the table's own best is the target" in result.stdout) == (metric == "valid")


def test_a_preset_sets_what_is_not_given(tmp_path):
    options = ["--max-nodes", 4, "--seed", 0, "--lookup", "isomorphic", "--out", tmp_path]
    assert run("MCTS.py", *options).returncode == 0
    content = summary(tmp_path)
    assert (content["preset"], content["cp"], content["backup"]) == ("original", 2.0, "first-parent")
    assert (content["close_exhausted"], content["guide"]) == (False, 0)
    result = run("MCTS.py", *options, "--preset", "tuned", "--cp", 2, "--guide", 0)
    assert result.returncode == 0, result.stderr
    assert "Cp 2, back-up along the path, exhausted states closed, seed 0" in result.stdout
    content = summary(tmp_path)
    assert (content["preset"], content["cp"], content["backup"]) == ("tuned", 2.0, "path")
    assert (content["close_exhausted"], content["guide"]) == (True, 0)


def test_lookups_differ(tmp_path):
    for lookup in ("exact", "isomorphic"):
        options = ["--lookup", lookup, "--max-nodes", 4, "--seed", 0, "--samples", 30, "--quiet"]
        assert run("MCTS.py", *options, "--out", tmp_path / lookup).returncode == 0
    assert summary(tmp_path / "exact")["episodes"] != summary(tmp_path / "isomorphic")["episodes"]


def test_a_search_without_new_samples_stalls(tmp_path):
    result = run("MCTS.py", "--max-nodes", 5, "--seed", 0, "--patience", 1, "--out", tmp_path)
    assert result.returncode == 0
    assert "STALLED" in result.stdout and summary(tmp_path)["outcome"] == "stalled"


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("number", [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")])
def test_interrupted_by_the_user(tmp_path, number):
    command = [sys.executable, "MCTS.py", *EMBEDDED_TABLE, "--max-nodes", "7", "--seed", "0", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert any("seed 0" in line for line in process.stdout)  # the banner ends with it
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert summary(tmp_path)["outcome"] == "interrupted" and summary(tmp_path)["unique_samples"] > 0
    assert (tmp_path / "result.txt").read_text() == ""  # it holds finished searches
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--max-nodes", 9], "MAX_NODES is 9"),
        (["--max-nodes", "six"], "--max-nodes"),
        (["--max-edges", 0], "MAX_EDGES is 0"),
        (["--metric", "train"], "--metric"),
        (["--lookup", "fuzzy"], "--lookup"),
        (["--cp", "nan"], "--cp"),
        (["--cp", -1], "--cp"),
        (["--cp", 1e308], "--cp"),
        (["--seed", -1], "--seed"),
        (["--seed", "²"], "--seed"),
        (["--seed=--"], "--seed"),
        (["--out=--"], "--out"),
        (["--samples", 0], "--samples"),
        (["--patience", "1e5"], "--patience"),
        (["--sample", 5], "--sample"),
        (["--dataset", "absent.pickle"], "absent.pickle: No such file"),
        (["--dataset", ROOT], "cannot read"),
        (["--dataset", ROOT / "README.md"], "not a usable table"),
        (["--out", ROOT / "LICENSE"], "--out"),
        (["--out", "/proc/nowhere"], "--out"),
    ],
)
def test_wrong_arguments_and_input_are_refused_in_one_line(monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(ROOT)
    assert_refused_here(capsys, MCTS.main, [*EMBEDDED_TABLE, *arguments], words)


def test_a_wrong_argument_is_refused_in_one_line_by_the_command():
    assert_refused(run("MCTS.py", "--max-nodes", 0), "MAX_NODES is 0")
    assert_refused(run("MCTS.py", "--dataset", ROOT / "README.md"), "not a usable table")


def test_unusable_tables_are_refused_in_one_line(tmp_path, small_table):
    path = tmp_path / "t"
    save(small_table, path)
    assert_refused(run("MCTS.py", "--dataset", path, "--max-nodes", 4, "--metric", "valid"), "no column 'valid'")
    path.write_bytes(path.read_bytes()[:-9])
    assert_refused(run("MCTS.py", "--dataset", path), str(path))
    path.write_bytes(pickle.dumps(print))
    assert_refused(run("MCTS.py", "--dataset", path), "builtins.print")
    small_table.columns["test"][:] = float("nan")
    save(small_table, path)
    assert_refused(run("MCTS.py", "--dataset", path), "no target")


@pytest.mark.parametrize("script", ["visualize.py", "compare.py"])
def test_a_missing_package_is_told_with_what_installs_it(script):
    missing = f"import runpy, sys; sys.modules['matplotlib'] = None; sys.argv = [{script!r}]"
    assert_refused(run("-c", f"{missing}; runpy.run_path({script!r}, run_name='__main__')"), "requirements-compare.txt")
