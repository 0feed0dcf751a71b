"""``--noisy``: each cell is answered by one of its three runs, and no mean is ever told."""

import json

import numpy as np
import pytest
from conftest import run

import compare
import MCTS
import visualize
from arch_generator import arch_generator
from method import Question
from nasbench_dataset import InputError, cells
from nasbench_dataset.opening import open_table
from nasbench_dataset.runs import VALID_RUNS
from noisy_trainer import NOISY, NoisyTrainer
from net_training import NetTrainer


@pytest.fixture(scope="module")
def table():
    return open_table("digits")


def answers(trainer: NetTrainer) -> np.ndarray:
    return np.array([trainer.train_net(Question(None, index)) for index in range(cells.cell_count(5))])


def test_each_answer_is_one_of_the_runs_and_each_run_is_as_likely(table):
    trainer = NoisyTrainer(table, arch_generator(5), "isomorphic", seed=1)
    runs = np.array([table.columns[name][:cells.cell_count(5)] for name in VALID_RUNS])
    assert (answers(trainer) == runs).any(axis=0).all()
    all_differ = (runs[0] != runs[1]) & (runs[0] != runs[2]) & (runs[1] != runs[2])
    shares = (answers(trainer) == runs)[:, all_differ].mean(axis=1)
    assert all_differ.sum() > 1_000 and shares == pytest.approx([1 / 3] * 3, abs=0.05)


def test_the_seed_says_which_run(table):
    one, same = (NoisyTrainer(table, arch_generator(5), "isomorphic", seed=1) for _ in range(2))
    assert (answers(one) == answers(same)).all() and one.fingerprint() == same.fingerprint()
    other = NoisyTrainer(table, arch_generator(5), "isomorphic", seed=2)
    assert np.mean(answers(one) == answers(other)) < 0.6 and one.fingerprint() == other.fingerprint()


def test_where_a_run_is_missing_the_mean_answers(table):
    columns = {name: table.columns[name].copy() for name in ("valid", "test", *VALID_RUNS)}
    for name in VALID_RUNS:
        columns[name][7] = np.nan
    trainer = NoisyTrainer(type(table)(columns, "made up", True), arch_generator(5), "isomorphic")
    assert trainer.train_net(Question(None, 7)) == columns["valid"][7]


def test_a_table_without_single_runs_is_refused(small_table):
    with pytest.raises(InputError, match="--noisy needs the single runs"):
        NoisyTrainer(small_table, arch_generator(4), "exact")


def test_a_search_has_no_target_and_goes_on_bit_for_bit(tmp_path):
    search = ["--noisy", "--dataset", "digits", "--max-nodes", "5", "--seed", "3", "--quiet", "--out"]
    assert MCTS.main([*search, str(tmp_path / "whole"), "--samples", "300"]) == 0
    assert MCTS.main([*search, str(tmp_path / "parts"), "--samples", "100"]) == 0
    assert MCTS.main([*search, str(tmp_path / "parts"), "--samples", "300", "--resume"]) == 0
    whole, parts = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "parts"))
    assert whole["trace"] == parts["trace"] and whole["metric"] == NOISY and whole["outcome"] == "samples"
    assert visualize.main([str(tmp_path / "parts"), "--html"]) == 0  # its settings are such as can be drawn
    with pytest.raises(InputError, match="its metric is"):
        MCTS.main([*search[1:], str(tmp_path / "parts"), "--samples", "400", "--resume", "--metric", "valid"])


@pytest.mark.parametrize(
    "main, options, words",
    [
        (MCTS.main, ["--metric", "test"], "leave --metric out"),
        (MCTS.main, ["--train", "digits"], "leave it out with --train"),
        (compare.main, ["--methods", "random"], "--noisy needs --samples"),
    ],
)
def test_what_does_not_go_with_it_is_refused(main, options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        main(["--noisy", *options, "--out", str(tmp_path)])


def test_a_comparison_is_judged_by_mean_test_accuracy_and_finds_no_best(tmp_path, table):
    common = "--noisy", "--dataset", "digits", "--max-nodes", "5", "--methods", "random,evolution"
    result = run("compare.py", *common, "--samples", "60", "--trials", "2", "--jobs", "1", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "guided by noisy-valid accuracy" in result.stdout and "solved" not in result.stdout
    assert {path.name for path in tmp_path.glob("*.png")} == {"best-so-far.png"}
    trials = [json.loads(path.read_text()) for path in (tmp_path / "trials").iterdir()]
    runs, tests = (set(np.ravel([table.columns[name] for name in names]).tolist()) for names in (VALID_RUNS, ["test"]))
    assert len(trials) == 4
    for trial in trials:
        assert trial["outcome"] == "samples"
        assert all(valid in runs and test in tests for _, valid, test in trial["trace"])
