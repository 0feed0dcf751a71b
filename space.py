"""Which cells a search can ask for: the domain, the lookup, and what is in the data set. Knows no accuracies.

Most peers of the tree search work on *graphs*: ``(operations, edges)`` of exactly ``max_nodes`` vertices, as in
NAS-Bench-101 (Ying et al. 2019). Vertices on no way from input to output are cut off before a cell is looked up, so a
graph also stands for the smaller cells.
"""

import random
from typing import Iterator

import numpy as np

from arch_generator import State, arch_generator
from nasbench_dataset import InputError, cells

FULL = 108  # epochs of a full training on NAS-Bench-101
PARTIAL = (4, 12, 36)  # its other budgets
LOOKUPS = ("exact", "isomorphic")

Graph = tuple[cells.Operations, int]


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
    epochs : list of int
        After how many epochs, beside 108, accuracies can be asked for.

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
    ):
        if lookup not in LOOKUPS:
            raise InputError(f"unknown lookup {lookup!r}; choose one of {', '.join(LOOKUPS)}")
        self.generator, self.lookup, self.epochs = generator, lookup, epochs
        present = np.ones(cells.cell_count(), bool) if present is None else present
        self._present = present[: cells.cell_count(generator.max_nodes)]
        self._is_present = self._present.tobytes()  # read several times faster, one at a time
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
        return np.flatnonzero(np.concatenate([self.within(v) for v in range(2, self.vertices + 1)]))

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
        while True:
            operations = tuple(rng.choices(range(3), k=self.operation_count))
            graph = operations, rng.getrandbits(self.edge_count)
            if self.has(self.cell(graph)):
                return graph

    def labelled_cells(self, rng: random.Random) -> Iterator[State]:
        """Uniformly random labelled cells of 2 to ``max_nodes`` vertices that are in the data set.

        Under the exact lookup each cell of the data set has one labelling, so that its cells are equally likely.
        """
        if self.lookup == "exact":
            everything = self.all_cells()
            while True:
                yield State(*cells.cell(int(everything[rng.randrange(len(everything))])), True)
        sizes = range(2, self.vertices + 1)
        labellings = [3 ** (v - 2) << v * (v - 1) // 2 for v in sizes]
        while True:
            (vertices,) = rng.choices(sizes, labellings)
            operations = tuple(rng.choices(range(3), k=vertices - 2))
            cell = State(operations, rng.getrandbits(vertices * (vertices - 1) // 2), True)
            if self.has(cell):
                yield cell

    def neighbours(self, graph: Graph) -> list[Graph]:
        """All graphs with one operation or one edge changed that stand for cells of the data set."""
        return [graph for graph in cells.neighbours(*graph) if self.has(self.cell(graph))]

    def mutate(self, graph: Graph, rng: random.Random) -> Graph:
        """What ``cells.mutate`` makes of a graph, tried until that is in the data set."""
        while True:
            mutant = cells.mutate(*graph, rng)
            if self.has(self.cell(mutant)):
                return mutant
