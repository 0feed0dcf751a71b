"""A Bayesian linear model of cells: what the guide knows of an accuracy, and how well. Knows no search.

What it sees of a cell are the paths from input to output by the operations on them (the path encoding of White et al.
2019, arXiv 1910.11858), the edges by what they join, the operations, and how deep the cell is. A fit costs
milliseconds and grows linearly with the samples; a prediction takes microseconds.
"""

import numpy as np

from cell_encodings import INPUT, KINDS, OUTPUT, Cell, path_count, path_numbers, paths_and_edges
from nasbench_dataset import cells

LONGEST_PATH = 4  # inner vertices on a path that is told by its operations; longer ones are rare
FIRST_EDGE = path_count(LONGEST_PATH)  # features before it: paths
FIRST_OPERATION = FIRST_EDGE + KINDS**2
FIRST_DEPTH = FIRST_OPERATION + 3  # inner vertices on the longest path: 0 to 5
PATHS = FIRST_DEPTH + 6  # one for each path
FEATURES = PATHS + 1
MOST_FEATURES = 32  # of one cell: at most 8 paths, twice, 9 edges, 5 operations and a depth

RIDGES = np.geomspace(0.3, 100, 9)  # noise variance over that of a weight, between which the evidence chooses


def features_of(operations: cells.Operations, edges: int) -> list[int]:
    """The features of a cell, as numbers below ``FEATURES``; what is counted comes several times."""
    kinds = (INPUT, *operations, OUTPUT)
    paths, pairs = paths_and_edges(len(kinds), edges)
    joined = [FIRST_EDGE + KINDS * kinds[x] + kinds[y] for x, y in pairs]
    return [
        *path_numbers(operations, edges, LONGEST_PATH),
        *joined,
        *(FIRST_OPERATION + o for o in operations),
        FIRST_DEPTH + max(map(len, paths)),
        *(PATHS for _ in paths),
    ]


class LinearModel:
    """Linear regression with a normal prior over its weights; its strength and the noise maximise the evidence.

    Attributes
    ----------
    ridge, noise : float
        The strength of the penalty; the standard deviation of what the features do not tell.
    """

    width, dtype, empty = MOST_FEATURES, np.int16, FEATURES  # of an encoded cell; what fills its row up

    def __init__(self) -> None:
        self.ridge, self.noise = float(RIDGES[len(RIDGES) // 2]), 1.0
        self._weights, self._constant = np.zeros(FEATURES + 1), 0.0
        self._mean = np.zeros(FEATURES)
        self._covariance = np.zeros((FEATURES, FEATURES))

    def encode(self, cell: Cell) -> np.ndarray:
        """int16 [width]: the features of a cell, filled up with one of weight 0."""
        features = features_of(*cell)
        return np.array(features + [FEATURES] * (MOST_FEATURES - len(features)), np.int16)

    def fit(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Fit to some encoded cells (int16 [n, width]) with those targets (float [n])."""
        counts = counts_of(rows)
        self._mean = counts.mean(axis=0)
        middle = targets.mean()
        gram = counts.T @ counts - len(rows) * np.outer(self._mean, self._mean)
        slope = (targets - middle) @ counts
        values, vectors = np.linalg.eigh(gram)
        values, along = np.maximum(values, 0), vectors.T @ slope
        self._choose_ridge(values, along, float(((targets - middle) ** 2).sum()), len(rows))
        inverse = vectors / (values + self.ridge)
        weights = (inverse @ along).round(9)  # the last bits depend on the number of threads
        self._covariance = self.noise**2 * (inverse @ vectors.T)
        self._weights = np.append(weights, 0.0)
        self._constant = (middle - self._mean @ weights).round(9)

    def _choose_ridge(self, values: np.ndarray, along: np.ndarray, total: float, count: int) -> None:
        """The ridge of the largest evidence, the noise being the likeliest for it."""
        best = -np.inf
        for ridge in RIDGES.tolist():
            misfit = max(total - float((along**2 / (values + ridge)).sum()), 1e-12 * total + 1e-12)
            evidence = -(count * np.log(misfit) + np.log1p(values / ridge).sum()) / 2
            if evidence > best + 1e-9:
                best, self.ridge, self.noise = evidence, ridge, (misfit / count) ** 0.5

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """float64 [n]: predicted targets of encoded cells."""
        return self._weights[rows].sum(axis=1) + self._constant

    def spread(self, rows: np.ndarray, pending: np.ndarray) -> np.ndarray:
        """float64 [n]: the standard deviation of the targets of encoded cells, once those of ``pending`` are known.

        What a pending cell will turn out to be is not known, but that it will be known makes others like it less
        uncertain, so that they are chosen less.
        """
        counts, covariance = counts_of(rows) - self._mean, self._covariance
        variance = np.einsum("ij,jk,ik->i", counts, covariance, counts, optimize=True)
        if len(pending):
            waiting = counts_of(pending) - self._mean
            across = counts @ covariance @ waiting.T
            inner = waiting @ covariance @ waiting.T + self.noise**2 * np.eye(len(waiting))
            variance = variance - np.einsum("ij,ji->i", across, np.linalg.solve(inner, across.T))
        return np.sqrt(np.maximum(variance, 0) + self.noise**2)


def counts_of(rows: np.ndarray) -> np.ndarray:
    """float64 [n, FEATURES]: how often each feature comes in each row."""
    counts = np.zeros((len(rows), FEATURES + 1))
    np.add.at(counts, (np.arange(len(rows))[:, None], rows), 1)
    return counts[:, :FEATURES]
