"""The embedded table: what is pinned, what it is worth, and how it was made."""

import numpy as np
import pytest
from conftest import ROOT, assert_refused, measured_cells, run

from nasbench_dataset import cells, features
from nasbench_dataset.table import ABSENT, DENOMINATOR, EMBEDDED, load
from net_training import target_state

PUBLISHED_TEST = {3: 0.9329928, 4: 0.9359642, 6: 0.9423411, 7: 0.9431758}
PUBLISHED_VALID = {3: 0.9391693, 4: 0.9424412, 5: 0.9463809, 6: 0.9505542}


@pytest.fixture(scope="module")
def columns():
    return load(EMBEDDED).columns


def target_index(max_nodes):
    return cells.index(*target_state(max_nodes)[:2])


def test_it_is_small_and_says_what_it_is():
    assert EMBEDDED.stat().st_size <= 4_000_000
    table = load(EMBEDDED)
    assert not table.measured and "surrogate" in table.source
    assert table.complete_to("test") == table.complete_to("valid") == 7


def test_every_value_is_a_numerator_over_29952(columns):
    for values in columns.values():
        numerators = values * DENOMINATOR
        np.testing.assert_allclose(numerators, np.rint(numerators), atol=1e-6)
        assert 0 <= numerators.min() and numerators.max() < ABSENT


def test_published_values_are_pinned(columns):
    for max_nodes, accuracy in PUBLISHED_TEST.items():
        assert columns["test"][target_index(max_nodes)] == pytest.approx(accuracy, abs=1e-7)
    for max_nodes, accuracy in PUBLISHED_VALID.items():
        assert columns["valid"][target_index(max_nodes)] == pytest.approx(accuracy, abs=1e-7)


@pytest.mark.parametrize("max_nodes", [3, 4, 5, 6, 7])
def test_each_target_is_the_best_of_its_domain_by_test(columns, max_nodes):
    domain = columns["test"][: cells.cell_count(max_nodes)]
    best = target_index(max_nodes)
    assert np.flatnonzero(domain == domain.max()).tolist() == [best]


def test_bests_of_all(columns):
    test, valid = columns["test"], columns["valid"]
    best = [target_index(7), target_index(6)]
    assert np.argsort(-test)[:2].tolist() == best
    assert np.delete(test, best).max() <= 0.94200723
    assert np.flatnonzero(valid >= valid[target_index(6)]).tolist() == [target_index(6)]


def test_it_is_no_copy_of_the_measurements_but_close_to_them(columns, measured):
    """The bar for unseen cells, here on cells that were fitted to: fit_surrogate --evaluate holds cells out."""
    from scipy.stats import kendalltau

    path = measured / "nasbench101_measured_20k.npz"
    index = [cells.index(*cell) for cell in measured_cells(path)]
    mean = np.load(path)["valid_108_max3"] - 0.0034
    ours = columns["valid"][index]
    assert np.mean(np.abs(ours - mean) < 1e-4) < 0.05
    worked = (ours > 0.5) & (mean > 0.5)
    assert kendalltau(ours[worked], mean[worked]).statistic >= 0.74
    assert np.sqrt(np.mean((ours - mean)[worked] ** 2)) <= 0.012
    quantiles = [0.1, 0.5, 0.9, 0.99]
    np.testing.assert_allclose(np.quantile(ours, quantiles), np.quantile(mean, quantiles), atol=0.002)
    assert 0 < np.mean(ours < 0.5) < 0.004  # some trainings fail


def test_features_by_hand():
    """The 4-vertex target: input -> c3 -> c1 -> output and input -> output."""
    found = features.describe(np.array([cells.index((0, 1), 0b101101)]))
    value = {name: float(column[0]) for name, column in found.items()}
    assert value["vertices"] == 4 and value["edges"] == 4 and value["paths"] == 2
    assert value["paths without a vertex"] == 1 and value["paths c3-c1"] == 1 and value["paths c1-c3"] == 0
    assert value["most length on a path"] == 2 and value["least length on a path"] == 0
    assert value["edges in->c3"] == value["edges c3->c1"] == value["edges c1->out"] == value["edges in->out"] == 1
    parameters = cells.trainable_parameters((0, 1), 0b101101)
    assert value["log parameters"] == pytest.approx(np.log(parameters), rel=1e-6)


def test_a_small_fit_from_end_to_end(measured, tmp_path):
    pytest.importorskip("sklearn")

    def fit(name, residual_seed):
        options = ["--trees", 3, "--residual-seed", residual_seed, "--out", tmp_path / name]
        result = run("-m", "nasbench_dataset.fit_surrogate", measured, *options)
        assert result.returncode == 0, result.stderr
        return (tmp_path / name).read_bytes()

    assert fit("a", 1) == fit("b", 1) != fit("c", 2)
    first, second = (load(tmp_path / name).columns for name in "ac")
    assert np.mean(first["test"] != second["test"]) > 0.9
    for max_nodes in PUBLISHED_TEST:
        index = target_index(max_nodes)
        assert first["test"][index] == second["test"][index] == first["test"][: cells.cell_count(max_nodes)].max()


def test_unusable_measurements(tmp_path):
    fit = ("-m", "nasbench_dataset.fit_surrogate", tmp_path)
    assert_refused(run(*fit), "nasbench101_measured_20k.npz", "No such file")
    (tmp_path / "nasbench101_measured_20k.npz").write_bytes(b"PK\3\4 no archive")
    assert_refused(run(*fit), "nasbench101_measured_20k.npz")


def test_the_measurements_are_not_part_of_the_project(measured):
    names = {path.name for path in measured.iterdir()} - {"README.md"}
    ours = {path.name for path in ROOT.rglob("*") if path.is_file()}
    assert not names & ours
