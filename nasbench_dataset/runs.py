"""Single trainings of NAS-Bench-101 cells, gathered into a table of means, and what was odd about them.

NAS-Bench-101 trained every cell three times for each of 4, 12, 36 and 108 epochs. One such training is a *run*:
its accuracies and its seconds are those at its end.
"""

import json
from collections import Counter
from typing import Hashable

import numpy as np

from nasbench_dataset import cells
from nasbench_dataset.files import printable
from nasbench_dataset.table import Table, length_for

BUDGETS = (4, 12, 36, 108)  # epochs
RUNS = 3  # of every cell and budget
VALID_RUNS = tuple(f"valid_run{number}" for number in range(RUNS))  # columns of single runs at 108 epochs
LONGEST_TRAINING = 1e9  # seconds, thirty years: whatever is beyond is no time of a training
NUMBERS = {int, float}  # the types that an accuracy or a time has, as files give them; True and False are none
_TEST, _VALID, _SECONDS = range(3)  # the values kept of a run


class Findings:
    """What was odd in a source: how often, and the first example of each kind.

    Parameters
    ----------
    parameters_known : bool
        Whether the source has trainable parameters to compare with ours.

    Attributes
    ----------
    count : Counter
        By the keys of ``KINDS``.
    """

    KINDS = {
        "not stored": "entries whose cell NAS-Bench-101 does not store in that form, left out",
        "parameters": "entries whose trainable parameters disagree with ours, kept",
        "unusable": "runs without an accuracy in 0..1 or a time at their end, left out",
        "budget": f"runs of other numbers of epochs than {', '.join(map(str, BUDGETS))}, left out",
        "duplicate": "runs given before, left out",
        "surplus": f"runs beyond the {RUNS} of their cell and budget, left out",
    }

    def __init__(self, parameters_known: bool = True):
        self.parameters_known = parameters_known
        self.count: Counter = Counter()
        self._example: dict[str, str] = {}

    def note(self, kind: str, cell: tuple[cells.Operations, int], what: str) -> None:
        """Count a finding about a cell."""
        self.count[kind] += 1
        if kind not in self._example:
            self._example[kind] = f"{printable(what)}, {json.dumps(cells.to_dict(*cell))}"

    def odd(self) -> list[str]:
        """A line for each kind that occurred."""
        seen = [kind for kind in self.KINDS if self.count[kind]]
        return [f"{self.count[kind]:,} {self.KINDS[kind]}; first: {self._example[kind]}" for kind in seen]

    def lines(self) -> list[str]:
        """A line for each kind that occurred, and one that says what agreed."""
        lines = self.odd()
        compared = {"not stored": "stored forms"}
        if self.parameters_known:
            compared["parameters"] = "trainable parameters"
        if agreed := [name for kind, name in compared.items() if not self.count[kind]]:
            lines.append(f"{' and '.join(agreed)}: no disagreement")
        return lines


class Runs:
    """The runs of a source.

    Attributes
    ----------
    total : int
        Runs seen, those left out included.
    findings : Findings
    """

    def __init__(self):
        self.total = 0
        self.findings = Findings()
        self._values: dict[int, np.ndarray] = {}  # budget -> float64 [cells, RUNS, 3], NaN: no such run
        self._identities: dict[int, np.ndarray] = {}  # budget -> int64 [cells, RUNS], what tells runs apart
        self._counts: dict[int, bytearray] = {}  # budget -> the number of runs of every cell

    def add(
        self,
        cell: tuple[cells.Operations, int],
        epochs: int,
        test: float,
        valid: float,
        seconds: float,
        parameters: int,
        identity: Hashable,
    ) -> None:
        """Take in a run, or note why it is left out.

        ``identity`` is all that the source has of the run: two runs of a cell can well agree in what is kept.
        An accuracy or a time that is not known is NaN.

        Raises
        ------
        ValueError
            If what should be a number is none.
        """
        if not NUMBERS.issuperset(map(type, (epochs, test, valid, seconds, parameters))):
            raise ValueError("its epochs, accuracies, seconds and trainable parameters are not all numbers")
        self.total += 1
        if epochs not in BUDGETS:
            return self.findings.note("budget", cell, f"{epochs} epochs")
        epochs = int(epochs)  # 108.0, say
        index = cells.index(*cell)
        if index == cells.NOT_A_CELL:
            return self.findings.note("not stored", cell, f"{epochs} epochs")
        if parameters != (ours := cells.trainable_parameters(*cell)):
            self.findings.note("parameters", cell, f"{parameters:,}, not {ours:,}")
        if not (0 <= test <= 1 and 0 <= valid <= 1 and 0 <= seconds < LONGEST_TRAINING):
            return self.findings.note("unusable", cell, f"{epochs} epochs, test {test}, valid {valid}, {seconds} s")
        if odd := self._keep(index, epochs, (test, valid, seconds), hash(identity)):
            self.findings.note(odd, cell, f"{epochs} epochs")

    def _keep(self, index: int, epochs: int, values: tuple[float, float, float], identity: int) -> str | None:
        """Keep a run; where it is one too many, the kind of finding that it is."""
        if epochs not in self._counts:
            self._values[epochs] = np.full((cells.cell_count(), RUNS, 3), np.nan)
            self._identities[epochs] = np.zeros((cells.cell_count(), RUNS), np.int64)
            self._counts[epochs] = bytearray(cells.cell_count())
        known, identities = self._counts[epochs][index], self._identities[epochs][index]
        if identity in identities[:known].tolist():
            return "duplicate"
        if known == RUNS:
            return "surplus"
        self._values[epochs][index, known] = values
        identities[known] = identity
        self._counts[epochs][index] += 1
        return None

    def counts(self, epochs: int) -> np.ndarray:
        """uint8 [cells]: the number of runs of every cell at a budget."""
        return np.frombuffer(self._counts.get(epochs, bytes(cells.cell_count())), np.uint8)

    def table(self, source: str) -> Table:
        """The means over the runs of every cell and the runs themselves, as long as the largest vertex count needs.

        Returns
        -------
        table : Table
            ``test``, ``valid`` and ``train_seconds`` at 108 epochs, for every lower budget B in the source
            ``valid_B`` and ``train_seconds_B``, and ``valid_run0`` to ``valid_run2``, single runs at 108 epochs,
            the worst first. Seconds are rounded to float32.

        Raises
        ------
        ValueError
            If there is no run at 108 epochs.
        """
        known = np.flatnonzero(self.counts(BUDGETS[-1]))
        if not len(known):
            odd = "; ".join(self.findings.odd()) or "nothing was left out"
            wanted = f"a usable one of {BUDGETS[-1]} epochs of a NAS-Bench-101 cell"
            raise ValueError(f"none of its {self.total:,} runs is {wanted} ({odd})")
        length = length_for(max(np.flatnonzero(self.counts(epochs))[-1] for epochs in self._counts))
        columns = {"test": self._mean(BUDGETS[-1], _TEST, length)}
        for epochs in sorted(self._values, reverse=True):
            suffix = "" if epochs == BUDGETS[-1] else f"_{epochs}"
            columns[f"valid{suffix}"] = self._mean(epochs, _VALID, length)
            seconds = self._mean(epochs, _SECONDS, length)
            columns[f"train_seconds{suffix}"] = seconds.astype(np.float32).astype(np.float64)
        single = np.sort(self._values[BUDGETS[-1]][:length, :, _VALID], axis=1)  # whatever their order in the source
        columns |= dict(zip(VALID_RUNS, single.T.copy()))
        return Table(columns, source, measured=True)

    def _mean(self, epochs: int, value: int, length: int) -> np.ndarray:
        counts = self.counts(epochs)[:length]
        total = np.nansum(self._values[epochs][:length, :, value], axis=1)
        return np.divide(total, counts, out=np.full(length, np.nan), where=counts > 0)

    def report(self) -> list[str]:
        """What was found, a line each: the runs of every budget, missing ones, and what was odd."""
        lines = []
        present = np.logical_or.reduce([self.counts(epochs) > 0 for epochs in self._counts])
        for epochs in sorted(self._counts):
            counts = self.counts(epochs)[present]
            absent, short = RUNS * len(counts) - int(counts.sum()), np.count_nonzero(counts < RUNS)
            runs = f"{epochs} epochs: {counts.sum():,} runs of {np.count_nonzero(counts):,} cells"
            lines.append(f"{runs}, {f'{absent:,} missing, of {short:,} cells' if absent else 'none missing'}")
        return lines + self.findings.lines()
