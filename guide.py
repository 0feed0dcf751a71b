"""What guides the tuned search: a model of all samples says which cell to sample next. Ours, not the paper's.

It knows which cells it was shown and what was sampled, no trees. The model is another's: a Bayesian linear one
(linear_model.py), or an ensemble of networks (the Meta-DNN's place in MCTS_metaDNN.py). Fits take milliseconds and a
prediction microseconds, so that a search can look at many cells for each one that it samples.
"""

import json
import math
import random
from itertools import islice
from typing import Iterable, Iterator, Protocol

import numpy as np

import checkpoint
from arch_generator import State
from cell_encodings import Cell
from nasbench_dataset import cells
from space import Space

GROWTH = 0.02  # unique samples from fit to fit: one, or that share of them, if that is more
TOP = 5  # best samples of which it is shown further mutants each time that it chooses
MUTANTS, FURTHER = 60, 10  # that it is shown of each cell it chooses; of each of the best each time
ANYWHERE = 5  # random graphs, likewise
SHORTLIST = 300  # cells of the largest prediction among which it chooses by expected improvement
LARGEST_ACCURACY = 0.999  # taken for anything above, whose logarithm runs away
OUTLIER = 1.5  # quartile distances below the median at which a target is cut off: failures tell little


class Model(Protocol):
    """What predicts. Cells are encoded once, as rows of ``width`` numbers.

    Attributes
    ----------
    width, dtype, empty : int, type, number
        Of an encoded cell; what a row is filled with before.
    """

    width: int
    dtype: type
    empty: float

    def encode(self, cell: Cell) -> np.ndarray:
        """[width]: a cell as numbers."""

    def fit(self, rows: np.ndarray, targets: np.ndarray) -> None:
        """Fit to encoded cells and their targets (float [n], the larger the better)."""

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """float64 [n]: predicted targets."""

    def spread(self, rows: np.ndarray, pending: np.ndarray) -> np.ndarray:
        """float64 [n]: the standard deviations of targets, were those of the pending cells known."""


class Guide:
    """Predicts cells, and remembers those that it was shown, to choose from them what to sample.

    The model's target is -log(1 - accuracy). All follows from the samples, how many of them it was last fitted to, and
    the cells that it was shown, in their order.

    Parameters
    ----------
    space : Space
        Says which cells there are.
    rng : random.Random
        Of the search, which saves it.
    first_fit : int
        The number of samples before the first fit.
    model : Model

    Attributes
    ----------
    fitted_to : int
        The number of samples in the last fit; 0 before the first.
    shown : list of int
        The indices of the cells that it was shown, sampled ones included.
    samples : dict of int to float
        What it was told: index of the cell -> accuracy (0..1), in that order.
    """

    def __init__(self, space: Space, rng: random.Random, first_fit: int, model: Model):
        self.space, self.rng, self.first_fit, self.model = space, rng, first_fit, model
        self.fitted_to = 0
        self.samples: dict[int, float] = {}
        self.shown: list[int] = []
        self._place: dict[int, int] = {}  # in ``shown``
        self._rows = np.full((1024, self.model.width), self.model.empty, self.model.dtype)
        self._values = np.full(1024, -np.inf)  # predicted
        self._predicted = 0  # of the shown cells, how many have a prediction
        self._taken: set[int] = set()  # cells never to be chosen
        self._pending: dict[int, None] = {}  # of them, those whose accuracy is not known yet
        self._open_places = np.zeros(1024, bool)  # those of shown cells that can be chosen

    @property
    def ready(self) -> bool:
        """Whether it has been fitted."""
        return self.fitted_to > 0

    @property
    def promises(self) -> bool:
        """Whether it was shown a cell that it has not chosen yet."""
        return bool(self._open_places.any())

    @property
    def due(self) -> bool:
        """Whether there are enough new samples for a fit."""
        next_fit = max(self.fitted_to + 1, self.fitted_to * (1 + GROWTH))
        return len(self.samples) >= (next_fit if self.ready else self.first_fit)

    def tell(self, index: int, accuracy: float) -> None:
        """A sample: the accuracy (0..1) of the cell with that index. Only the first time counts."""
        self.samples.setdefault(index, accuracy)
        self.take(index)
        self._pending.pop(index, None)

    def take(self, index: int) -> None:
        """Never choose that cell: it is sampled, or about to be. It can be shown later."""
        if index not in self._taken and index != cells.NOT_A_CELL:
            self._pending[index] = None
        self._taken.add(index)
        if index in self._place:
            self._open_places[self._place[index]] = False

    def give_up(self, index: int) -> None:
        """The accuracy of a cell that was taken will not come."""
        self._pending.pop(index, None)

    def fit(self, samples: int | None = None) -> None:
        """Fit to the first so many samples, by default to all, and predict every shown cell anew."""
        self.fitted_to = len(self.samples) if samples is None else samples
        indices, accuracies = zip(*islice(self.samples.items(), self.fitted_to))
        for index in indices:
            self._show(index)  # those from before the first fit
        rows = self._rows[[self._place[index] for index in indices]]
        self._targets = targets_of(np.array(accuracies))
        self.model.fit(rows, self._targets)
        self._predicted = 0
        self._predict()

    def fit_if_due(self) -> None:
        """Fit where there are enough new samples."""
        if self.due:
            self.fit()

    def worth(self, cell: State) -> float:
        """The accuracy of a sampled cell; the prediction of another, which it is thereby shown; 0 outside the space."""
        index = self.space.index(cell)
        if index == cells.NOT_A_CELL:
            return 0.0
        known = self.samples.get(index)
        if known is not None:
            return known
        self._show(index)
        self._predict()
        return min(1.0, max(0.0, 1 - math.exp(-self._values[self._place[index]])))

    def anything(self) -> State | None:
        """The cell of a random graph to be sampled before the first fit, stored; None where it meets none that is new.

        Those of graphs have fewer vertices than most cells, and are better to begin with (docs/small-budgets.md).
        """
        if self.ready:
            return None
        for _ in range(self.first_fit):
            index = self.space.index(self.space.cell(self.space.graph(self.rng)))
            if index not in self._taken:
                self.take(index)
                return State(*cells.cell(index), True)
        return None

    def choose(self) -> State | None:
        """The most promising of the cells shown and not sampled, now to be sampled; None where there is none.

        It is first shown mutants of the best samples and random graphs; of what it then chooses the neighbours, with
        one operation or edge changed, and mutants, grown to the largest size before. Of each the stored form, which is
        in the table under either lookup.
        """
        if not self.ready:
            return None
        for index in sorted(self.samples, key=self.samples.get, reverse=True)[:TOP]:
            self._show_all(self._mutants(cells.cell(index), FURTHER))
        self._show_all(self.space.graph(self.rng) for _ in range(ANYWHERE))
        self._predict()
        if not self.promises:
            return None
        index = self._most_promising()
        self.take(index)
        cell = cells.cell(index)
        self._show_all(cells.neighbours(*cell))
        self._show_all(self._mutants(cell, MUTANTS))
        self._predict()
        return State(*cell, True)

    def _most_promising(self) -> int:
        """The index of the cell that is expected to exceed the best sample by most."""
        places = np.flatnonzero(self._open_places[: len(self.shown)])
        if len(places) > SHORTLIST:
            values = self._values[places]
            smallest = np.partition(values, -SHORTLIST)[-SHORTLIST]
            above, equal = places[values > smallest], places[values == smallest]
            places = np.sort(np.concatenate([above, equal[: SHORTLIST - len(above)]]))  # whatever the processor
        pending = [self._place[index] for index in self._pending if index in self._place]
        spread = self.model.spread(self._rows[places], self._rows[pending])
        gain = expected_improvement(self._values[places], spread, self._targets.max())
        return self.shown[places[int(gain.round(9).argmax())]]

    def _show_all(self, graphs: Iterator[Cell]) -> None:
        for graph in graphs:
            form = cells.stored_form(*graph)
            if form is not None:
                index = self.space.index(State(*form, True))
                if index != cells.NOT_A_CELL:
                    self._show(index)

    def _mutants(self, cell: Cell, count: int) -> Iterator[Cell]:
        more = self.space.generator.max_nodes - 2 - len(cell[0])
        for _ in range(count):
            new = tuple(self.rng.choices(range(3), k=more))
            yield cells.mutate(*cells.enlarge(*cell, new), self.rng)

    def to_save(self) -> bytes:
        """What does not follow from the samples, as JSON."""
        return checkpoint.to_json({"fitted_to": self.fitted_to, "shown": self.shown})

    def restore(self, content: bytes, failed: Iterable[int] = ()) -> None:
        """Take over what ``to_save`` gave, when it was told the samples already, and never choose the failed cells.

        Raises
        ------
        ValueError
            If it is anything else.
        """
        data = json.loads(content)
        if type(data) is not dict or data.keys() != {"fitted_to", "shown"}:
            raise ValueError("guide: it does not hold just fitted_to, shown")
        (fitted_to,) = checkpoint.numbers([data["fitted_to"]], int, 0, len(self.samples), "guide")
        shown = checkpoint.numbers(data["shown"], int, 0, cells.cell_count() - 1, "guide")
        if not self.space.are_different_cells(shown):
            raise ValueError("guide: not different cells of the table")
        if not (fitted_to >= self.first_fit and shown or fitted_to == len(shown) == 0):
            raise ValueError("guide: cells are shown from the first fit on, and not before")
        self._taken.update(failed)
        for index in shown:
            self._show(index)
        if fitted_to:
            self.fit(fitted_to)

    def _show(self, index: int) -> None:
        """Give a cell a place, if it has none."""
        if index in self._place:
            return
        if len(self.shown) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, self.model.empty)])
            self._values = np.concatenate([self._values, np.full_like(self._values, -np.inf)])
            self._open_places = np.concatenate([self._open_places, np.zeros_like(self._open_places)])
        self._place[index] = place = len(self.shown)
        self._open_places[place] = index not in self._taken
        self.shown.append(index)
        self._rows[place] = self.model.encode(cells.cell(index))

    def _predict(self) -> None:
        """Predict the cells that it was shown since the last time."""
        if self.ready and self._predicted < len(self.shown):
            new = slice(self._predicted, len(self.shown))
            self._values[new] = self.model.mean(self._rows[new])
            self._predicted = len(self.shown)


def targets_of(accuracies: np.ndarray) -> np.ndarray:
    """float64 [n]: what a model is to predict, -log(1 - accuracy), but no outliers below."""
    targets = -np.log(1 - np.minimum(accuracies, LARGEST_ACCURACY))
    low, middle, high = np.quantile(targets, (0.25, 0.5, 0.75))
    return np.maximum(targets, middle - OUTLIER * (high - low))


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """float64 [n]: by how much normal numbers with that mean and deviation exceed the best, on average."""
    above = (mean - best) / spread
    chance = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in above.tolist()])
    return spread * (np.exp(-(above**2) / 2) / math.sqrt(2 * math.pi) + above * chance)
