"""What a search has sampled so far, what that cost, and the best of it. Knows no accuracies but those it was given."""

from arch_generator import State
from nasbench_dataset import cells
from space import FULL


class History:
    """The record of one search, kept by its driver.

    Attributes
    ----------
    training_trace : dict of int to float
        The unique samples: index of the cell -> accuracy (0..1), in the order of sampling.
    counter : int
        All questions that were asked, repeated ones and those for cells outside the data set included.
    best_trace : list of (float, int)
        Each new best accuracy and the number of unique samples at that moment, it included.
    costs : list of float
        The cost at each new best.
    best : State or None
        The best sampled cell so far, in stored form.
    failed : set of int
        Cells whose training failed.
    """

    def __init__(self):
        self.training_trace: dict[int, float] = {}
        self.counter = 0
        self.best_trace: list[tuple[float, int]] = []
        self.costs: list[float] = []
        self.best: State | None = None
        self.failed: set[int] = set()
        self._partial: dict[tuple[int, int], float] = {}  # accuracies after fewer epochs
        self._partial_epochs = 0

    def known(self, index: int, epochs: int = FULL) -> float | None:
        """The accuracy of a cell that was sampled already; None where it was not."""
        return self.training_trace.get(index) if epochs == FULL else self._partial.get((index, epochs))

    def take(self, index: int, accuracy: float, epochs: int = FULL) -> None:
        """A new sample: a cell that was not sampled before, or not after so many epochs."""
        if epochs != FULL:
            self._partial[index, epochs] = accuracy
            self._partial_epochs += epochs
            return
        self.training_trace[index] = accuracy
        if not self.best_trace or accuracy > self.best_trace[-1][0]:
            self.best_trace.append((accuracy, self.unique_samples))
            self.costs.append(self.cost)
            self.best = State(*cells.cell(index), True)

    def restore(self, samples: dict[int, float], counter: int) -> None:
        """Take in the unique samples of a saved search, in their order, and its number of questions.

        Raises
        ------
        ValueError
            If there are fewer questions than samples.
        """
        if counter < len(samples):
            raise ValueError("more samples than look-ups")
        for index, accuracy in samples.items():
            self.take(index, accuracy)
        self.counter = counter

    @property
    def unique_samples(self) -> int:
        """How many different cells were sampled."""
        return len(self.training_trace)

    @property
    def cost(self) -> float:
        """Unique samples and failed trainings; a training of fewer epochs than 108 counts in proportion."""
        return len(self.training_trace) + len(self.failed) + self._partial_epochs / FULL

    @property
    def best_accuracy(self) -> float:
        """The best sampled accuracy; 0 before the first sample."""
        return self.best_trace[-1][0] if self.best_trace else 0.0
