"""Trainings that take time, simulated: what several open questions cost in samples, and how busy the workers are.

    python tests/simulated_pool.py --trials 30          the table of docs/parallel.md
    python tests/simulated_pool.py --measurements FILE  with the published training seconds of the cells in that .npz
    python tests/simulated_pool.py --budget 150         all cells, guided by validation: the test error after 150
    python tests/simulated_pool.py --at-once 1,64       with other numbers of open questions than 1, 4, 16 (and 64)

Nothing is waited for: the pool has a clock of its own, which stands still while a search is asked. A training takes the
published seconds of its cell, where they are given; of any other cell so long as one of them drawn at random.
"""

import heapq
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from arch_generator import arch_generator  # noqa: E402
from compare import new_method, sample_numbers  # noqa: E402
from driver import LATER, Driver  # noqa: E402
from method import Answer, Question  # noqa: E402
from nasbench_dataset import cells, command  # noqa: E402
from nasbench_dataset.opening import open_table  # noqa: E402
from nasbench_dataset.table import EMBEDDED  # noqa: E402
from net_training import NetTrainer  # noqa: E402

MEDIAN, SPREAD = 1_400.0, 0.5  # seconds, and standard deviation of their logarithm, where no measurements are given


class SimulatedPool:
    """Workers that look an accuracy up, but need as long as a training takes.

    Parameters
    ----------
    trainer : NetTrainer
        Who knows the accuracies.
    at_once : int
        The number of workers.
    seconds : callable
        How long the training of the cell with an index takes.

    Attributes
    ----------
    now, busy : float
        The clock, and the seconds that workers have worked until then, in all.
    """

    def __init__(self, trainer: NetTrainer, at_once: int, seconds):
        self.trainer, self.at_once, self.seconds = trainer, at_once, seconds
        self.now = self.busy = 0.0
        self._under_way: list[tuple[float, int, Question]] = []
        self._number = 0

    def train_net(self, question: Question) -> Answer:
        """Take a question on: its answer comes when the training has ended."""
        if len(self._under_way) >= self.at_once:
            raise RuntimeError("more questions than workers")
        self._number += 1
        heapq.heappush(self._under_way, (self.now + self.seconds(question.index), self._number, question))
        return LATER

    def collect(self, block: bool) -> list[tuple[Question, Answer]]:
        """The next answer, where it is waited for: asking takes no time."""
        if not block:
            return []
        then, _, question = heapq.heappop(self._under_way)
        self.busy += (then - self.now) * (len(self._under_way) + 1)
        self.now = then
        return [(question, self.trainer.train_net(question))]


def durations(measurements: str | None, rng: random.Random):
    """How long the training of a cell takes, in seconds, by its index."""
    known: dict[int, float] = {}
    if measurements:
        arrays = np.load(measurements)
        columns = (arrays[name].tolist() for name in ("vertices", "edge_bits", "operations", "train_seconds_108"))
        for vertices, edges, operations, seconds in zip(*columns):
            if seconds > 0:
                known[cells.index(tuple(operations[: vertices - 2]), edges)] = seconds
    pool = list(known.values())
    drawn: dict[int, float] = {}

    def seconds(index: int) -> float:
        if index in known:
            return known[index]
        if index not in drawn:
            drawn[index] = rng.choice(pool) if pool else rng.lognormvariate(np.log(MEDIAN), SPREAD)
        return drawn[index]

    return seconds


def trial(
    method: str,
    lookup: str,
    at_once: int,
    seed: int,
    measurements: str | None,
    samples: int | None = None,
    max_nodes: int = 6,
    metric: str = "test",
    table: Path = EMBEDDED,
):
    """One search; (its driver, its pool, what ended it)."""
    trainer = NetTrainer(open_table(table), arch_generator(max_nodes), metric, lookup)
    pool = SimulatedPool(trainer, at_once, durations(measurements, random.Random(seed)))
    driver = Driver(new_method(method, trainer.space, seed), pool, trainer.target_accuracy)
    return driver, pool, driver.run(samples, patience=100_000)


def report_budget(method: str, budget: int, trials: int, at_once_of: tuple[int, ...], table: Path) -> None:
    """Print the table of test errors after so many samples, by how many questions are open."""
    test = open_table(table).columns["test"]
    print("| method | open questions | test error (%) of the best by validation after 20, 50, ... samples |\n|-|-|-|")
    at = [n for n in (20, 50, 100, 150, 300) if n <= budget]
    for at_once in at_once_of:
        errors = []
        for seed in range(trials):
            driver, *_ = trial(method, "isomorphic", at_once, seed, None, budget, 7, "valid", table)
            trace = list(driver.history.training_trace.items())
            errors.append([100 - 100 * test[max(trace[:n], key=lambda pair: pair[1])[0]] for n in at])
        means, deviations = np.mean(errors, axis=0), np.std(errors, axis=0, ddof=1) / trials**0.5
        words = ", ".join(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(means, deviations))
        print(f"| {method} | {at_once} | {words} |", flush=True)


def report_best(method: str, trials: int, at_once_of: tuple[int, ...], measurements: str | None, table: Path) -> None:
    """Print how many samples and hours the best cell takes, by how many questions are open."""
    lookup, alone = "isomorphic" if method == "tuned" else "exact", None
    for at_once in at_once_of:
        found, busy, hours = [], [], []
        for seed in range(trials):  # one after the other, since a search holds a large tree
            driver, pool, outcome = trial(method, lookup, at_once, seed, measurements, table=table)
            found += [driver.history.unique_samples] if outcome == "found" else []
            busy.append(pool.busy / (pool.now * at_once))
            hours.append(pool.now / 3600)
        alone = alone or np.mean(hours)  # of the first
        spread = f"{np.mean(found):,.0f} ± {np.std(found, ddof=1):,.0f}" if len(found) > 1 else "-"
        times = f"{np.mean(busy):.1%} | {np.mean(hours):,.0f} | {np.mean(hours) / alone:.3f}"
        print(f"| {method} | {at_once} | {len(found)} of {trials} | {spread} | {times} |", flush=True)


def main() -> int:
    """Print the table."""
    parser = command.Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=command.whole_number(2), default=30)
    parser.add_argument("--measurements", metavar="FILE")
    parser.add_argument("--methods", default="mcts,tuned")
    parser.add_argument("--budget", type=command.whole_number(20), metavar="SAMPLES")
    parser.add_argument("--at-once", type=sample_numbers, metavar="N,N", help="open questions (else 1,4,16, or 64)")
    parser.add_argument("--dataset", type=Path, default=EMBEDDED)
    options = parser.parse_args()
    at_once_of = options.at_once or ((1, 4, 16) if options.budget else (1, 4, 16, 64))
    if not options.budget:
        columns = "method", "open questions", "found", "unique samples to the best cell", "workers busy", "hours"
        print(f"| {' | '.join(columns)} | of one worker |\n{'|-' * 7}|")
    for method in options.methods.split(","):
        if options.budget:
            report_budget(method, options.budget, options.trials, at_once_of, options.dataset)
        else:
            report_best(method, options.trials, at_once_of, options.measurements, options.dataset)
    return 0


if __name__ == "__main__":
    sys.exit(main())
