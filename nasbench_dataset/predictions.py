"""Gradient-boosted trees over the structure of cells (features.py), fitted to measured ones. Needs scikit-learn."""

from dataclasses import dataclass
from typing import Callable

import numpy as np

from nasbench_dataset import InputError, cells, features
from nasbench_dataset.measurements import Measured, Trainings

FOLDS = 5  # one model each; more cost time, fewer waste cells
OTHER_FOLDS = 2  # for what else is known of trainings
TREES = 400
OTHER_TREES = 0.375  # of TREES, for the same
TREE_OPTIONS = {
    "learning_rate": 0.05,  # with 400 trees; 0.1 with 150 loses 0.01 of Kendall's tau
    "max_leaf_nodes": 24,
    "min_samples_leaf": 10,
    "max_features": 0.2,  # of the features, drawn anew for each split: faster, and better on unseen cells
    "early_stopping": False,
}
CHUNK = 40_000  # cells predicted at once, for the sake of memory

# Trees cannot tell sizes apart far enough at the top: mean residuals over so many cells of a size, in the order of
# their levels, are added to predictions; cells of up to 5 vertices count as one size.
WINDOWS = {5: 160, 6: 160, 7: 600}
LARGEST_RESIDUAL = 0.03  # what is beyond counts so much in those means: cells of which one run failed


def stretch(accuracy: np.ndarray) -> np.ndarray:
    """What the trees are fitted to: differences between good cells count more than between bad ones."""
    return -np.log(1 - accuracy)


def unstretch(value: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-value)


def _as_it_is(value: np.ndarray) -> np.ndarray:
    return value


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


def predict(
    measured: Measured, trainings: Trainings | None, seed: int, trees: int = TREES
) -> tuple[Prediction, dict[str, Prediction]]:
    """Fit one model for each fold of the measured cells; failed trainings are left out of the fit.

    Returns
    -------
    Prediction
        Of ``measured.valid``.
    dict of str to Prediction
        Of each column of ``trainings``, in the form that ``stretched`` gives.

    Raises
    ------
    InputError
        If scikit-learn is not installed.
    """
    models, unseen = _models_of(measured, seed, trees)
    others = _models_of_trainings(trainings, seed, trees) if trainings else {}
    groups = [(models, unstretch), *((fitted, _as_it_is) for fitted, _ in others.values())]
    first, *rest = _means_everywhere(groups)
    of_trainings = {name: Prediction(means, unseen) for (name, (_, unseen)), means in zip(others.items(), rest)}
    return Prediction(first, unseen), of_trainings


def predict_unseen(measured: Measured, seed: int, trees: int = TREES) -> np.ndarray:
    """float64 [n]: ``unseen`` of that prediction alone, without the time that all cells take."""
    return _models_of(measured, seed, trees)[1]


def _models_of(measured: Measured, seed: int, trees: int) -> tuple[list, np.ndarray]:
    fold = np.random.default_rng(seed).permutation(len(measured.index)) % FOLDS
    fit = _Fit(features.matrix(measured.index), fold, seed * FOLDS, trees)
    models, unseen = fit.models(stretch(measured.valid), measured.worked)
    return models, unstretch(unseen)


def _models_of_trainings(trainings: Trainings, seed: int, trees: int) -> dict[str, tuple[list, np.ndarray]]:
    fold = np.random.default_rng(seed).permutation(len(trainings.index)) % OTHER_FOLDS
    fit = _Fit(features.matrix(trainings.index), fold, seed * OTHER_FOLDS, max(1, round(OTHER_TREES * trees)))
    everything = np.ones(len(trainings.index), bool)
    return {name: fit.models(stretched(name, column), everything) for name, column in trainings.columns.items()}


def stretched(name: str, column: np.ndarray) -> np.ndarray:
    """A column of ``Trainings`` in the form in which it is predicted."""
    return np.log(column) if "seconds" in name else stretch(column)


class _Fit:
    """Models of several columns of the same cells, one for each fold."""

    def __init__(self, matrix: np.ndarray, fold: np.ndarray, seed: int, trees: int):
        self.matrix, self.fold, self.seed, self.trees = matrix, fold, seed, trees

    def models(self, values: np.ndarray, use: np.ndarray) -> tuple[list, np.ndarray]:
        """Fit to the rows to ``use``; the models, and the predictions of all rows by the one that had not seen each."""
        regressor, threadpool_limits = _scikit_learn()
        models, unseen = [], np.empty(len(values))
        with threadpool_limits(1):  # sums in the same order, thus the same file, whatever the number of cores
            for number in range(self.fold.max() + 1):
                say(f"fitting model {number + 1} of {self.fold.max() + 1}")
                mine = self.fold == number
                model = regressor(max_iter=self.trees, random_state=(self.seed + number) % 2**32, **TREE_OPTIONS)
                model.fit(self.matrix[use & ~mine], values[use & ~mine])
                unseen[mine] = model.predict(self.matrix[mine])
                models.append(model)
        return models, unseen


def _scikit_learn() -> tuple:
    """The regressor's class and ``threadpool_limits``, which holds only for what is loaded already."""
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError as error:
        raise InputError("fitting needs scikit-learn: pip install scikit-learn") from error
    return HistGradientBoostingRegressor, threadpool_limits


def _means_everywhere(groups: list[tuple[list, Callable[[np.ndarray], np.ndarray]]]) -> list[np.ndarray]:
    """For all cells, the mean of what the models of each group predict, each in the form that the group names."""
    say("predicting all cells")
    _, threadpool_limits = _scikit_learn()
    found: list[list[np.ndarray]] = []
    with threadpool_limits(1):
        for chunk in np.array_split(np.arange(cells.cell_count()), cells.cell_count() // CHUNK):
            matrix = features.matrix(chunk).astype(np.float64)  # once, or each model does it
            found.append(
                [np.mean([form(model.predict(matrix)) for model in models], axis=0) for models, form in groups]
            )
    return [np.concatenate(parts) for parts in zip(*found)]


def calibrate(prediction: Prediction, measured: Measured) -> Prediction:
    """The prediction plus the mean residual at that level of cells of that size (see ``WINDOWS``)."""
    sizes = np.repeat([*cells.CELL_COUNTS], [*cells.CELL_COUNTS.values()])
    sizes = np.maximum(sizes, min(WINDOWS))
    everywhere, unseen = prediction.everywhere.copy(), prediction.unseen.copy()
    for size, window in WINDOWS.items():
        rows = measured.worked & (sizes[measured.index] == size)
        if np.sum(rows) < window:
            continue
        level, mean = _running_means(prediction.unseen[rows], (measured.valid - prediction.unseen)[rows], window)
        unseen[rows] += np.interp(unseen[rows], level, mean)
        everywhere[sizes == size] += np.interp(everywhere[sizes == size], level, mean)
    return Prediction(everywhere, unseen)


def _running_means(level: np.ndarray, residual: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of both over windows in the order of ``level``, and over the uppermost half and quarter of a window."""
    order = np.argsort(level, kind="stable")
    level, residual = level[order], np.clip(residual[order], -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
    n = len(level)
    parts = [slice(start, start + window) for start in range(0, n - window + 1, window // 4)]
    parts += [slice(n - window, n), slice(n - window // 2, n), slice(n - window // 4, n)]
    return np.array([level[part].mean() for part in parts]), np.array([residual[part].mean() for part in parts])


def say(what: str) -> None:
    """Say what is under way; standard error is for the one line that tells what is wrong."""
    print(f"{what} ...", flush=True)
