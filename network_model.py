"""The Meta-DNN as a guide: an ensemble of small networks on top of the linear model. Ours, not the paper's.

A few dozen samples are too few for a network alone, and enough for a linear model; what that one leaves over, the
networks learn. How much of what they say counts is told by samples that they were not fitted to (each is fitted to as
many samples drawn with replacement, so that it has not seen a third of them): the slope of a regression of these on
what was said, less its standard error. An ensemble that has learned nothing, or has collapsed, does not count at all,
and it is begun anew at each fit. All members are fitted by one compiled program, and the time that takes grows linearly
with the samples.
"""

import numpy as np

from cell_encodings import Cell
from linear_model import FEATURES, LinearModel, counts_of
from nasbench_dataset import cells
from small_networks import Recipe, absolute_error, fit, glorot

MEMBERS, HIDDEN = 5, (32, 32)
RECIPE = Recipe(epochs=40, batch=32, rate=0.003, decay=1e-3)
EDGES, OPERATIONS = 21, 3 * 5  # places of a cell of 7 vertices: of each edge, and of each operation of each vertex
INPUTS = FEATURES + EDGES + OPERATIONS


class NetworkModel:
    """The linear model, and the networks on what it leaves over.

    Parameters
    ----------
    seed : int
        Of weights and orders; a fit depends on it and on the samples alone.

    Attributes
    ----------
    share : float
        How much of what the networks predict counts, 0..1.
    linear : LinearModel
    noise : float
        The standard deviation of what neither tells.
    """

    width, dtype, empty = LinearModel.width + EDGES + OPERATIONS, np.uint8, 0

    def __init__(self, seed: int):
        self.seed, self.linear, self.share, self.noise = seed, LinearModel(), 0.0, 1.0
        self._layers: list[tuple[np.ndarray, np.ndarray]] = []

    def encode(self, cell: Cell) -> np.ndarray:
        """uint8 [width]: as the linear model does, then each edge and each operation at a place of its own."""
        operations, edges = cells.enlarge(*cell, (3,) * (5 - len(cell[0])))
        at_edges = [edges >> bit & 1 for bit in range(EDGES)]
        at_vertices = [o == operation for o in operations for operation in range(3)]
        return np.concatenate([self.linear.encode(cell), at_edges, at_vertices]).astype(np.uint8)

    def fit(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Fit to some encoded cells (uint8 [n, width]) with those targets (float [n])."""
        self.linear.fit(_linear_part(rows), targets)
        left = targets - self.linear.mean(_linear_part(rows))
        self._scale = left.std() or 1.0
        rng = np.random.default_rng((self.seed, len(rows)))
        inputs, drawn = _inputs(rows), rng.integers(len(rows), size=(MEMBERS, len(rows)))
        sizes = INPUTS, *HIDDEN, 1
        weights = [glorot(rng, MEMBERS, *pair) for pair in zip(sizes, sizes[1:])]
        weights = fit(absolute_error, RECIPE, weights, inputs.astype(np.float32), left / self._scale, rng, drawn)
        self._layers = [(np.asarray(w["kernel"], float), np.asarray(w["bias"], float)[:, None]) for w in weights]
        self._weigh(self._members(rows), left, drawn)

    def _weigh(self, predicted: np.ndarray, left: np.ndarray, drawn: np.ndarray) -> None:
        """Choose ``share`` and ``noise`` by what members predict of samples that they have not seen."""
        unseen = np.ones(predicted.shape, bool)
        np.put_along_axis(unseen, drawn, False, axis=1)
        judged = unseen.any(axis=0)
        theirs = (predicted * unseen).sum(axis=0)[judged] / unseen.sum(axis=0)[judged]
        square = float(theirs @ theirs) or 1.0
        slope = float(theirs @ left[judged]) / square
        error = (float(np.mean((left[judged] - slope * theirs) ** 2)) / square) ** 0.5 if judged.any() else 0.0
        sure = slope - error  # less its standard error, so that chance does not count
        self.share = min(1.0, max(0.0, sure)) if np.isfinite(sure) else 0.0
        missed = float(np.mean((left[judged] - self.share * theirs) ** 2)) ** 0.5 if judged.any() else 0.0
        self.noise = max(missed, self.linear.noise) if self.share else self.linear.noise

    def _members(self, rows: np.ndarray) -> np.ndarray:
        """float64 [members, n]: what each network predicts of what the linear model leaves over."""
        x = _inputs(rows)[None]
        for kernel, bias in self._layers[:-1]:
            x = np.maximum(x @ kernel + bias, 0)
        kernel, bias = self._layers[-1]
        return ((x @ kernel + bias)[..., 0] * self._scale).round(9)  # the last bits depend on how many are predicted

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """float64 [n]: predicted targets of encoded cells."""
        linear = self.linear.mean(_linear_part(rows))
        return linear + self.share * self._members(rows).mean(axis=0) if self.share else linear

    def spread(self, rows: np.ndarray, pending: np.ndarray) -> np.ndarray:
        """float64 [n]: the standard deviation of their targets, once those of ``pending`` are known."""
        linear = self.linear.spread(_linear_part(rows), _linear_part(pending)) ** 2 - self.linear.noise**2
        members = self.share**2 * self._members(rows).var(axis=0, ddof=1) if self.share else 0.0
        return np.sqrt(linear + members + self.noise**2)


def _linear_part(rows: np.ndarray) -> np.ndarray:
    return rows[:, : LinearModel.width].astype(int)


def _inputs(rows: np.ndarray) -> np.ndarray:
    """float64 [n, INPUTS]: what the networks see."""
    return np.hstack([counts_of(_linear_part(rows)), rows[:, LinearModel.width :]])
