"""How well the models of the guide order measured cells: `python tests/benchmark_guide.py MEASUREMENTS`.

The embedded table is a fit to these measurements by features that hold the models' own, so that a model could look
better on it than on real accuracies. Here each is fitted to some of the uniformly drawn measured cells and orders
others, and does the same on the embedded table. MEASUREMENTS: the folder that fit_surrogate takes.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from guide import Model, targets_of
from linear_model import LinearModel
from nasbench_dataset import cells, command
from nasbench_dataset.fit_surrogate import read_measurements
from nasbench_dataset.table import EMBEDDED, load
from network_model import NetworkModel

SIZES = (20, 50, 150, 300, 1_000)
REPEATS, JUDGED = 5, 2_000
MODELS = {"linear": LinearModel, "networks": lambda: NetworkModel(0)}


def correlation(model: Model, accuracies: np.ndarray, fitted: np.ndarray, others: np.ndarray) -> float:
    """Spearman's rank correlation over ``others`` of a model fitted to ``fitted``, both indices of cells."""

    def rows(indices: np.ndarray) -> np.ndarray:
        return np.array([model.encode(cells.cell(index)) for index in indices.tolist()])

    model.fit(rows(fitted), targets_of(accuracies[fitted]))
    return float(spearmanr(model.mean(rows(others)), accuracies[others]).statistic)


def main(argv: list[str] | None = None) -> int:
    """Print a line for each number of cells that the model is fitted to."""
    parser = command.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("measurements", metavar="MEASUREMENTS", type=Path)
    sample = read_measurements(parser.parse_args(argv).measurements)
    indices = sample.index[sample.in_sample]
    measured = np.full(cells.cell_count(), np.nan)
    measured[indices] = sample.valid[sample.in_sample]
    tables, rng = (measured, load(EMBEDDED).columns["valid"]), np.random.default_rng(0)
    columns = [f"{name} on {where}" for name in MODELS for where in ("measured cells", "the table")]
    print("Spearman: " + ", ".join(columns))
    for size in SIZES:
        both = []
        for _ in range(REPEATS):
            order = rng.permutation(indices)
            parts = order[:size], order[size : size + JUDGED]
            both.append([correlation(model(), table, *parts) for model in MODELS.values() for table in tables])
        words = [f"{value:.3f}" for value in np.median(both, axis=0)]
        print(f"{size:5,} cells: {', '.join(words)}", flush=True)
    return 0


if __name__ == "__main__":
    command.run(main)
