"""The tree of LaNAS: linear models that divide a search space into good and bad regions.

Wang, Xie, Li, Fonseca, Tian, "Sample-Efficient Neural Architecture Search by Learning Action Space" (arXiv 1906.06832),
section 3, with the settings of their code for NAS-Bench-101.
"""

import math
import random

import numpy as np

HEIGHT = 5  # levels, the leaves included: 16 leaves
CP = 0.1  # exploration constant of UCT


class LatentTree:
    """A complete binary tree; node k has the children 2k (good) and 2k + 1 (bad), and node 1 is the root.

    An inner node has a linear regression from the rows of its samples to their accuracies. The samples above the mean
    of its predictions go to the good child, the others to the bad one; what is not sampled goes by its own prediction.

    Parameters
    ----------
    rows : float [n, m]
        The samples as numbers.
    accuracies : float [n]
    height : int

    Attributes
    ----------
    n, x_bar : list of int, list of float
        Of each node: its samples, and their mean accuracy.
    """

    def __init__(self, rows: np.ndarray, accuracies: np.ndarray, height: int = HEIGHT):
        self.first_leaf = 1 << height - 1
        self.n, self.x_bar = [0] * (2 * self.first_leaf), [math.inf] * (2 * self.first_leaf)
        self._weights = np.zeros((self.first_leaf, rows.shape[1] + 1))
        self._means = np.zeros(self.first_leaf)
        rows = with_constant(rows)
        at = np.ones(len(rows), int)
        for node in range(1, 2 * self.first_leaf):
            here = np.flatnonzero(at == node)
            self.n[node] = len(here)
            if len(here):
                self.x_bar[node] = float(accuracies[here].mean())
            if node < self.first_leaf and len(here):
                weights = np.linalg.lstsq(rows[here], accuracies[here], rcond=None)[0].round(9)
                self._weights[node], self._means[node] = weights, (rows[here] @ weights).mean()
                at[here] = 2 * node + (accuracies[here] < self._means[node])

    def leaves(self, rows: np.ndarray) -> np.ndarray:
        """int [n]: the leaf in whose region each of some unsampled cells lies, given as numbers."""
        rows, at = with_constant(rows), np.ones(len(rows), int)
        while at[0] < self.first_leaf:
            predicted = np.einsum("ij,ij->i", rows, self._weights[at])
            at = 2 * at + (predicted < self._means[at])
        return at

    def select(self, rng: random.Random) -> int:
        """The leaf to which UCT leads from the root, ties broken at random; one without samples comes first."""
        node = 1
        while node < self.first_leaf:
            children = [2 * node, 2 * node + 1]
            values = [self._uct(child, self.n[node]) for child in children]
            node = rng.choice([child for child, value in zip(children, values) if value == max(values)])
        return node

    def back_up(self, leaf: int, accuracy: float) -> None:
        """Tell a leaf and its ancestors of a new sample; the models stay as they are."""
        node = leaf
        while node:
            before = self.x_bar[node] if self.n[node] else 0.0
            self.n[node] += 1
            self.x_bar[node] = before + (accuracy - before) / self.n[node]
            node //= 2

    def _uct(self, node: int, visits: int) -> float:
        if not self.n[node]:
            return math.inf
        return self.x_bar[node] + 2 * CP * math.sqrt(2 * math.log(visits) / self.n[node])


def with_constant(rows: np.ndarray) -> np.ndarray:
    """The rows with a further column of ones."""
    return np.hstack([rows, np.ones((len(rows), 1))])
