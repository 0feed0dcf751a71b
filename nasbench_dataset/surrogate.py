"""From predictions of all cells to a table that behaves like NAS-Bench-101: residuals, noise of runs, published bests.

A prediction is smoother than the truth and too easy to search. Each cell gets a residual (residuals.py), drawn once:
the part that neighbours share, given the measured cells; a part of its own; and the luck of its three runs (noise.py).
Measured cells get values that agree with their measurement as far as the maximum of three runs tells their mean; what
is measured itself is not in the table.
"""

from dataclasses import dataclass

import numpy as np

from nasbench_dataset import cells, noise, predictions, table
from nasbench_dataset.measurements import EPOCHS, FAILED, Measured, Trainings
from nasbench_dataset.predictions import Prediction
from nasbench_dataset.published import BEST, BEST_TESTS, BEST_VALID_OF_4, LARGEST_MAXIMUM, PINS, PLACE_OF_BEST
from nasbench_dataset.published import numerator
from nasbench_dataset.residuals import WIDEST, ResidualField, ResidualScale
from nasbench_dataset.runs import VALID_RUNS

SHARED = 1.0  # of the variance of residuals that is no noise of runs, the part that neighbours share
BLUR = 0.0006  # by which known means are blurred, so that the table holds no measurement
LIFT, LIFT_FROM, LIFT_TO = 0.0010, 0.944, 0.947  # added to validation accuracies, growing between these two: the
# measured cells above are more than predictions and residuals make
REDRAWS = 1_000  # of cells beyond a bound, before they are clipped
DONORS = 20  # measured trainings among which one is drawn that gives its residuals
DONOR_WEIGHT = 0.3  # of a score of 1 beside the standard deviation of predictions, where donors are looked for
BEST_TEST_OF_5 = 0.9402  # not published: its validation accuracy and the usual difference; the best measured is .9393
RUN_IMAGES = table.DENOMINATOR // noise.RUNS


@dataclass(frozen=True)
class Fit:
    """All that tables are drawn from."""

    measured: Measured
    prediction: Prediction
    scale: ResidualScale
    field: ResidualField
    gap: noise.Gap
    trainings: Trainings
    of_trainings: dict[str, Prediction]

    @property
    def level(self) -> np.ndarray:
        """float64 [423624]: the prediction of each cell, by a model that had not seen it."""
        level = self.prediction.everywhere.copy()
        level[self.measured.index] = self.prediction.unseen
        return level


def fit(
    measured: Measured,
    prediction: Prediction,
    trainings: Trainings,
    of_trainings: dict[str, Prediction],
    field: ResidualField,
) -> Fit:
    """Calibrate the prediction and learn its residuals."""
    prediction = predictions.calibrate(prediction, measured)
    rows = measured.worked
    scale = ResidualScale(prediction.unseen[rows], (measured.valid - prediction.unseen)[rows])
    small = ~measured.in_sample & measured.worked
    gap = noise.Gap.of(measured.valid[small], measured.test[small])
    return Fit(measured, prediction, scale, field, gap, trainings, of_trainings)


# --- the accuracies ---------------------------------------------------------------------------


def parts_of_scores(scale: ResidualScale, level: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the variance of scores, float64 [n] each: what neighbours share, the error of measurement, the cell's own."""
    in_scores = noise.run_sd(level) / scale.sd(level)
    share = SHARED * (1 - np.minimum((noise.MAXIMUM_OF_3_SD * in_scores) ** 2, 0.9))
    error = np.minimum((noise.MAXIMUM_SD * in_scores) ** 2, 0.6 * (1 - share))
    return share, error, 1 - share - error


class Draw:
    """One table drawn from a fit: mean accuracies of all cells, within bounds, published values pinned.

    Attributes
    ----------
    valid, test : float64 [423624]
    runs : int64 [3, 423624]
        Validation images that each of three runs gets right, of ``RUN_IMAGES``.
    scores : float64 [423624]
        Of the residuals of ``valid``.
    """

    def __init__(self, fit: Fit, rng: np.random.Generator):
        self._fit, self._rng, self._level = fit, rng, fit.level
        self._share, self._error, self._own = parts_of_scores(fit.scale, self._level)
        known, scores = self._known()
        self._shared, rest = fit.field.draw_given(self._share, known, scores, rng)
        own = np.sqrt(self._own) * rng.standard_normal(cells.cell_count())
        own[known] = self._without_error(known, rest)
        everything = np.arange(cells.cell_count())
        self.scores = np.zeros(len(everything))
        self.valid, self.test = np.zeros(len(everything)), np.zeros(len(everything))
        self._take(everything, own)
        self._take_measured_gaps()
        self._fail()
        self._bound()
        self._pin()
        self.runs = self._draw_runs()

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Cells of which the score is known, measured and published ones, and their scores."""
        fit, rows = self._fit, self._fit.measured.worked
        values = dict(zip(fit.measured.index[rows].tolist(), fit.measured.valid[rows].tolist()))
        values |= {pin.index: pin.valid for pin in PINS if pin.valid is not None}
        known = np.array(list(values))
        level = self._level[known]
        return known, fit.scale.score(level, np.array(list(values.values())) - level)

    def _without_error(self, known: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """The cells' own part of known scores: what the maximum of 3 runs leaves open about their mean is drawn."""
        error, total = self._error[known], 1 - self._share[known]
        drawn = error / total * rest + np.sqrt(error * (total - error) / total) * self._rng.standard_normal(len(known))
        means = np.isin(known, self._fit.measured.index[~self._fit.measured.in_sample])
        blur = BLUR / self._fit.scale.sd(self._level[known[means]])
        drawn[means] = blur * self._rng.standard_normal(means.sum())
        return rest - drawn

    def _take(self, which: np.ndarray, own: np.ndarray) -> None:
        """Give the cells accuracies by the part of their scores that is their own."""
        self.scores[which] = self._shared[which] + own
        level = self._level[which]
        valid = level + self._fit.scale.residual(level, self.scores[which])
        valid += LIFT * np.clip((valid - LIFT_FROM) / (LIFT_TO - LIFT_FROM), 0, 1)
        self.valid[which], self.test[which] = valid, valid + noise.draw_gaps(valid, self._fit.gap, self._rng)

    def _take_measured_gaps(self) -> None:
        measured = self._fit.measured
        for pin in PINS:  # so that the measured difference is taken from there
            self.valid[pin.index] = self.valid[pin.index] if pin.valid is None else pin.valid
        small = ~measured.in_sample & measured.worked
        index, gap = measured.index[small], (measured.test - measured.valid)[small]
        self.test[index] = self.valid[index] + gap + BLUR * self._rng.standard_normal(len(index))

    def _fail(self) -> None:
        """Cells of which all three runs failed: those that did, and among the others as many by chance."""
        sample = self._fit.measured.part(self._fit.measured.in_sample)
        failed = np.flatnonzero(self._rng.random(cells.cell_count()) < np.mean(~sample.worked))
        measured = self._fit.measured
        failed = np.setdiff1d(failed, [*measured.index, *(pin.index for pin in PINS)])
        failed = np.union1d(failed, measured.index[~measured.worked])
        accuracies = sample.valid[~sample.worked]
        if len(accuracies):
            self.valid[failed] = self._rng.choice(accuracies, len(failed)) + 0.001 * self._rng.random(len(failed))
            self.test[failed] = self.valid[failed] - 0.001 * self._rng.random(len(failed))
            self.scores[failed] = -WIDEST

    def _bound(self) -> None:
        """Draw the own part and the gap anew of cells that would take a pinned cell's place."""
        highest_test, highest_valid = _highest_allowed()
        pinned = [pin.index for pin in PINS]
        highest_test[pinned] = highest_valid[pinned] = 1
        beyond = np.arange(cells.cell_count())
        for _ in range(REDRAWS):
            test, valid = self.test[beyond], self.valid[beyond]
            wrong = (test > highest_test[beyond]) | (valid > highest_valid[beyond]) | (np.minimum(test, valid) < 0)
            beyond = beyond[wrong]
            if not len(beyond):
                break
            self._take(beyond, np.sqrt(self._own[beyond]) * self._rng.standard_normal(len(beyond)))
        self.test = np.clip(np.rint(self.test * table.DENOMINATOR), 0, np.rint(highest_test * table.DENOMINATOR))
        self.valid = np.clip(np.rint(self.valid * table.DENOMINATOR), 0, np.rint(highest_valid * table.DENOMINATOR))

    def _pin(self) -> None:
        """Published values, as numerators; then accuracies."""
        for pin in PINS:
            if pin.test is not None:
                self.test[pin.index] = numerator(pin.test)
            if pin.valid is not None:
                self.valid[pin.index] = numerator(pin.valid)
        self.test[BEST[5].index] = numerator(BEST_TEST_OF_5)
        others = np.argsort(self.test, kind="stable")[::-1][2 : len(BEST_TESTS)]  # the first two are pinned
        self.test[others] = [numerator(accuracy) for accuracy in BEST_TESTS[2:]]
        best = np.delete(self.valid, BEST[7].index)
        self.valid[BEST[7].index] = np.partition(best, -PLACE_OF_BEST + 1)[-PLACE_OF_BEST + 1] - 1
        self.valid, self.test = self.valid / table.DENOMINATOR, self.test / table.DENOMINATOR

    def _draw_runs(self) -> np.ndarray:
        """Three runs with that mean, of which none is better than the best that is published."""
        runs = np.zeros((noise.RUNS, cells.cell_count()), int)
        todo = np.arange(cells.cell_count())
        total = np.rint(self.valid * table.DENOMINATOR).astype(int)
        for attempt in range(REDRAWS):
            drawn = np.rint(noise.draw_runs(self.valid[todo], self._rng) * RUN_IMAGES).astype(int)
            drawn[-1] = total[todo] - drawn[:-1].sum(axis=0)
            runs[:, todo] = drawn
            todo = todo[(drawn.max(axis=0) > LARGEST_MAXIMUM * RUN_IMAGES + 0.5) | (drawn.min(axis=0) < 0)]
            if not len(todo):
                break
        runs[:, todo] = total[todo] // noise.RUNS
        runs[-1, todo] += total[todo] % noise.RUNS
        return runs


def _highest_allowed() -> tuple[np.ndarray, np.ndarray]:
    """The largest accuracies that leave the pinned cells the best: (test, valid), float64 [423624] each."""
    one = 1 / table.DENOMINATOR
    test = np.full(cells.cell_count(), BEST_TESTS[-1] - one)
    valid = np.full(cells.cell_count(), BEST[6].valid - one)
    for vertices, best in ((5, BEST_TEST_OF_5), (4, BEST[4].test), (3, BEST[3].test)):  # the smaller, the lower
        test[: cells.cell_count(vertices)] = best - one
    valid[: cells.cell_count(4)] = BEST_VALID_OF_4.valid - one
    return test, valid


# --- the table --------------------------------------------------------------------------------


def make_table(fit: Fit, seed: int) -> table.Table:
    """Draw a table with all columns."""
    rng = np.random.default_rng(seed)
    draw = Draw(fit, rng)
    sample = np.count_nonzero(fit.measured.in_sample)
    source = (
        f"surrogate fitted to {sample:,} + {len(fit.measured.index) - sample:,} published NAS-Bench-101 measurements, "
        f"residuals drawn with seed {seed}"
    )
    columns = {"test": draw.test, "valid": draw.valid} | _trainings(fit, draw, rng)
    columns |= {name: run / RUN_IMAGES for name, run in zip(VALID_RUNS, draw.runs)}
    return table.Table(columns, source, measured=False)


def _trainings(fit: Fit, draw: Draw, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shorter trainings and seconds: predictions, with the residuals of one measured cell, the same for all columns.

    It is drawn among those alike in what is predicted for 36 epochs and in the score of the residual after 108, so that
    a cell that is better than predicted after 108 epochs tends to be so before.
    """
    from scipy.spatial import cKDTree

    last = fit.of_trainings[f"valid_{EPOCHS[-1]}"]
    at = {index: row for row, index in enumerate(fit.measured.index.tolist())}
    rows = np.array([at[index] for index in fit.trainings.index.tolist()])
    level, valid = fit.prediction.unseen[rows], fit.measured.valid[rows]
    scores = np.where(valid > FAILED, fit.scale.score(level, valid - level), -WIDEST)
    spread = last.everywhere.std()
    tree = cKDTree(np.column_stack([last.unseen / spread, DONOR_WEIGHT * scores]))
    wanted = np.column_stack([last.everywhere / spread, DONOR_WEIGHT * draw.scores])
    number = min(DONORS, len(rows))
    nearest = tree.query(wanted, number)[1].reshape(len(wanted), number)
    donor = nearest[np.arange(len(wanted)), rng.integers(number, size=len(wanted))]
    columns = {}
    for name, column in fit.trainings.columns.items():
        prediction = fit.of_trainings[name]
        value = prediction.everywhere + (predictions.stretched(name, column) - prediction.unseen)[donor]
        if "seconds" in name:
            columns[name] = np.exp(value).round().astype(np.float32).astype(np.float64)
        else:
            accuracy = np.clip(predictions.unstretch(value), 0, 1)
            columns[name] = np.rint(accuracy * table.DENOMINATOR) / table.DENOMINATOR
    return columns
