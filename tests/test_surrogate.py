"""The embedded table and the script that makes it: bounds, fidelity, determinism, features by hand."""

import os
import re
import shutil
from itertools import product

import numpy as np
import pytest
from conftest import assert_refused, run

from nasbench_dataset import InputError, cells, features, fit_surrogate, measurements, neighbours, noise
from nasbench_dataset import predictions, published, residuals, surrogate, surrogate_checks, table

C3, C1, MP = cells.CONV3X3, cells.CONV1X1, cells.MAXPOOL3X3
RUNS = "valid_run0", "valid_run1", "valid_run2"
SIX_VALID = published.BEST[6].index


def edges(*pairs: str) -> int:
    return sum(cells.edge_bit(int(x), int(y)) for x, y in pairs)


@pytest.fixture(scope="module")
def shipped() -> table.Table:
    return table.load(table.EMBEDDED)


# --- what ships -------------------------------------------------------------------------------


def test_the_shipped_table_has_every_cell_in_little_space(shipped):
    assert table.EMBEDDED.stat().st_size < 10_000_000
    accuracies = ["test", "valid", *(f"valid_{epochs}" for epochs in (4, 12, 36)), *RUNS]
    assert set(shipped.columns) == {*accuracies, "train_seconds"} and not shipped.measured
    packed = table.load_plain(table.EMBEDDED)["columns"]
    for name, values in shipped.columns.items():
        assert values.shape == (423_624,) and shipped.complete_to(name) == 7
        assert packed[name]["values"].dtype == (np.uint16 if name in accuracies else np.float32)


def test_the_validation_accuracy_is_the_mean_of_its_runs(shipped):
    runs = [np.rint(shipped.columns[name] * 9_984) for name in RUNS]
    np.testing.assert_array_equal(sum(runs), np.rint(shipped.columns["valid"] * 29_952))
    scatter = np.std(runs, axis=0, ddof=1) / 9_984
    valid = shipped.columns["valid"]
    for low, high in ((0.91, 0.92), (0.93, 0.94)):  # as far as the levels of all cells there scatter
        expected = noise.run_sd(valid[(valid > low) & (valid < high)])
        found = scatter[(valid > low) & (valid < high)]
        assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.02)


def test_longer_trainings_are_better_and_large_networks_take_longer(shipped):
    means = [shipped.columns[name].mean() for name in ("valid_4", "valid_12", "valid_36", "valid")]
    assert means == sorted(means)
    some = np.random.default_rng(0).choice(cells.cell_count(), 300, replace=False)
    parameters = [cells.trainable_parameters(*cells.cell(int(index))) for index in some]
    assert np.corrcoef(np.log(parameters), np.log(shipped.columns["train_seconds"][some]))[0, 1] > 0.5


def test_the_best_cell_by_test_is_where_it_is_published_by_validation_accuracy(shipped):
    valid = shipped.columns["valid"]
    place = 1 + np.sum(valid > valid[published.BEST[7].index])
    assert abs(place - 174) <= 5  # cells can tie


PINNED = [  # (operations, edges, test, valid) as published; None: not published
    ((C3,), edges("01", "02", "12"), 0.9329928, 0.9391693),
    ((C3, C1), edges("01", "03", "12", "23"), 0.9359642, 0.9424412),
    ((C3, C3), edges("01", "02", "03", "12", "23"), None, 0.9441773),
    ((C1, C3, C3), edges("01", "02", "03", "04", "12", "13", "23", "34"), None, 0.9463809),
    ((C3,) * 4, edges("01", "02", "03", "04", "05", "14", "23", "34", "45"), 0.9423411, 0.9505542),
    ((C1, C3, MP, C3, C3), edges("01", "02", "05", "06", "15", "23", "34", "45", "56"), 0.9431758, None),
]


@pytest.mark.parametrize("operations, bits, test, valid", PINNED)
def test_published_values_are_pinned(shipped, operations, bits, test, valid):
    index = cells.index(operations, bits)
    for name, value in (("test", test), ("valid", valid)):
        if value is not None:  # the 7 published digits are of sums in single precision: 1e-7 either way
            assert shipped.columns[name][index] == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("vertices", published.BEST)
def test_each_target_is_strictly_the_best_of_its_domain_by_test(shipped, vertices):
    test = shipped.columns["test"][: cells.cell_count(vertices)]
    best = published.BEST[vertices].index
    assert test[best] > np.delete(test, best).max()


def test_no_other_cell_exceeds_the_third_best_published(shipped):
    test = np.delete(shipped.columns["test"], [published.BEST[v].index for v in (6, 7)])
    assert test.max() < 0.9420072 + 1e-7
    assert np.sum(test > 0.9417735 + 1e-7) == 2  # .9420072 and .9419404


def test_bounds_by_validation_accuracy(shipped):
    valid = shipped.columns["valid"]
    assert valid[SIX_VALID] > np.delete(valid, SIX_VALID).max()
    assert valid[: cells.cell_count(4)].argmax() == cells.index((C3, C3), edges("01", "02", "03", "12", "23"))


# --- beside the measurements ------------------------------------------------------------------


def test_the_shipped_table_resembles_the_sample(shipped, measured):
    """The bar of a held-out evaluation; these cells were fitted to, so it is only a necessary condition."""
    from scipy.stats import kendalltau

    sample = measurements.read_measurements(measured)
    sample = sample.part(np.flatnonzero(sample.in_sample))
    estimate = shipped.columns["valid"][sample.index]
    worked = (estimate > 0.5) & (sample.valid > 0.5)
    error = (estimate - sample.valid)[worked]
    assert kendalltau(estimate[worked], sample.valid[worked]).statistic >= 0.74
    assert np.sqrt(np.mean(error**2)) <= 0.012
    for q in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(estimate, q) == pytest.approx(np.quantile(sample.valid, q), abs=0.002)
    assert 0.0005 < np.mean(shipped.columns["valid"] < 0.5) < 0.003  # failed trainings, measured: 0.0013


def test_the_shipped_table_holds_no_measurements(shipped, measured):
    """A drawn value hits the measured numerator by chance in about one cell of 500."""
    known = measurements.read_measurements(measured)
    pinned = [pin.index for pin in (*published.BEST.values(), published.BEST_VALID_OF_4)]
    free = ~np.isin(known.index, pinned)
    for name, values in (("valid", known.valid), ("test", known.test)):
        rows = free & ~np.isnan(values)
        same = np.abs(shipped.columns[name][known.index[rows]] - values[rows]) < 1e-5
        assert np.mean(same) < 0.02


# --- noise, residuals, neighbours -------------------------------------------------------------


def test_the_maximum_of_three_normal_numbers():
    numbers = np.random.default_rng(0).normal(size=(400_000, 3))
    maximum, mean = numbers.max(axis=1), numbers.mean(axis=1)
    assert (maximum - mean).mean() == pytest.approx(noise.MAXIMUM, abs=0.003)
    assert (maximum - mean).std() == pytest.approx(noise.MAXIMUM_SD, abs=0.003)
    assert maximum.std() == pytest.approx(noise.MAXIMUM_OF_3_SD, abs=0.003)


def test_the_mean_is_recovered_from_the_maximum_of_runs():
    for level in (0.905, 0.92, 0.94):
        mean = np.full(200_000, level)
        maximum = noise.draw_runs(mean, np.random.default_rng(0)).max(axis=0)
        assert noise.mean_of(maximum).mean() == pytest.approx(level, abs=0.0004)


def test_scores_are_standard_normal_at_every_level_and_lead_back_to_residuals():
    rng = np.random.default_rng(0)
    level = rng.uniform(0.9, 0.94, 8_000)
    residual = (0.95 - level) * rng.gumbel(size=8_000)  # skewed, and wider where the level is low
    scale = residuals.ResidualScale(level, residual)
    scores = scale.score(level, residual)
    for low in (0.9, 0.92, 0.93):
        some = scores[(level > low) & (level < low + 0.01)]
        assert abs(some.mean()) < 0.1 and some.std() == pytest.approx(1, abs=0.06)
    inner = np.abs(scores) < 3.7
    np.testing.assert_allclose(scale.residual(level, scores)[inner], residual[inner], atol=1e-6)


@pytest.fixture(scope="module")
def pairs():
    return neighbours.neighbour_pairs()


@pytest.fixture(scope="module")
def field(pairs):
    return residuals.ResidualField(pairs)


def test_neighbours_are_those_of_the_graphs(pairs):
    """Of some cells: every change of one operation or edge, looked up one at a time."""
    rng = np.random.default_rng(0)
    for index in (0, 3, 50, *rng.choice(cells.cell_count(), 60, replace=False).tolist()):
        forms = [cells.stored_form(*graph) for graph in cells.neighbours(*cells.cell(index))]
        mine = {cells.index(*form) for form in forms if form is not None} - {index}
        found = set(pairs[1][pairs[0] == index].tolist()) | set(pairs[0][pairs[1] == index].tolist())
        assert mine <= found
        for other in list(found - mine)[:50]:  # those of which it is a neighbour, with vertices cut off
            forms = [cells.stored_form(*graph) for graph in cells.neighbours(*cells.cell(other))]
            assert index in {cells.index(*form) for form in forms if form is not None}
    assert (pairs[0] < pairs[1]).all() and len(pairs[0]) == 4_577_278


def test_the_field_has_variance_one_and_neighbours_share_it(field, pairs):
    drawn = field.draw(np.random.default_rng(0))
    size = np.repeat([*cells.CELL_COUNTS], [*cells.CELL_COUNTS.values()])
    for vertices, shared in ((6, 0.58), (7, 0.62)):
        assert drawn[size == vertices].var() == pytest.approx(1, abs=0.06)
        both = (size[pairs[0]] == vertices) & (size[pairs[1]] == vertices)
        assert np.mean(drawn[pairs[0][both]] * drawn[pairs[1][both]]) == pytest.approx(shared, abs=0.05)


def test_a_field_given_scores_agrees_with_them_and_lifts_their_neighbours(field, pairs):
    rng = np.random.default_rng(0)
    known = rng.choice(np.arange(70_000, cells.cell_count()), 300, replace=False)
    share = np.full(cells.cell_count(), 0.5)
    scores = np.where(np.arange(300) % 2, 2.0, -2.0)
    shared, own = field.draw_given(share, known, scores, rng)
    np.testing.assert_allclose(shared[known] + own, scores, atol=0.05)
    sign = np.zeros(cells.cell_count())
    sign[known] = np.sign(scores)
    lower, higher = (side[sign[pairs[0]] != 0] for side in pairs)
    assert np.mean(sign[lower] * shared[higher]) == pytest.approx(0.6 * 0.5 * 2, abs=0.12)  # as the covariance says


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_a_perfect_model_leaves_what_neighbours_share(field, pairs, monkeypatch, capsys, shared):
    """All cells of up to 5 vertices, nearly without noise of runs; it predicts the level, whatever it is fitted to."""
    monkeypatch.setattr(surrogate, "SHARED", shared)
    monkeypatch.setattr(noise, "run_sd", lambda level: np.full(len(level), 1e-4))
    count, rng = cells.cell_count(5), np.random.default_rng(0)
    level = rng.uniform(0.9, 0.92, cells.cell_count())
    valid = level[:count] + 0.005 * rng.standard_normal(count)
    measured = measurements.Measured(np.arange(count), valid, np.full(count, np.nan), valid)
    scale = residuals.ResidualScale(level[:count], valid - level[:count])
    prediction = surrogate.Prediction(level, level[:count])
    monkeypatch.setattr(surrogate_checks.predictions, "predict_unseen", lambda *_: level[:count])
    monkeypatch.setattr(surrogate_checks.predictions, "calibrate", lambda prediction, _: prediction)
    fit = surrogate.Fit(measured, prediction, scale, field, None, None, {})
    surrogate_checks.report_refit(fit, pairs, (0, 0), 1)
    printed = capsys.readouterr().out
    measured, made_up, true = (float(word) for word in re.findall(r"-?\d\.\d{3}", printed))
    assert measured == pytest.approx(0, abs=0.05) and made_up == true
    drawn = field.draw(np.random.default_rng(0))
    one, other = (side[(pairs[0] < count) & (pairs[1] < count)] for side in pairs)
    assert true == pytest.approx(shared * np.corrcoef(drawn[one], drawn[other])[0, 1], abs=0.06)


# --- features by hand -------------------------------------------------------------------------


def test_features_of_the_five_vertex_target():
    index = cells.index((C1, C3, C3), edges("01", "02", "03", "04", "12", "13", "23", "34"))
    found = {name: values[0] for name, values in features.describe(np.array([index])).items()}
    expected = {
        "vertices": 5, "edges": 8, "c3": 2, "c1": 1, "mp": 0,
        "paths": 5, "paths without a vertex": 1, "paths c3": 1, "paths c3-c3": 1, "paths c1-c3": 1,
        "paths c1-c3-c3": 1, "paths c1": 0, "paths with 2 c3": 2, "most c3 on a path": 2,
        "most length on a path": 3, "least length on a path": 0, "mean length on a path": 8 / 5,
        "edges in->c3": 2, "edges in->out": 1, "edges c1->c3": 2, "edges c3->out": 1, "edge 1->2": 1, "edge 1->4": 0,
        "c1 at 1": 1, "c3 at 1": 0, "mean depth of c3": 2.5, "most vertices at one depth": 1, "width of c3": 2,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_features_of_two_branches_of_one_operation_each():
    two_branches = edges("01", "02", "13", "23")
    index = cells.index((C3, MP), two_branches)
    found = {name: values[0] for name, values in features.describe(np.array([index])).items()}
    expected = {
        "paths": 2, "paths c3": 1, "paths mp": 1, "paths c3-mp": 0, "least convolutions on a path": 0,
        "width of c3": 0.5, "squared width of mp": 0.25, "width at 2": 0.5, "width at 3": 0, "edges in->out": 0,
        "most vertices at one depth": 2,
        "log parameters": np.log(cells.trainable_parameters((C3, MP), two_branches)),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_paths_agree_with_a_walk_over_the_graph():
    indices = np.random.default_rng(0).choice(cells.cell_count(), 200, replace=False)
    described = features.describe(indices)
    for row, index in enumerate(indices):
        operations, bits = cells.cell(int(index))
        output = len(operations) + 1
        found = {name: 0 for name in described if name.startswith("paths") and " with" not in name}
        walks = [(0, ())]
        while walks:
            x, names = walks.pop()
            if x == output:
                name = "paths " + ("-".join(names) or "without a vertex")
                found[name] = found.get(name, 0) + 1
                found["paths"] += 1
                continue
            for y in range(x + 1, output + 1):
                if bits & cells.edge_bit(x, y):
                    walks.append((y, names if y == output else (*names, features.SHORT[operations[y - 1]])))
        for name in found.keys() & described.keys():
            assert described[name][row] == found[name], (name, operations, bits)


def test_columns_are_the_same_whatever_the_vertex_counts():
    one_by_one = [features.matrix(np.array([i])) for i in (0, 3, 50, 1_000, 40_000, 400_000)]
    together = features.matrix(np.array([0, 3, 50, 1_000, 40_000, 400_000]))
    assert np.array_equal(np.concatenate(one_by_one), together)


def test_expected_best_against_all_draws():
    values = np.array([0.3, 0.9, 0.5, 0.5, 0.1])
    draws = [max(values[list(d)]) for d in product(range(5), repeat=3) if len(set(d)) == 3]
    assert surrogate_checks.expected_best(values, 3) == pytest.approx(np.mean(draws))


# --- the script -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A folder of invented measurements: 500 cells of the sample, 200 small ones."""
    folder = tmp_path_factory.mktemp("measurements")
    rng = np.random.default_rng(0)
    for name, highest, number in (
        (measurements.SAMPLE_FILE, 7, 500),
        (measurements.SMALL_FILE, 5, 200),
    ):
        chosen = [cells.cell(int(i)) for i in rng.choice(cells.cell_count(highest), number, replace=False)]
        padded = [operations + (255,) * (5 - len(operations)) for operations, _ in chosen]
        valid = rng.normal(0.91, 0.01, number)
        np.savez(
            folder / name,
            vertices=np.array([len(operations) + 2 for operations, _ in chosen], np.uint8),
            edge_bits=np.array([bits for _, bits in chosen], np.uint32),
            operations=np.array(padded, np.uint8),
            valid_108_max3=valid,
            valid_108_mean3=valid,
            test_108_mean3=valid - 0.006,
            **{f"valid_{epochs}_max3": valid - 1 / epochs for epochs in (4, 12, 36)},
            train_seconds_108=rng.uniform(1_000, 4_000, number),
        )
    return folder


@pytest.fixture
def computed_once(monkeypatch, pairs, field):
    """``main`` finds neighbours, their field and features of all cells ready; no option changes them. Its fits."""
    known, matrix, fits, fit = {}, features.matrix, [], surrogate.fit

    def remembered(indices):
        key = indices.tobytes()
        if key not in known:
            known[key] = matrix(indices)
        return known[key]

    monkeypatch.setattr(features, "matrix", remembered)
    monkeypatch.setattr(neighbours, "neighbour_pairs", lambda: pairs)
    monkeypatch.setattr(fit_surrogate, "ResidualField", lambda pairs: field)
    monkeypatch.setattr(surrogate, "fit", lambda *arguments: fits.append(fit(*arguments)) or fits[-1])
    return fits


def test_the_script_runs_and_the_same_seeds_give_the_same_file(made_up, tmp_path, computed_once, capsys):
    out, again, other = (tmp_path / name for name in ("out.pickle", "again.pickle", "other.pickle"))
    fit = [str(made_up), "--trees", "2", "--out"]
    result = run("-m", "nasbench_dataset.fit_surrogate", *fit, again, timeout=900)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].startswith(f"{again}: ")
    assert fit_surrogate.main([*fit, str(out), "--evaluate", "--held-out", "100"]) == 0
    printed = capsys.readouterr().out
    neighbours_of = "Neighbours, table", "Neighbours in the sample"
    for words in ("(174)", "of 500 cells", *neighbours_of, "On 100 measured cells held out", "random cells"):
        assert words in printed, words
    assert again.read_bytes() == out.read_bytes()
    table.save(surrogate.make_table(computed_once[0], 1), other)
    one, two = table.load(out).columns, table.load(other).columns
    assert np.mean(one["valid"] != two["valid"]) > 0.9
    for best in published.BEST.values():
        assert best.test is None or one["test"][best.index] == two["test"][best.index]
        assert best.valid is None or one["valid"][best.index] == two["valid"][best.index]


def test_any_seed_can_be_fitted_with():
    rng = np.random.default_rng(0)
    valid = rng.uniform(0.8, 0.95, 100)
    measured = measurements.Measured(np.arange(100), valid, np.full(100, np.nan), valid)
    huge, again, small = (predictions.predict_unseen(measured, seed, trees=2) for seed in (2**64, 2**64, 1))
    assert np.isfinite(huge).all() and (huge == again).all() and (huge != small).any()


def test_unusable_measurements_are_refused_in_one_line(made_up, tmp_path):
    script = ("-m", "nasbench_dataset.fit_surrogate")
    assert_refused(run(*script, tmp_path / "nowhere"), "nowhere", "No such file")
    damaged = tmp_path / measurements.SAMPLE_FILE
    damaged.write_bytes((made_up / measurements.SAMPLE_FILE).read_bytes()[:1000])
    assert_refused(run(*script, tmp_path), damaged.name)
    np.savez(damaged, vertices=np.zeros(0))
    assert_refused(run(*script, tmp_path), damaged.name, "vertices")
    assert_refused(run(*script, made_up, "--evaluate"), "--held-out")
    assert_refused(run(*script, made_up, "--out", tmp_path / "none" / "x.pickle"), "none")
    assert_refused(run("-OO", *script, made_up, "--trees", 0), "--trees")  # there no module has a __doc__
    assert_refused(run(*script, made_up, "--out", ""), "the path is empty")
    assert_refused(run(*script, made_up, "--out", tmp_path), "no regular file")


def changed(source, path, **changes):
    """A copy of an archive with other arrays; None: without one."""
    with np.load(source) as content:
        arrays = {**content, **changes}
    np.savez_compressed(path, **{name: values for name, values in arrays.items() if values is not None})


HALF = np.resize([0.4, 0.9], 500)
WRONG = [
    ({"operations": None}, "it has no operations"),
    ({"valid_108_max3": None}, "it has no valid_108_max3"),
    ({"valid_36_max3": None}, "it has no valid_36_max3"),
    ({"operations": np.zeros((500, 4), np.uint8)}, "its operations is"),
    ({"operations": np.full((500, 5), 9, np.uint8)}, "is no cell"),
    ({"vertices": np.full(500, 200, np.uint8)}, "is no cell"),
    ({"vertices": np.full(500, 7.0)}, "its vertices is float64"),
    ({"valid_108_max3": np.full((500, 1), 0.9)}, "its valid_108_max3 is"),
    ({"valid_108_max3": np.full(500, np.nan)}, "its valid_108_max3 has a value that cannot be"),
    ({"valid_108_max3": np.ones(500)}, "its valid_108_max3 has a value that cannot be"),
    ({"train_seconds_108": np.zeros(500)}, "its train_seconds_108 has a value that cannot be"),
    ({"train_seconds_108": np.full(500, np.inf)}, "outside 0.."),
    ({"valid_108_max3": HALF}, "its valid_108_max3 has 1 different values of trainings that worked, not 100"),
    ({"valid_4_max3": np.linspace(0, 0.4, 500)}, "its valid_4_max3 has 0 different values"),
    ({"valid_108_max3": np.zeros(3_000_000)}, "its valid_108_max3 has the shape"),
]


@pytest.mark.parametrize("changes, words", WRONG, ids=[words for _, words in WRONG])
def test_measurements_that_are_none_are_refused(made_up, tmp_path, changes, words):
    shutil.copy(made_up / measurements.SMALL_FILE, tmp_path)
    changed(made_up / measurements.SAMPLE_FILE, tmp_path / measurements.SAMPLE_FILE, **changes)
    with pytest.raises(InputError, match=words):
        measurements.read_measurements(tmp_path), measurements.read_trainings(tmp_path)


def test_a_sample_of_small_cells_alone_is_refused(made_up, tmp_path):
    columns = {name: np.linspace(0.6, 0.9, 200) for name in ("valid_108_max3", *(f"valid_{n}_max3" for n in (4, 12)))}
    shutil.copy(made_up / measurements.SMALL_FILE, tmp_path)
    changed(made_up / measurements.SMALL_FILE, tmp_path / measurements.SAMPLE_FILE, **columns)
    with pytest.raises(InputError, match="has 0 cells that nasbench101_measured_small.npz lacks, not 100"):
        measurements.read_measurements(tmp_path)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a large file"])
def test_what_is_no_file_of_measurements_is_not_waited_for(made_up, tmp_path, kind):
    path = tmp_path / measurements.SAMPLE_FILE
    {
        "a pipe": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a large file": lambda: (path.touch(), os.truncate(path, 2_000_000_000)),
    }[kind]()
    result = run("-m", "nasbench_dataset.fit_surrogate", tmp_path, "--out", tmp_path / "t", timeout=60)
    assert_refused(result, path.name)
    assert not (tmp_path / "t").exists()
