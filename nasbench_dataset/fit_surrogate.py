"""Make the embedded table: NAS-Bench-101 accuracies of all cells, estimated from some thousand measured ones.

    python -m nasbench_dataset.fit_surrogate MEASUREMENTS_DIR [--out FILE] [--evaluate]

Measured cells (published: Ying et al. 2019, arXiv 1902.09635) -> gradient-boosted trees over the cells'
structure (features.py) -> a prediction for each of the 423,624 cells -> plus a residual, drawn once, since
a fitted surface is smoother than the truth and too easy to search -> published optima pinned -> table.

MEASUREMENTS_DIR holds two files, see README.md in this folder for their fields. This script needs
scikit-learn; searching the table that it makes does not.
"""

import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a file: ``python nasbench_dataset/fit_surrogate.py``, which finds the package by itself
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from nasbench_dataset import InputError, cells, command, features, table

SAMPLE_FILE = "nasbench101_measured_20k.npz"  # a uniform sample; the maximum of 3 runs
SMALL_FILE = "nasbench101_measured_small.npz"  # small cells; means of 3 runs, validation and test

MAX_OVER_MEAN = 0.0034  # by how much the maximum of 3 runs exceeds their mean, on average
FAILED = 0.5  # a training that ends below has failed: it tells nothing about the structure

FOLDS = 5  # one model each; more cost time, fewer waste cells
TREES = 400
TREE_OPTIONS = {
    "learning_rate": 0.05,  # with 400 trees; 0.1 with 150 loses 0.01 of Kendall's tau
    "max_leaf_nodes": 24,
    "min_samples_leaf": 10,
    "max_features": 0.2,  # of the features, drawn anew for each split: faster, and better on unseen cells
    "early_stopping": False,
}
CHUNK = 40_000  # cells predicted at once, for the sake of memory

RESIDUAL_DONORS = 200  # measured cells of similar prediction among which a residual is drawn
GAP_DONORS = 60  # likewise test - valid, of which fewer are measured
REDRAWS = 1_000  # of cells beyond a bound, before they are clipped

TOP_GAP = -0.0062  # mean of test - valid among the best cells


@dataclass(frozen=True)
class Pin:
    """A cell of which a value is published: Wang et al. 2019 (arXiv 1903.11059), Ying et al. 2019."""

    operations: cells.Operations
    pairs: tuple[str, ...]  # edges, as "xy"
    test: float | None = None
    valid: float | None = None

    @property
    def index(self) -> int:
        edges = sum(cells.edge_bit(int(x), int(y)) for x, y in self.pairs)
        return cells.index(self.operations, edges)


def _pin(operations: str, edges: str, **values: float) -> Pin:
    return Pin(tuple(features.SHORT.index(name) for name in operations.split()), tuple(edges.split()), **values)


# The best cell by test accuracy within each number of vertices; of one the test value is not known.
BEST = {
    3: _pin("c3", "01 02 12", test=0.9329928, valid=0.9391693),
    4: _pin("c3 c1", "01 03 12 23", test=0.9359642, valid=0.9424412),
    5: _pin("c1 c3 c3", "01 02 03 04 12 13 23 34", valid=0.9463809),
    6: _pin("c3 c3 c3 c3", "01 02 03 04 05 14 23 34 45", test=0.9423411, valid=0.9505542),
    7: _pin("c1 c3 mp c3 c3", "01 02 05 06 15 23 34 45 56", test=0.9431758),
}
BEST_VALID_OF_4 = _pin("c3 c3", "01 02 03 12 23", valid=0.9441773)  # its test value is drawn
THIRD_TEST = 0.9420072  # the third best of all by test accuracy; the first two are in BEST


def numerator(accuracy: float) -> int:
    """A published accuracy as an integer over ``table.DENOMINATOR``."""
    return round(accuracy * table.DENOMINATOR)


# --- measurements -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Measured cells, each once.

    Attributes
    ----------
    index : int64 [n]
        As in ``cells.index``.
    valid : float64 [n]
        Mean validation accuracy of 3 runs; where only their maximum is known, that less ``MAX_OVER_MEAN``.
    test : float64 [n]
        Mean test accuracy of 3 runs. NaN in the uniform sample, which lacks it.
    """

    index: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def in_sample(self) -> np.ndarray:
        """bool [n]: the cells of the uniform sample, as opposed to the small ones."""
        return np.isnan(self.test)

    def part(self, rows: np.ndarray) -> "Measured":
        return Measured(self.index[rows], self.valid[rows], self.test[rows])


def _read(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """The indices of the cells in a file, then the columns that are asked for."""
    try:
        with np.load(path) as file:
            vertices, edges, operations = file["vertices"], file["edge_bits"], file["operations"]
            columns = [file[name].astype(np.float64) for name in names]
        if not len(vertices) or {len(edges), len(operations), *map(len, columns)} != {len(vertices)}:
            raise ValueError("its fields are empty or differ in length")
        if not all(((column >= 0) & (column < 1)).all() for column in columns):
            raise ValueError("an accuracy is outside 0..1")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read the measurements in {path}: {reason}") from error
    rows = zip(vertices.tolist(), operations.tolist(), edges.tolist())
    index = np.array([cells.index(tuple(row[: v - 2]), e) for v, row, e in rows])
    if (index == cells.NOT_A_CELL).any():
        raise InputError(f"{path} has {np.sum(index == cells.NOT_A_CELL)} cells that are not NAS-Bench-101's")
    return index, *columns


def read_measurements(folder: Path) -> Measured:
    """Both files of the folder; a cell in both is taken from the second, which has means.

    Raises
    ------
    InputError
        If a file is missing or damaged or has unknown cells.
    """
    index, maximum = _read(folder / SAMPLE_FILE, ("valid_108_max3",))
    small_index, small_valid, small_test = _read(folder / SMALL_FILE, ("valid_108_mean3", "test_108_mean3"))
    single = ~np.isin(index, small_index)
    return Measured(
        np.concatenate([index[single], small_index]),
        np.concatenate([maximum[single] - MAX_OVER_MEAN, small_valid]),
        np.concatenate([np.full(single.sum(), np.nan), small_test]),
    )


# --- predictions ------------------------------------------------------------------------------


def _stretch(accuracy: np.ndarray) -> np.ndarray:
    """What the trees are fitted to: differences between good cells count more than between bad ones."""
    return -np.log(1 - accuracy)


def _unstretch(value: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-value)


@dataclass(frozen=True)
class Prediction:
    """Validation accuracies by the fitted models.

    Attributes
    ----------
    everywhere : float64 [423624]
        The mean over the models, for every cell.
    unseen : float64 [n]
        For every measured cell, by the model that was not fitted to it.
    """

    everywhere: np.ndarray
    unseen: np.ndarray


def predict(measured: Measured, seed: int, trees: int = TREES) -> Prediction:
    """Fit one model for each fold of the measured cells; failed trainings are left out of the fit.

    Raises
    ------
    InputError
        If scikit-learn is not installed.
    """
    regressor, threadpool_limits = _scikit_learn()
    matrix = features.matrix(measured.index)
    fold = np.random.default_rng(seed).permutation(len(matrix)) % FOLDS
    worked = measured.valid > FAILED
    unseen = np.empty(len(matrix))
    models = []
    with threadpool_limits(1):  # sums in the same order, thus the same file, whatever the number of cores
        for number in range(FOLDS):
            _say(f"fitting model {number + 1} of {FOLDS}")
            mine = fold == number
            seen = worked & ~mine
            model = regressor(max_iter=trees, random_state=seed * FOLDS + number, **TREE_OPTIONS)
            model.fit(matrix[seen], _stretch(measured.valid[seen]))
            unseen[mine] = _unstretch(model.predict(matrix[mine]))
            models.append(model)
        _say("predicting all cells")
        chunks = np.array_split(np.arange(cells.cell_count()), cells.cell_count() // CHUNK)
        return Prediction(np.concatenate([_mean_prediction(models, chunk) for chunk in chunks]), unseen)


def _scikit_learn() -> tuple:
    """The regressor's class and ``threadpool_limits``, which holds only for what is loaded already."""
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError as error:
        raise InputError("fitting needs scikit-learn: pip install scikit-learn") from error
    return HistGradientBoostingRegressor, threadpool_limits


def _mean_prediction(models: list, indices: np.ndarray) -> np.ndarray:
    matrix = features.matrix(indices)
    return np.mean([_unstretch(model.predict(matrix)) for model in models], axis=0)


# --- the table --------------------------------------------------------------------------------


class _Donors:
    """Values to draw from, by level: a draw takes one of those whose level is nearest in rank."""

    def __init__(self, level: np.ndarray, value: np.ndarray, neighbours: int):
        order = np.argsort(level, kind="stable")
        self.level, self.value = level[order], value[order]
        self.neighbours = min(neighbours, len(order))

    def draw(self, level: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One value for each entry of ``level``."""
        first = np.searchsorted(self.level, level) - self.neighbours // 2
        first = np.clip(first, 0, len(self.level) - self.neighbours)
        return self.value[first + rng.integers(self.neighbours, size=len(level))]


def _highest_allowed() -> tuple[np.ndarray, np.ndarray]:
    """The largest numerators that leave the pinned cells the best: (test, valid), int [423624] each."""
    test = np.full(cells.cell_count(), numerator(THIRD_TEST))
    valid = np.full(cells.cell_count(), numerator(BEST[6].valid) - 1)
    for vertices in (5, 4, 3):  # the smaller number of vertices, the lower
        best = BEST[vertices]
        below = best.test if best.test is not None else best.valid + TOP_GAP
        test[: cells.cell_count(vertices)] = numerator(below) - 1
    valid[: cells.cell_count(4)] = numerator(BEST_VALID_OF_4.valid) - 1
    return test, valid


def _draw(prediction: Prediction, measured: Measured, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numerators of ``test`` and ``valid`` for all cells, within bounds; no cell is pinned yet."""
    sample, small = measured.in_sample, ~measured.in_sample
    residuals = _Donors(prediction.unseen[sample], (measured.valid - prediction.unseen)[sample], RESIDUAL_DONORS)
    gaps = _Donors(measured.valid[small], (measured.test - measured.valid)[small], GAP_DONORS)
    highest_test, highest_valid = _highest_allowed()
    test, valid = np.zeros_like(highest_test), np.zeros_like(highest_valid)
    todo = np.arange(len(test))
    for _ in range(REDRAWS):
        level = prediction.everywhere[todo]
        accuracy = level + residuals.draw(level, rng)
        valid[todo] = np.rint(accuracy * table.DENOMINATOR)
        test[todo] = np.rint((accuracy + gaps.draw(accuracy, rng)) * table.DENOMINATOR)
        beyond = (test > highest_test) | (valid > highest_valid) | (np.minimum(test, valid) < 0)
        todo = np.flatnonzero(beyond)
        if not len(todo):
            break
    return np.clip(test, 0, highest_test), np.clip(valid, 0, highest_valid)


def make_table(prediction: Prediction, measured: Measured, residual_seed: int) -> table.Table:
    """Predictions with residuals, published values pinned."""
    test, valid = _draw(prediction, measured, np.random.default_rng(residual_seed))
    for pin in (*BEST.values(), BEST_VALID_OF_4):
        if pin.test is not None:
            test[pin.index] = numerator(pin.test)
        if pin.valid is not None:
            valid[pin.index] = numerator(pin.valid)
    others = np.delete(test[: cells.cell_count(5)], BEST[5].index)
    test[BEST[5].index] = others.max() + 1
    valid[BEST[7].index] = numerator(BEST[7].test - TOP_GAP)
    sample = np.count_nonzero(measured.in_sample)
    source = (
        f"surrogate fitted to {sample:,} + {len(measured.index) - sample:,} published NAS-Bench-101 measurements, "
        f"residuals drawn with seed {residual_seed}"
    )
    columns = {"test": test / table.DENOMINATOR, "valid": valid / table.DENOMINATOR}
    return table.Table(columns, source, measured=False)


# --- how good it is ---------------------------------------------------------------------------

QUANTILES = (0.1, 0.5, 0.9, 0.99)
TOP_TEST = (0.93, 0.935, 0.94, 0.941, 0.9415)  # how many cells lie above
PUBLISHED_BEST_OF = {5_000: 0.94120, 10_000: 0.94164, 20_000: 0.94201}  # random search, up to 6 vertices


def _fidelity(estimate: np.ndarray, measured: np.ndarray) -> str:
    """Kendall, Spearman and RMSE over the cells whose training succeeded in both."""
    from scipy.stats import kendalltau, spearmanr  # comes with scikit-learn

    worked = (estimate > FAILED) & (measured > FAILED)
    estimate, measured = estimate[worked], measured[worked]
    error = np.sqrt(np.mean((estimate - measured) ** 2))
    tau, rho = kendalltau(estimate, measured).statistic, spearmanr(estimate, measured).statistic
    return f"Kendall {tau:.3f}, Spearman {rho:.3f}, RMSE {error:.4f} ({worked.sum():,} cells)"


def expected_best(values: np.ndarray, draws: int) -> float:
    """The mean of the largest of ``draws`` different entries, drawn uniformly."""
    remaining = len(values) - np.arange(len(values) - draws)  # when the better ones were all missed
    missed = np.concatenate([[1.0], np.cumprod(1 - draws / remaining)])
    chance = -np.diff(missed, append=0.0)  # that the best one drawn has this rank
    return float(np.sort(values)[::-1][: len(chance)] @ chance)


def report_held_out(measured: Measured, held_out: int, seed: int, residual_seed: int, trees: int) -> None:
    """Fit without some cells of the sample; print how well these are met."""
    candidates = np.flatnonzero(measured.in_sample)
    out = np.random.default_rng(seed).choice(candidates, size=held_out, replace=False)
    rest = measured.part(np.setdiff1d(np.arange(len(measured.index)), out))
    truth = measured.part(out)
    prediction = predict(rest, seed, trees)
    drawn = make_table(prediction, rest, residual_seed).columns["valid"][truth.index]
    print(f"On {held_out:,} measured cells held out (valid; measured: maximum of 3 runs - {MAX_OVER_MEAN}):")
    print(f"  predictions: {_fidelity(prediction.everywhere[truth.index], truth.valid)}")
    print(f"  table:       {_fidelity(drawn, truth.valid)}")
    for name, values in (("table", drawn), ("measured", truth.valid)):
        quantiles = ", ".join(f"{q:.0%} {np.quantile(values, q):.4f}" for q in QUANTILES)
        print(f"  quantiles, {name + ':':9} {quantiles}; failed {np.mean(values < FAILED):.3%}")


def report_table(result: table.Table) -> None:
    """Print the distribution of a table beside published figures."""
    test, valid = result.columns["test"], result.columns["valid"]
    print("All cells of the table (published, NAS-Bench-101 itself):")
    print(f"  valid: mean {valid.mean():.5f} (.90243), sd {valid.std():.5f} (.05865)")
    print(f"  test:  mean {test.mean():.5f} (.89680), sd {test.std():.5f} (.05800)")
    print(f"  correlation of the two: {np.corrcoef(test, valid)[0, 1]:.4f} (.999)")
    print(f"  failed (valid < {FAILED}): {np.mean(valid < FAILED):.3%}")
    print("  cells by test:", ", ".join(f"> {level}: {np.sum(test > level):,}" for level in TOP_TEST))
    up_to_6 = test[: cells.cell_count(6)]
    for draws, published in PUBLISHED_BEST_OF.items():
        best = expected_best(up_to_6, draws)
        print(f"  best test of {draws:,} random cells up to 6 vertices: {best:.5f} ({published:.5f})")


# --- the command ------------------------------------------------------------------------------


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def _parser() -> command.Parser:
    parser = command.Parser(prog="python -m nasbench_dataset.fit_surrogate", description=__doc__.split("\n")[0])
    parser.add_argument("measurements", metavar="MEASUREMENTS_DIR", type=Path, help="folder with the two .npz files")
    parser.add_argument("--out", type=Path, default=table.EMBEDDED, help="the table to write")
    parser.add_argument("--seed", type=command.whole_number(0), default=0, help="of the fit")
    parser.add_argument("--residual-seed", type=command.whole_number(0), default=0, help="another: another table")
    parser.add_argument("--trees", type=command.whole_number(1), default=TREES, help="of each model")
    parser.add_argument("--evaluate", action="store_true", help="then fit without some cells and print how good it is")
    parser.add_argument("--held-out", type=command.whole_number(1), default=5_000, help="how many cells")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m nasbench_dataset.fit_surrogate``; returns the exit status."""
    options = _parser().parse_args(argv)
    measured = read_measurements(options.measurements)
    if options.evaluate and options.held_out >= measured.in_sample.sum():
        raise InputError(f"--held-out {options.held_out}: the sample has only {measured.in_sample.sum():,} cells")
    if not os.access(options.out.parent, os.W_OK):  # before the fit, which takes minutes
        raise InputError(f"cannot write {options.out}; choose a folder that can be written to")
    prediction = predict(measured, options.seed, options.trees)
    result = make_table(prediction, measured, options.residual_seed)
    table.save(result, options.out)
    print(f"{options.out}: {result.describe()}")
    if options.evaluate:
        report_table(result)
        report_held_out(measured, options.held_out, options.seed, options.residual_seed, options.trees)
    return 0


if __name__ == "__main__":
    command.run(main)
