"""Answers of a table as NAS-Bench-101's own interface gives them: one of the three runs of a cell, not their mean."""

import hashlib

import numpy as np

from arch_generator import arch_generator
from nasbench_dataset import InputError
from nasbench_dataset.runs import VALID_RUNS
from nasbench_dataset.table import Table
from net_training import NetTrainer

NOISY = "noisy-valid"  # the metric of such a search, as its saves and trials name it


def metric_of(options) -> str:
    """What the options of a command line say that a table answers: the metric, or with --noisy single runs."""
    if options.noisy and options.metric == "test":
        raise InputError("--noisy answers with single runs, whose validation accuracies guide: leave --metric out")
    return NOISY if options.noisy else options.metric or "test"


def trainer_by(table: Table, generator: arch_generator, metric: str, lookup: str, seed: int = 0) -> NetTrainer:
    """Whoever answers with a metric of a table, single runs drawn by that seed."""
    if metric == NOISY:
        return NoisyTrainer(table, generator, lookup, seed)
    return NetTrainer(table, generator, metric, lookup)


class NoisyTrainer(NetTrainer):
    """Answers each cell by the validation accuracy of one of its runs, drawn by the search's seed.

    As in a search that trains, a cell has one answer, nobody knows which cell is the best one, and so there is no
    target. Where a run is missing, the mean stands in.

    Raises
    ------
    InputError
        If the table has no single runs.
    """

    def __init__(self, table: Table, generator: arch_generator, lookup: str, seed: int = 0):
        if missing := [name for name in VALID_RUNS if name not in table.columns]:
            raise InputError(f"the table has no {', '.join(missing)}: --noisy needs the single runs of a cell")
        super().__init__(table, generator, "valid", lookup)
        self.metric, self.target_accuracy = NOISY, None
        self._means, self._runs = self.accuracies, np.array([table.columns[name] for name in VALID_RUNS])
        self.draw(seed)

    def draw(self, seed: int) -> None:
        """Which run answers for each cell; the same for the same seed."""
        chosen = np.random.default_rng(seed).integers(len(VALID_RUNS), size=len(self._means))
        runs = self._runs[chosen, np.arange(len(chosen))]
        self.accuracies = np.where(np.isnan(runs), self._means, runs)
        self._values = self.accuracies.tolist()

    def fingerprint(self) -> str:
        """SHA-256 of means and runs, whatever the seed."""
        return hashlib.sha256(np.nan_to_num(np.vstack([self._means, self._runs]), nan=-1.0).tobytes()).hexdigest()

    def goal(self) -> list[str]:
        """No target."""
        return ["target   none: an accuracy is that of one run, and nobody knows which cell is the best"]
