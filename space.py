"""Which cells a search can ask for: the domain, the lookup, and what is in the data set. Knows no accuracies.

Most peers of the tree search work on *graphs*: ``(operations, edges)`` of exactly ``max_nodes`` vertices, as in
NAS-Bench-101 (Ying et al. 2019). Vertices on no way from input to output are cut off before a cell is looked up, so a
graph also stands for the smaller cells.
"""

import random
from typing import Callable, Iterator, TypeVar

import numpy as np

from arch_generator import State, arch_generator
from nasbench_dataset import InputError, cells

FULL = 108  # epochs of a full training on NAS-Bench-101
PARTIAL = (4, 12, 36)  # its other budgets
LOOKUPS = ("exact", "isomorphic")

# What is drawn until it is in the data set is drawn so often at most; in NAS-Bench-101 itself 7 % of all graphs are, or
# more, at any limits. Each time that this was in vain it becomes a tenth, but no less than enough for any mutation.
DRAWS, LEAST_DRAWS = 300_000, 3_000

Graph = tuple[cells.Operations, int]
Drawn = TypeVar("Drawn", Graph, State)


class Space:
    """The cells of one domain that have an accuracy, and how they are told apart.

    Parameters
    ----------
    generator : arch_generator
        Its limits bound the domain.
    lookup : str
        ``"exact"``: as in the original, only the stored form of a cell is in the data set.
        ``"isomorphic"``: any labelled form of it is; dangling vertices do not matter.
    present : bool [n], optional
        Whether the data set has the cell of each index; by default it has all 423,624.
    epochs : tuple of int
        After how many epochs, beside 108, accuracies can be asked for.
    draws : int
        How often graphs, labelled cells and mutants are drawn until one is in the data set. A data set of few cells is
        not met by chance: after so many draws a uniformly random cell of the data set stands in.

    Raises
    ------
    InputError
        If there is no such lookup.
    """

    def __init__(
        self,
        generator: arch_generator,
        lookup: str = "exact",
        present: np.ndarray | None = None,
        epochs: tuple[int, ...] = (),
        draws: int = DRAWS,
    ):
        if lookup not in LOOKUPS:
            raise InputError(f"unknown lookup {lookup!r}; choose one of {', '.join(LOOKUPS)}")
        self.generator, self.lookup, self.epochs = generator, lookup, epochs
        present = np.ones(cells.cell_count(), bool) if present is None else present
        self._present = present[: cells.cell_count(generator.max_nodes)]
        self._is_present = self._present.tobytes()  # read several times faster, one at a time
        self._all_cells: np.ndarray | None = None
        self._draws = draws
        self.vertices = generator.max_nodes
        self.operation_count = self.vertices - 2
        self.edge_count = self.vertices * (self.vertices - 1) // 2

    # --- looking up ---------------------------------------------------------------------------

    def looked_up(self, state: State) -> Graph | None:
        """The form of a cell under which the lookup in use finds it; None where there is none."""
        if self.lookup == "isomorphic":
            return cells.stored_form(state.operations, state.edges)
        return state.operations, state.edges

    def index(self, state: State) -> int:
        """The index of a cell under the lookup in use; ``cells.NOT_A_CELL`` outside the limits and the data set."""
        looked_up = None if state.edges.bit_count() > self.generator.max_edges else self.looked_up(state)
        if looked_up is None:
            return cells.NOT_A_CELL
        index = cells.index(*looked_up)
        return index if 0 <= index < len(self._is_present) and self._is_present[index] else cells.NOT_A_CELL

    def has(self, cell: State) -> bool:
        """Whether the cell is in the data set, within the limits."""
        return self.index(cell) != cells.NOT_A_CELL

    # --- all cells ----------------------------------------------------------------------------

    def within(self, vertices: int) -> np.ndarray:
        """bool [n]: which of the stored cells of that size, in index order, are in the data set and the limits."""
        codes = cells.enumerate_codes(vertices)
        known = self._present[cells.first_index(vertices) : cells.cell_count(vertices)]
        found = np.zeros(len(codes), bool)
        found[: len(known)] = known
        return found & (np.bitwise_count(codes // 3 ** (vertices - 2)) <= self.generator.max_edges)

    def all_cells(self) -> np.ndarray:
        """int64 [n]: the indices of all cells in the data set, within the limits."""
        if self._all_cells is None:
            self._all_cells = np.flatnonzero(np.concatenate([self.within(v) for v in range(2, self.vertices + 1)]))
        return self._all_cells

    def are_different_cells(self, indices: list[int]) -> bool:
        """Whether all are indices of cells in the data set and within the limits, and none comes twice."""
        return len(set(indices)) == len(indices) and bool(np.isin(indices, self.all_cells()).all())

    def groups(self, vertices: int) -> Iterator[tuple[cells.Operations, np.ndarray]]:
        """The edge sets (int64) of the cells of that size, for each list of operations."""
        codes = cells.enumerate_codes(vertices)[self.within(vertices)]
        edges, number = np.divmod(codes, 3 ** (vertices - 2))
        for row, operations in enumerate(cells.operation_table(vertices).tolist()):
            yield tuple(operations), edges[number == row]

    # --- graphs -------------------------------------------------------------------------------

    def cell(self, graph: Graph) -> State:
        """The cell that a graph stands for; where input and output are not connected, one that no data set has."""
        return State(*(cells.prune(*graph) or graph), True)

    def graph(self, rng: random.Random) -> Graph:
        """A uniformly random graph, drawn again until it stands for a cell of the data set."""

        def draw() -> Graph:
            return tuple(rng.choices(range(3), k=self.operation_count)), rng.getrandbits(self.edge_count)

        return self._drawn(draw, self.cell) or self._grown_cell(rng)

    def labelled_cells(self, rng: random.Random) -> Iterator[State]:
        """Uniformly random labelled cells of 2 to ``max_nodes`` vertices that are in the data set.

        Under the exact lookup each cell of the data set has one labelling, so that its cells are equally likely.
        """
        sizes = range(2, self.vertices + 1)
        labellings = [3 ** (v - 2) << v * (v - 1) // 2 for v in sizes]

        def draw() -> State:
            (vertices,) = rng.choices(sizes, labellings)
            operations = tuple(rng.choices(range(3), k=vertices - 2))
            return State(operations, rng.getrandbits(vertices * (vertices - 1) // 2), True)

        while True:
            if self.lookup == "exact":
                yield self._any_cell(rng)
            else:
                yield self._drawn(draw, lambda cell: cell) or self._any_cell(rng)

    def neighbours(self, graph: Graph) -> list[Graph]:
        """All graphs with one operation or one edge changed that stand for cells of the data set."""
        return [graph for graph in cells.neighbours(*graph) if self.has(self.cell(graph))]

    def mutate(self, graph: Graph, rng: random.Random, edge_chance: float | None = None) -> Graph:
        """What ``cells.mutate`` makes of a graph, tried until that is in the data set."""
        return self._drawn(lambda: cells.mutate(*graph, rng, edge_chance), self.cell) or self._grown_cell(rng)

    def grown(self, cell: Graph) -> Graph:
        """A graph that stands for a smaller cell: vertices without edges are put before the output."""
        return cells.enlarge(*cell, (0,) * (self.operation_count - len(cell[0])))

    def _drawn(self, draw: Callable[[], Drawn], cell: Callable[[Drawn], State]) -> Drawn | None:
        """What ``draw`` gives, drawn again until it stands for a cell of the data set; None where that is hopeless."""
        for _ in range(self._draws):
            drawn = draw()
            if self.has(cell(drawn)):
                return drawn
        self._draws = max(LEAST_DRAWS, self._draws // 10)
        return None

    def _any_cell(self, rng: random.Random) -> State:
        """A uniformly random cell of the data set."""
        everything = self.all_cells()
        return State(*cells.cell(int(everything[rng.randrange(len(everything))])), True)

    def _grown_cell(self, rng: random.Random) -> Graph:
        operations, edges, _ = self._any_cell(rng)
        return self.grown((operations, edges))
