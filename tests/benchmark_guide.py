"""How well the linear model of guide.py orders measured cells: `python tests/benchmark_guide.py MEASUREMENTS`.

The embedded table is a fit to these measurements by features that hold the model's own, so that a model could look
better on it than on real accuracies. Here it is fitted to some of the uniformly drawn measured cells and orders all
others, and does the same on the embedded table. MEASUREMENTS: the folder that fit_surrogate takes.
"""

import random
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arch_generator import State, arch_generator
from guide import Guide
from nasbench_dataset import cells, command
from nasbench_dataset.fit_surrogate import read_measurements
from nasbench_dataset.table import EMBEDDED, load
from space import Space

SIZES = (100, 300, 1_000, 5_000)
REPEATS = 5


def correlation(accuracies: np.ndarray, fitted: np.ndarray, others: np.ndarray) -> float:
    """Spearman's rank correlation over ``others`` of a model fitted to ``fitted``, both indices of cells."""
    guide = Guide(Space(arch_generator(7), "isomorphic", ~np.isnan(accuracies)), random.Random(0))
    for index in fitted.tolist():
        guide.tell(index, float(accuracies[index]))
    guide.fit()
    predicted = [guide.worth(State(*cells.cell(index), True)) for index in others.tolist()]
    return float(spearmanr(predicted, accuracies[others]).statistic)


def main(argv: list[str] | None = None) -> int:
    """Print a line for each number of cells that the model is fitted to."""
    parser = command.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("measurements", metavar="MEASUREMENTS", type=Path)
    sample = read_measurements(parser.parse_args(argv).measurements)
    indices = sample.index[sample.in_sample]
    measured = np.full(cells.cell_count(), np.nan)
    measured[indices] = sample.valid[sample.in_sample]
    tables, rng = (measured, load(EMBEDDED).columns["valid"]), np.random.default_rng(0)
    for size in SIZES:
        both = []
        for _ in range(REPEATS):
            order = rng.permutation(indices)
            both.append([correlation(table, order[:size], order[size:]) for table in tables])
        real, surrogate = np.median(both, axis=0)
        words = f"Spearman on measured cells {real:.3f}, on the embedded table {surrogate:.3f}"
        print(f"fitted to {size:5,} cells: {words}", flush=True)
    return 0


if __name__ == "__main__":
    command.run(main)
