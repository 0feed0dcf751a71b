"""How far the three trainings of a cell scatter, and what the maximum of three says about their mean.

NAS-Bench-101 trained each cell three times. A table has means of the three; most published measurements that are at
hand are their maximum. By how much it exceeds the mean depends on the level: good cells scatter less. The scatter
below is pooled from three sources: 62 cells of which the maximum and the mean are both known, the single runs of 30
cells that NASLib ships with its tests, and the extremes of the whole data set (the largest maximum is .951823, the
largest mean .950554). Of three normal numbers the maximum lies .8463 standard deviations above the mean, and that
distance, which does not depend on the mean, scatters by .4756 of them.
"""

from dataclasses import dataclass

import numpy as np

RUNS = 3
LEVELS = (0.900, 0.915, 0.925, 0.935, 0.945)  # mean validation accuracy; beyond the ends as at the ends
RUN_SD = (0.0055, 0.0051, 0.0038, 0.0027, 0.0015)  # standard deviation of the validation accuracy of one run
MAXIMUM, MAXIMUM_SD = 0.8463, 0.4756  # of 3 standard normal numbers: maximum - mean, and its standard deviation
MAXIMUM_OF_3_SD = 0.7480  # of the maximum itself
TYPICAL = 0.0034  # by which the maximum of 3 runs exceeds their mean over all levels; published

# Of test - validation accuracy, as means of 3 runs: its standard deviation among 1,204 cells, and beyond .942 (the mean
# of the 38 best of those) going on as it falls.
GAP_LEVELS, GAP_SD = (0.895, 0.92, 0.9375, 0.942, 0.947), (0.0018, 0.0016, 0.0015, 0.0013, 0.0010)
TOP_LEVELS, TOP_GAPS = (0.947, 0.9505542), (-0.0064, -0.0082)  # its mean beyond; the second is that of the best cell


def run_sd(level: np.ndarray) -> np.ndarray:
    """Standard deviation of the validation accuracies of the runs of a cell with that mean."""
    return np.interp(level, LEVELS, RUN_SD)


def mean_of(maximum: np.ndarray) -> np.ndarray:
    """The mean validation accuracy of 3 runs to expect where their maximum is known."""
    return maximum - MAXIMUM * run_sd(maximum - TYPICAL)


@dataclass(frozen=True)
class Gap:
    """Test - validation accuracy by the level of validation accuracy, from cells of which both are known.

    Attributes
    ----------
    level, mean : float64 [n]
        Ascending levels and the mean difference there.
    """

    level: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, valid: np.ndarray, test: np.ndarray, groups: int = 12) -> "Gap":
        """Means over groups of cells of equal size, in the order of their validation accuracy; ``TOP_GAPS`` above."""
        parts = np.array_split(np.argsort(valid, kind="stable"), min(groups, len(valid)))
        level, gap = ([values[part].mean() for part in parts] for values in (valid, test - valid))
        return cls(np.array([*level, *TOP_LEVELS]), np.array([*gap, *TOP_GAPS]))

    def at(self, level: np.ndarray) -> np.ndarray:
        return np.interp(level, self.level, self.mean)


def draw_gaps(valid: np.ndarray, gap: Gap, rng: np.random.Generator) -> np.ndarray:
    """Test - validation accuracy of cells with these means of 3 runs.

    The luck of a run is in both accuracies; what they do not share is drawn here.
    """
    return gap.at(valid) + np.interp(valid, GAP_LEVELS, GAP_SD) * rng.standard_normal(len(valid))


def draw_runs(mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Validation accuracies of three runs of each cell, float64 [3, n], with these means (float64 [n])."""
    luck = rng.standard_normal((RUNS, len(mean)))
    return mean + run_sd(mean) * (luck - luck.mean(axis=0))
