"""How long trainings would take that a table answers at once: seconds added up along a search."""

from method import Answer, Question
from nasbench_dataset import cells
from nasbench_dataset.table import Table
from net_training import NetTrainer
from space import FULL


class TimedTrainer:
    """Answers as a trainer by table does, and adds up the seconds that the trainings took on NAS-Bench-101.

    Parameters
    ----------
    trainer : NetTrainer
    table : Table
        Its ``train_seconds`` are used, and ``train_seconds_4`` and so on; where it lacks those a shorter training is
        taken to last in proportion to its epochs.

    Attributes
    ----------
    seconds : float
        Of all trainings so far.
    at_sample : list of float
        The same when each unique sample was trained.
    known : bool
        Whether the table has seconds at all.
    """

    def __init__(self, trainer: NetTrainer, table: Table):
        self._trainer, self._columns = trainer, table.columns
        self.at_once, self.seconds = trainer.at_once, 0.0
        self.at_sample: list[float] = []
        self.known = "train_seconds" in self._columns
        self._seconds: dict[int, list[float]] = {}  # by epochs; plain floats are read several times faster

    def train_net(self, question: Question) -> Answer:
        """The answer of the trainer; a driver asks for nothing twice."""
        if self.known and question.index != cells.NOT_A_CELL:
            self.seconds += self._column(question.epochs)[question.index]
        if question.epochs == FULL:
            self.at_sample.append(self.seconds)
        return self._trainer.train_net(question)

    def _column(self, epochs: int) -> list[float]:
        if epochs not in self._seconds:
            name = f"train_seconds_{epochs}"
            if name in self._columns:
                column = self._columns[name]
            else:
                column = self._columns["train_seconds"] * (epochs / FULL)
            self._seconds[epochs] = column.tolist()
        return self._seconds[epochs]
