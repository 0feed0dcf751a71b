"""What a page tells of a search's samples: beside what the search's table and trainings say."""

import dataclasses

import pytest
from drawn_runs import finished, tree, tuned, unfinished  # noqa: F401 (fixtures)
from trained_runs import as_trained

from nasbench_dataset import cells
from nasbench_dataset.opening import open_table
from nasbench_dataset.table import EMBEDDED
from sampled_cells import best_cells, best_cells_words, best_over_samples, best_over_time, failures
from saved_run import Best
from saved_trainings import Trained, read_trainings


@pytest.fixture(scope="module")
def accuracies():
    return open_table(EMBEDDED).columns["test"]


def test_the_best_cells_are_the_best_of_all_samples(tree, accuracies):  # noqa: F811
    """Under both lookups."""
    best = sorted((round(float(accuracies[index]), 7) for index in tree.samples), reverse=True)[:5]
    found = best_cells(tree, {})
    assert [cell["accuracy"] for cell in found] == best and len({cell["cell"] for cell in found}) == 5
    for cell in found:
        assert tree.samples[cell["sample"] - 1] == cell["cell"]
        assert cell["accuracy"] == round(float(accuracies[cell["cell"]]), 7)
        operations, edges = cells.cell(cell["cell"])
        assert (cell["operations"], cell["edges"]) == ("".join(map(str, operations)), edges)
    assert best_cells_words(tree, {}) == f"The best of all {len(tree.samples)} unique samples."


def test_predicted_values_of_a_guided_tree_are_not_told_as_accuracies(tree, accuracies):  # noqa: F811
    value = tree.value.copy()
    value[[state.finished for state in tree.states]] = 0.99
    guided = dataclasses.replace(tree, value=value, settings={**tree.settings, "guide": 5})
    found = best_cells(guided, {})
    assert found[0]["accuracy"] == round(tree.bests[-1].accuracy, 7)
    assert all(cell["accuracy"] == round(float(accuracies[cell["cell"]]), 7) for cell in found)
    assert "predicted" in best_cells_words(guided, {})


def test_the_best_over_samples_is_what_was_saved(tree):  # noqa: F811
    assert best_over_samples(tree) == [(best.sample, round(best.accuracy, 7)) for best in tree.bests]
    assert best_over_samples(dataclasses.replace(tree, bests=None)) is None
    assert best_over_time(tree, {}) is None


def test_seconds_of_trainings_add_up_with_those_that_failed(tree):  # noqa: F811
    kept = {"samples": [10, 11, 12], "failed": [30, 31, 32], "bests": [Best(0.5, 1, 1), Best(0.7, 3, 9)]}
    run = dataclasses.replace(tree, **kept)
    trained = {index: Trained(place, 0.5, None, 10.0, "trained", "") for place, index in ((2, 10), (3, 11), (5, 12))}
    failed = {index: Trained(place, None, None, 1.5, "crashed", "x") for place, index in ((1, 30), (4, 31), (6, 32))}
    assert best_over_time(run, {**trained, **failed}) == {"points": [(11.5, 0.5), (33.0, 0.7)], "end": 34.5}
    assert best_over_time(run, trained) is None


def test_a_search_that_trained(finished, tmp_path):  # noqa: F811
    run = as_trained(finished, tmp_path / "run", ["too slow", "too large"])
    trainings = read_trainings(run, tmp_path / "run")
    found = best_cells(run, trainings)
    assert all(cell["test"] == trainings[cell["cell"]].test for cell in found)
    assert [(failure["outcome"], failure["reason"]) for failure in failures(run, trainings)] == [
        ("out of time", "too slow"), ("out of time", "too large"),
    ]  # fmt: skip
    over_time = best_over_time(run, trainings)
    assert over_time["end"] == 2 * len(run.samples) + 1 and over_time["points"][0] == (2.0, round(run.bests[0][0], 7))
    assert over_time["points"][-1] == (over_time["end"], round(run.bests[-1][0], 7))  # the target is the last sample


def test_failures_of_which_the_store_knows_nothing_or_better(tree):  # noqa: F811
    run = dataclasses.replace(tree, failed=[30, 31])
    told = failures(run, {30: Trained(1, 0.5, None, 1.0, "trained", "")})
    assert [failure["outcome"] for failure in told] == ["trained since then", "not known"]
