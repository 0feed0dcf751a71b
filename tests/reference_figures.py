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

from arch_generator import arch_generator  # noqa: E402
from driver import Driver, Outcome  # noqa: E402
from MCTS import MCTS  # noqa: E402
from method import NoAccuracy, Question  # noqa: E402
from nasbench_dataset import command  # noqa: E402
from nasbench_dataset.opening import open_table  # noqa: E402
from nasbench_dataset.table import Table, default_path  # noqa: E402
from net_training import NetTrainer  # noqa: E402
from options import SearchOptions  # noqa: E402

EPISODES = (20, 100, 150)
PATIENCE = 20_000


@dataclass
class Figures:
    """How many searches went.

    Attributes
    ----------
    means, errors : float64 [3, 2]
        Of unique samples and tree nodes after ``EPISODES``, and their standard errors.
    to_target : list of int
        Unique samples of each search that found the target.
    stalled : int
        Searches that did not.
    """

    means: np.ndarray
    errors: np.ndarray
    to_target: list[int]
    stalled: int


def run_episodes(trainer: NetTrainer, seed: int, counts: tuple[int, ...]) -> list[tuple[int, int]]:
    """Unique samples and tree nodes after so many episodes of a search that no target ends."""
    search, samples, result = MCTS(trainer.space, seed, SearchOptions()), set(), []
    for episodes in counts:
        while search.episodes < episodes:
            asked = search.ask()
            if isinstance(asked, Question):
                answer = trainer.train_net(asked)
                search.tell(asked, answer)
                if not isinstance(answer, NoAccuracy):
                    samples.add(asked.index)
        result.append((len(samples), len(search.tree)))
    return result


def measure(table: Table, runs: int, patience: int = PATIENCE) -> Figures:
    """The figures over the seeds 0 to ``runs - 1``; stalled after so many episodes without a new sample."""
    trainer = NetTrainer(table, arch_generator(4))
    rows = np.array([run_episodes(trainer, seed, EPISODES) for seed in range(runs)])
    searches = (MCTS(trainer.space, seed, SearchOptions()) for seed in range(runs))
    drivers = [Driver(search, trainer, trainer.target_accuracy) for search in searches]
    outcomes = [driver.run(patience=patience) for driver in drivers]
    found = [d.history.unique_samples for d, outcome in zip(drivers, outcomes) if outcome is Outcome.FOUND]
    return Figures(rows.mean(axis=0), rows.std(axis=0) / runs**0.5, found, outcomes.count(Outcome.STALLED))


def main() -> None:
    """Print the figures."""
    parser = command.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", default=default_path(), help="a table, or the original's JSON")
    parser.add_argument("--runs", type=command.whole_number(2), default=1_000, help="searches of each kind")
    options = parser.parse_args()
    figures = measure(open_table(options.table), options.runs)
    for episodes, means, errors in zip(EPISODES, figures.means, figures.errors):
        samples, nodes = (f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means, errors))
        print(f"after {episodes} episodes: {samples} unique samples, {nodes} nodes")
    quartiles = " / ".join(f"{q:.0f}" for q in np.quantile(figures.to_target, [0.25, 0.5, 0.75]))
    print(f"unique samples to the best cell: mean {np.mean(figures.to_target):.1f}, quartiles {quartiles}")
    print(f"stalled after {PATIENCE:,} episodes without a new sample: {figures.stalled} of {options.runs}")


if __name__ == "__main__":
    command.run(main)
