"""A Gaussian process over cells with a Weisfeiler-Lehman kernel: the model of NAS-BOWL.

Ru, Wan, Dong, Osborne, "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
Kernels" (arXiv 2006.07556), sections 3.1 and 3.2; their optimal-assignment kernel, which their code uses here.
"""

from collections import Counter
from functools import lru_cache
from typing import Sequence

import numpy as np
import scipy  # its parts when they are asked for: together they take most of the start of compare.py

from cell_encodings import INPUT, OUTPUT, Cell, paths_and_edges

ROUNDS = 1, 2  # of relabelling, between which the marginal likelihood chooses; as in their code
NOISES = np.geomspace(1e-5, 1e-2, 7)  # variances of the noise, likewise (they follow its gradient between these bounds)
LEAST_ACCURACY = 1e-3  # of those that an accuracy of 1 leaves: an error whose logarithm is finite


@lru_cache(maxsize=1 << 16)
def subtrees(cell: Cell, rounds: int) -> tuple[tuple[str, int], ...]:
    """What the kernel compares: each label of each round, once for every time that it occurs, counted up.

    In round 0 the label of a vertex is its operation, in each later one its own label of the round before with those of
    the vertices that its edges lead to, sorted. The kernel of histograms adds up the smaller of two counts, so that it
    is the number of pairs (label, how manieth) that two cells share.
    """
    operations, edges = cell
    kinds = (INPUT, *operations, OUTPUT)
    pairs = paths_and_edges(len(kinds), edges)[1]
    labels, found = [str(kind) for kind in kinds], []
    for number in range(rounds + 1):
        counts = Counter(labels)
        found += [(f"{number}:{label}", i) for label, count in counts.items() for i in range(count)]
        successors = [sorted(labels[y] for x, y in pairs if x == vertex) for vertex in range(len(kinds))]
        labels = [f"({label}|{','.join(after)})" for label, after in zip(labels, successors)]
    return tuple(found)


def kernel(left: Sequence[Cell], right: Sequence[Cell], rounds: int) -> np.ndarray:
    """float64 [len(left), len(right)]: how alike cells are, from 0 to 1, which any cell is to itself."""
    places: dict[tuple[str, int], int] = {}

    def rows(batch: Sequence[Cell]) -> scipy.sparse.csr_array:
        found = [[places.setdefault(key, len(places)) for key in subtrees(cell, rounds)] for cell in batch]
        sizes = [len(row) for row in found]
        values = np.repeat(1 / np.sqrt(sizes), sizes)  # a cell shares all its own
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return scipy.sparse.csr_array((values, np.concatenate(found), starts), (len(batch), 1 << 20))

    return (rows(left) @ rows(right).T).toarray()


class GaussianProcess:
    """The posterior over the accuracies of cells, of which some are known.

    It models -log(1 - accuracy), standardised; the prior has mean 0 and the kernel's variance, 1. Rounds of relabelling
    and noise are those of the largest marginal likelihood.

    Parameters
    ----------
    batch, accuracies : sequence of Cell, of float
        What is known.
    """

    def __init__(self, batch: Sequence[Cell], accuracies: Sequence[float]):
        self.batch = list(batch)
        values = -np.log(np.maximum(1 - np.asarray(accuracies, float), LEAST_ACCURACY))
        self._mean, self._sd = values.mean(), values.std() or 1.0
        self._targets = (values - self._mean) / self._sd
        grams = {rounds: kernel(self.batch, self.batch, rounds) for rounds in ROUNDS}
        likelihoods = {r: log_likelihoods(gram, self._targets, NOISES) for r, gram in grams.items()}
        self.rounds = max(ROUNDS, key=lambda r: likelihoods[r].max())
        self.noise = float(NOISES[likelihoods[self.rounds].argmax()])
        gram = grams[self.rounds]
        self._factor = scipy.linalg.cho_factor(gram + self.noise * np.eye(len(gram)), lower=True)
        self._weights = scipy.linalg.cho_solve(self._factor, self._targets)
        self._fitted = gram @ self._weights

    def predict(self, batch: Sequence[Cell]) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and standard deviation (float64 [n] each) of the standardised values of cells."""
        across = kernel(batch, self.batch, self.rounds)
        variance = 1 + self.noise - np.einsum("ij,ji->i", across, scipy.linalg.cho_solve(self._factor, across.T))
        return across @ self._weights, np.sqrt(np.maximum(variance, self.noise))

    def expected_improvement(self, batch: Sequence[Cell]) -> np.ndarray:
        """float64 [n]: by how much each cell is expected to exceed the known one of the largest posterior mean."""
        mean, sd = self.predict(batch)
        above = mean - self._targets[self._fitted.argmax()]
        density = np.exp(-((above / sd) ** 2) / 2) / np.sqrt(2 * np.pi)
        return sd * density + above * scipy.special.ndtr(above / sd)


def log_likelihoods(gram: np.ndarray, targets: np.ndarray, noises: np.ndarray) -> np.ndarray:
    """float64 [len(noises)]: the log marginal likelihood of targets, but for a constant, under each noise."""
    values, vectors = np.linalg.eigh(gram)
    spectrum = np.maximum(values, 0) + noises[:, None]
    return -((vectors.T @ targets) ** 2 / spectrum + np.log(spectrum)).sum(axis=1) / 2
