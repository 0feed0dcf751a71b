"""Residuals of a prediction of all cells: how large they are by level, and what neighbours share of them.

``ResidualScale`` turns a residual into a *score*, which is standard normal at every level, and back.

``ResidualField`` gives scores to all cells. Each cell has a number of its own, standard normal; these are averaged over
neighbours some times, and scaled to variance 1. So neighbours are correlated, and cells a few steps apart a little:
between cells of 7 vertices .62, of 6 vertices .58, between one of 6 and one of 7 .24. Where scores are known
the field is drawn given them (Matheron's rule: draw everything freely, then add what regression on the differences at
the known places predicts).

Needs scipy.
"""

import numpy as np

from nasbench_dataset import cells, neighbours

WIDEST = 3.8  # scores beyond do not occur
STEPS, OWN_WEIGHT, OTHER_SIZE = 4, 3.0, 0.5  # averagings; weight of a cell beside a neighbour's; of one of another size
PROBES = 24  # random fields from which the variance of the field is estimated, for each graph
SOLVED, MOST_ITERATIONS = 3e-3, 100  # conjugate gradients: relative residual, of scores, which are of size 1


class ResidualScale:
    """What residuals are to be expected at each level of prediction.

    Parameters
    ----------
    level, residual : float64 [n]
        Of measured cells: what was predicted by a model that had not seen them, and measured - predicted.
    near, wide : int
        Over how many cells, in the order of their levels, mean and standard deviation are taken, and the shape of the
        distribution, which needs more.
    """

    def __init__(self, level: np.ndarray, residual: np.ndarray, near: int = 400, wide: int = 3_000):
        order = np.argsort(level, kind="stable")
        level, residual = level[order], residual[order]
        n = len(level)
        near, wide = min(near, n // 2), min(wide, n)
        middles = np.linspace(near // 2, n - near // 2, 80), n - np.geomspace(max(near // 7, 1), near // 2, 8)
        middles = np.unique(np.concatenate(middles).astype(int))
        halves = np.minimum(near // 2, np.minimum(middles, n - middles))
        windows = [slice(middle - half, middle + half) for middle, half in zip(middles, halves) if half]
        self._level = np.array([level[window].mean() for window in windows])
        self._mean = np.array([residual[window].mean() for window in windows])
        self._sd = np.array([residual[window].std() for window in windows])
        standard = (residual - self.mean(level)) / self.sd(level)
        self._scores = np.linspace(-WIDEST, WIDEST, 77)
        starts = np.clip([window.start + near // 2 - wide // 2 for window in windows], 0, n - wide)
        self._shape = np.array([self._quantiles(standard[start : start + wide]) for start in starts])

    def mean(self, level: np.ndarray) -> np.ndarray:
        return np.interp(level, self._level, self._mean)

    def sd(self, level: np.ndarray) -> np.ndarray:
        """Standard deviation of residuals."""
        return np.interp(level, self._level, self._sd)

    def _quantiles(self, standard: np.ndarray) -> np.ndarray:
        """Standardised residuals at the scores of the grid; beyond the outermost few, straight on."""
        from scipy.stats import norm

        values = np.sort(standard)
        at = norm.ppf((np.arange(len(values)) + 0.5) / len(values))
        found = np.interp(self._scores, at, values)
        few = min(8, len(values) // 2)
        for side, edge in ((1, -few), (-1, few - 1)):
            beyond = side * self._scores > side * at[edge]
            slope = max(side * np.interp(side * 2.0, at, values) / 2, 0.7)
            found[beyond] = values[edge] + (self._scores[beyond] - at[edge]) * slope
        return np.maximum.accumulate(found) + 1e-9 * np.arange(len(found))  # strictly rising

    def residual(self, level: np.ndarray, score: np.ndarray) -> np.ndarray:
        """The residuals with these scores at these levels, float64 [n]."""
        row = np.clip(np.searchsorted(self._level, level) - 1, 0, len(self._level) - 2)
        up = np.clip((level - self._level[row]) / (self._level[row + 1] - self._level[row]), 0, 1)
        step = self._scores[1] - self._scores[0]
        place = np.clip((score + WIDEST) / step, 0, len(self._scores) - 1.001)
        column = place.astype(int)
        right = place - column
        low, high = (
            self._shape[r, column] * (1 - right) + self._shape[r, column + 1] * right for r in (row, row + 1)
        )
        return self.mean(level) + self.sd(level) * ((1 - up) * low + up * high)

    def score(self, level: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """The inverse of ``residual``, by bisection; residuals beyond all that occur have the outermost score."""
        low, high = np.full(len(level), -WIDEST), np.full(len(level), WIDEST)
        for _ in range(40):
            middle = (low + high) / 2
            below = self.residual(level, middle) < residual
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2


class ResidualField:
    """Scores that neighbours share; building it takes 15 to 20 s.

    Parameters
    ----------
    pairs : (int [n], int [n]), optional
        Neighbours; by default all of them.
    """

    def __init__(self, pairs: tuple[np.ndarray, np.ndarray] | None = None):
        from scipy import sparse

        lower, higher = neighbours.neighbour_pairs() if pairs is None else pairs
        size, graph = cells.cell_count(), _graph_numbers()
        vertices = np.repeat([*cells.CELL_COUNTS], [*cells.CELL_COUNTS.values()])
        apart = vertices[higher] - vertices[lower]
        lower, higher, apart = (array[apart <= 1] for array in (lower, higher, apart))
        weight = np.where(apart, OTHER_SIZE, 1).astype(np.float32)
        ends = np.concatenate([lower, higher]), np.concatenate([higher, lower])
        sums = sparse.coo_array((np.concatenate([weight, weight]), ends), shape=(size, size)).tocsr()
        sums = sums + OWN_WEIGHT * sparse.eye_array(size, dtype=np.float32, format="csr")
        scale = sparse.diags_array((1 / np.sqrt(sums.sum(axis=1))).astype(np.float32))
        self._average = (scale @ sums @ scale).tocsr()  # symmetric, so that it is its own transpose
        probes = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), size=(size, PROBES))
        variance = (self._averaged(probes).astype(np.float64) ** 2).mean(axis=1)
        variance = np.bincount(graph, variance) / np.bincount(graph)  # cells of one graph have as many neighbours
        self._sd = np.sqrt(variance)[graph].astype(np.float32)

    def _averaged(self, numbers: np.ndarray) -> np.ndarray:
        for _ in range(STEPS):
            numbers = self._average @ numbers
        return numbers

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A field of variance 1, float32 [423624]."""
        return self._averaged(rng.standard_normal(len(self._sd), np.float32)) / self._sd

    def draw_given(
        self, share: np.ndarray, known: np.ndarray, scores: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The part of the scores that neighbours share, given the whole scores of some cells.

        Parameters
        ----------
        share : float64 [423624]
            Of the variance of each cell's score, which is 1, that part.
        known, scores : int [n], float64 [n]

        Returns
        -------
        shared : float64 [423624]
        own : float64 [n]
            The rest of the known scores.
        """
        from scipy.sparse.linalg import LinearOperator, cg

        size, amplitude, variance = len(share), np.sqrt(share), 1 - share[known]

        def covariances(weights: np.ndarray) -> np.ndarray:
            spread = np.zeros(size, np.float32)
            spread[known] = weights * amplitude[known] / self._sd[known]
            return amplitude * self._averaged(self._averaged(spread)) / self._sd

        shared = amplitude * self.draw(rng)
        own = np.sqrt(variance) * rng.standard_normal(len(known))
        operator = LinearOperator(
            (len(known), len(known)), matvec=lambda w: covariances(w)[known] + variance * w, dtype=np.float64
        )
        weights, _ = cg(operator, scores - shared[known] - own, rtol=SOLVED, maxiter=MOST_ITERATIONS)
        return shared + covariances(weights), own + variance * weights


def _graph_numbers() -> np.ndarray:
    """int [423624]: a number for the graph of each cell, the same whatever its operations."""
    codes = [cells.enumerate_codes(v) // 3 ** (v - 2) * (cells.MAX_VERTICES + 1) + v for v in cells.CELL_COUNTS]
    return np.unique(np.concatenate(codes), return_inverse=True)[1]
