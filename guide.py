"""A linear model of accuracies that guides the search: ours, not the paper's; its Meta-DNN is in meta_dnn.py.

It knows which cells it was shown and what was sampled, no trees. Fitting takes milliseconds and a prediction
microseconds, so that a search can look at many cells for each one that it samples. What it sees of a cell are the
paths from input to output by the operations on them (the path encoding of White et al. 2019, arXiv 1910.11858), the
edges by what they join, and the operations.
"""

import json
import math
import random
from itertools import islice
from typing import Iterator

import numpy as np

import checkpoint
from arch_generator import State
from cell_encodings import INPUT, KINDS, OUTPUT, path_count, path_numbers, paths_and_edges
from nasbench_dataset import cells
from space import Space

SAMPLES_BEFORE_FIT = 100  # unique samples before the first fit
FIT_EVERY, GROWTH = 50, 0.05  # unique samples from fit to fit: so many, or that share of them, if that is more
RIDGE = 3.0  # strength of the L2 penalty
LONGEST_PATH = 4  # inner vertices on a path that is told by its operations; longer ones are rare
MUTANTS = 100  # that it is shown of each cell it chooses
LARGEST_ACCURACY = 0.999  # taken for anything above, whose logarithm runs away

FIRST_EDGE = path_count(LONGEST_PATH)  # features before it: paths
FIRST_OPERATION = FIRST_EDGE + KINDS**2
FEATURES = FIRST_OPERATION + 3
MOST_FEATURES = 32  # of one cell: at most 8 paths, 9 edges and 5 operations


def features_of(operations: cells.Operations, edges: int) -> list[int]:
    """The features of a cell, as numbers below ``FEATURES``; what is counted comes several times."""
    kinds = (INPUT, *operations, OUTPUT)
    pairs = paths_and_edges(len(kinds), edges)[1]
    joined = [FIRST_EDGE + KINDS * kinds[x] + kinds[y] for x, y in pairs]
    return [*path_numbers(operations, edges, LONGEST_PATH), *joined, *(FIRST_OPERATION + o for o in operations)]


class Guide:
    """Predicts cells, and remembers those that it was shown, to choose from them what to sample.

    Ridge regression of -log(1 - accuracy). All follows from the samples, how many of them it was last fitted to, and
    the cells that it was shown, in their order.

    Parameters
    ----------
    space : Space
        Says which cells there are.
    rng : random.Random
        Of the search, which saves it.
    first_fit : int
        The number of samples before the first fit.

    Attributes
    ----------
    fitted_to : int
        The number of samples in the last fit; 0 before the first.
    shown : list of int
        The indices of the cells that it was shown, sampled ones included.
    samples : dict of int to float
        What it was told: index of the cell -> accuracy (0..1), in that order.
    """

    def __init__(self, space: Space, rng: random.Random, first_fit: int = SAMPLES_BEFORE_FIT):
        self.space, self.rng, self.first_fit = space, rng, first_fit
        self.fitted_to = 0
        self.samples: dict[int, float] = {}
        self.shown: list[int] = []
        self._place: dict[int, int] = {}  # in ``shown``
        self._rows = np.full((1024, MOST_FEATURES), FEATURES, np.int16)  # filled up with a feature of weight 0
        self._values = np.full(1024, -np.inf)  # predicted, the mean left out
        self._taken: set[int] = set()  # cells never to be chosen
        self._open_places = np.zeros(1024, bool)  # those of shown cells that can be chosen
        self._weights, self._constant = np.zeros(FEATURES + 1), 0.0

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
        next_fit = max(self.fitted_to + FIT_EVERY, self.fitted_to * (1 + GROWTH))
        return len(self.samples) >= (next_fit if self.ready else self.first_fit)

    def tell(self, index: int, accuracy: float) -> None:
        """A sample: the accuracy (0..1) of the cell with that index. Only the first time counts."""
        self.samples.setdefault(index, accuracy)
        self.take(index)

    def take(self, index: int) -> None:
        """Never choose that cell: it is sampled, or about to be. It can be shown later."""
        self._taken.add(index)
        if index in self._place:
            self._open_places[self._place[index]] = False

    def fit(self, samples: int | None = None) -> None:
        """Fit to the first so many samples, by default to all, and predict every shown cell anew."""
        self.fitted_to = len(self.samples) if samples is None else samples
        indices, accuracies = zip(*islice(self.samples.items(), self.fitted_to))
        for index in indices:
            self._show(index)  # those from before the first fit
        rows = self._rows[[self._place[index] for index in indices]]
        counts = np.zeros((self.fitted_to, FEATURES + 1))
        np.add.at(counts, (np.arange(self.fitted_to)[:, None], rows), 1)
        counts = counts[:, :FEATURES]
        targets = -np.log(1 - np.minimum(accuracies, LARGEST_ACCURACY))
        mean = counts.mean(axis=0)
        gram = counts.T @ counts - self.fitted_to * np.outer(mean, mean) + RIDGE * np.eye(FEATURES)
        weights = np.linalg.solve(gram, (targets - targets.mean()) @ counts)
        self._weights = np.append(weights.round(9), 0.0)  # the last bits depend on the number of threads
        self._constant = (targets.mean() - mean @ weights).round(9)
        self._values[: len(self.shown)] = self._predict(0, len(self.shown))

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
        if index not in self._place:
            self._show(index)
            self._values[len(self.shown) - 1] = self._predict(len(self.shown) - 1, len(self.shown))[0]
        return min(1.0, max(0.0, 1 - math.exp(-self._values[self._place[index]] - self._constant)))

    def choose(self) -> State | None:
        """The most promising of the cells shown and not sampled, now to be sampled; None where there is none.

        What it then is shown, too: the neighbours of that cell, with one operation or edge changed, and mutants of it,
        grown to the largest size before. Of each the stored form, which is in the table under either lookup.
        """
        if not self.promises:
            return None
        index = self.shown[int(np.where(self._open_places, self._values, -np.inf).argmax())]
        self.take(index)
        cell = State(*cells.cell(index), True)
        for graph in [*cells.neighbours(cell.operations, cell.edges), *self._mutants(cell)]:
            form = cells.stored_form(*graph)
            if form is not None and form[1].bit_count() <= self.space.generator.max_edges:
                self.worth(State(*form, True))
        return cell

    def _mutants(self, cell: State) -> Iterator[tuple[cells.Operations, int]]:
        more = self.space.generator.max_nodes - cell.vertices
        for _ in range(MUTANTS):
            new = tuple(self.rng.choices(range(3), k=more))
            yield cells.mutate(*cells.enlarge(cell.operations, cell.edges, new), self.rng)

    def to_save(self) -> bytes:
        """What does not follow from the samples, as JSON."""
        return checkpoint.to_json({"fitted_to": self.fitted_to, "shown": self.shown})

    def restore(self, content: bytes) -> None:
        """Take over what ``to_save`` gave, when it was told the samples already.

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
        for index in shown:
            self._show(index)
        if fitted_to:
            self.fit(fitted_to)

    def _show(self, index: int) -> None:
        """Give a cell a place, if it has none."""
        if index in self._place:
            return
        if len(self.shown) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, FEATURES)])
            self._values = np.concatenate([self._values, np.full_like(self._values, -np.inf)])
            self._open_places = np.concatenate([self._open_places, np.zeros_like(self._open_places)])
        self._place[index] = place = len(self.shown)
        self._open_places[place] = index not in self._taken
        self.shown.append(index)
        features = features_of(*cells.cell(index))
        self._rows[place, : len(features)] = features

    def _predict(self, start: int, end: int) -> np.ndarray:
        """float64 [end - start]: what the features of some shown cells add up to."""
        return self._weights[self._rows[start:end]].sum(axis=1)
