"""How searches go at 4 vertices: ``python tests/reference_figures.py [TABLE] [--runs 1000]``.

TABLE is a table or a JSON file of the original, by default the embedded table; the accuracies move these figures
little. The original, measured with fresh seeds on all 91 cells: 11.4 samples and 17.4 nodes after 20 episodes, about
33.6 / 71.8 after 100 and 44.4 / 104.6 after 150; to the best cell 51.8 samples on average, quartiles 41 / 52 / 72,
5 of 400 searches stalled.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from arch_generator import ROOT, arch_generator  # noqa: E402
from MCTS import MCTS  # noqa: E402
from nasbench_dataset import command  # noqa: E402
from nasbench_dataset.convert import open_table  # noqa: E402
from nasbench_dataset.table import Table, default_path  # noqa: E402
from net_training import NetTrainer  # noqa: E402

EPISODES = (20, 100, 150)
PATIENCE = 20_000


@dataclass
class Figures:
    """Means [3, 2] of unique samples and tree nodes after ``EPISODES``, their standard errors, samples to the target."""

    means: np.ndarray
    errors: np.ndarray
    to_target: list[int]
    stalled: int


def run_episodes(search: MCTS, counts: tuple[int, ...]) -> list[tuple[int, int]]:
    """Unique samples and tree nodes after so many episodes."""
    search.root = search.expand(None, ROOT)
    result = []
    for episode in range(1, max(counts) + 1):
        search.episode()
        if episode in counts:
            result.append((search.trainer.unique_samples, len(search.tree)))
    return result


def measure(table: Table, runs: int) -> Figures:
    """The figures over the seeds 0 to ``runs - 1``."""

    def search(seed: int) -> MCTS:
        return MCTS(NetTrainer(table, arch_generator(4)), seed)

    rows = np.array([run_episodes(search(seed), EPISODES) for seed in range(runs)])
    searches = [search(seed) for seed in range(runs)]
    outcomes = [s.search(patience=PATIENCE) for s in searches]
    to_target = [s.trainer.unique_samples for s, outcome in zip(searches, outcomes) if outcome == "found"]
    return Figures(rows.mean(axis=0), rows.std(axis=0) / runs**0.5, to_target, outcomes.count("stalled"))


def main() -> None:
    parser = command.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", default=default_path(), help="a table, or the original's JSON")
    parser.add_argument("--runs", type=command.whole_number(2), default=1_000, help="searches of each kind")
    options = parser.parse_args()
    figures = measure(open_table(options.table), options.runs)
    for episodes, (samples, nodes), (error, node_error) in zip(EPISODES, figures.means, figures.errors):
        print(f"after {episodes} episodes: {samples:.2f} ± {error:.2f} unique samples, {nodes:.2f} ± {node_error:.2f} nodes")
    quartiles = " / ".join(f"{q:.0f}" for q in np.quantile(figures.to_target, [0.25, 0.5, 0.75]))
    print(f"unique samples to the best cell: mean {np.mean(figures.to_target):.1f}, quartiles {quartiles}")
    print(f"stalled after {PATIENCE:,} episodes without a new sample: {figures.stalled} of {options.runs}")


if __name__ == "__main__":
    command.run(main)
