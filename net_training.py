"""What "training" a network means here: looking its accuracy up, and keeping count.

``NetTrainer`` knows one table, the target of the search, and what has been sampled so far. It knows
nothing of trees. On NAS-Bench-101 a look-up replaces the 108 epochs that were trained once and for all
by Ying et al. 2019.

The targets below are the best cells by mean test accuracy; the listed one is used when it is the best
cell of the table within the domain under the chosen metric, else the table's own best cell there.
"""

import hashlib
from typing import Iterator

import numpy as np

from arch_generator import State, arch_generator
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import Table

# The target (t_adj_mat, t_node_list) for every MAX_NODES: published best cells of NAS-Bench-101.
TARGETS = {
    3: {
        "t_adj_mat": [[0, 1, 1], [0, 0, 1], [0, 0, 0]],
        "t_node_list": ["input", "conv3x3-bn-relu", "output"],
    },
    4: {
        "t_adj_mat": [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
        "t_node_list": ["input", "conv3x3-bn-relu", "conv1x1-bn-relu", "output"],
    },
    5: {
        "t_adj_mat": [[0, 1, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
        "t_node_list": ["input", "conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "output"],
    },
    6: {
        "t_adj_mat": [
            [0, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0],
        ],
        "t_node_list": ["input", *["conv3x3-bn-relu"] * 4, "output"],
    },
    7: {
        "t_adj_mat": [
            [0, 1, 1, 0, 0, 1, 1],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0, 0],
        ],
        "t_node_list": [
            "input",
            "conv1x1-bn-relu",
            "conv3x3-bn-relu",
            "maxpool3x3",
            "conv3x3-bn-relu",
            "conv3x3-bn-relu",
            "output",
        ],
    },
}

LOOKUPS = ("exact", "isomorphic")


def target_state(max_nodes: int) -> State:
    """The listed target for a MAX_NODES, as a finished state."""
    target = TARGETS[max_nodes]
    operations, edges = cells.from_dict({"adj_mat": target["t_adj_mat"], "node_list": target["t_node_list"]})
    return State(operations, edges, True)


class NetTrainer:
    """Looks accuracies up in a table and keeps count of what was sampled.

    Parameters
    ----------
    table : Table
    generator : arch_generator
        Its limits bound the domain in which the target is the best cell.
    metric : str
        The column of the table that counts as accuracy.
    lookup : str
        ``"exact"``: as in the original, only the stored form of a cell is in the table.
        ``"isomorphic"``: any labelled form of it is; dangling vertices do not matter.

    Attributes
    ----------
    training_trace : dict of int to float
        The unique samples: index of the cell -> accuracy, in the order of sampling.
    counter : int
        All look-ups, repeated ones and those of cells outside the table included.
    best_trace : list of (float, int)
        Each new best accuracy and the number of unique samples at that moment, it included.
    best, target : State or None, State
        The best sampled cell so far and the one that ends the search, both in stored form.

    Raises
    ------
    InputError
        If the table has no such column or no cell within the limits.
    """

    def __init__(self, table: Table, generator: arch_generator, metric: str = "test", lookup: str = "exact"):
        if metric not in table.columns:
            raise InputError(f"the table has no column {metric!r}; it has {', '.join(table.columns)}: choose by --metric")
        if lookup not in LOOKUPS:
            raise InputError(f"unknown lookup {lookup!r}; choose one of {', '.join(LOOKUPS)}")
        self.columns, self.accuracies = table.columns, table.columns[metric]
        self.generator, self.metric, self.lookup = generator, metric, lookup
        self._values = self.accuracies.tolist()  # plain floats are read several times faster, one at a time
        self.training_trace: dict[int, float] = {}
        self.counter = 0
        self.best_trace: list[tuple[float, int]] = []
        self.best: State | None = None
        self._choose_target()

    def _choose_target(self) -> None:
        best = max((self._best_of(v) for v in range(2, self.generator.max_nodes + 1)), key=lambda pair: pair[0])
        accuracy, best_index = best
        if best_index == cells.NOT_A_CELL:
            raise InputError(
                f"the table has no cell with at most {self.generator.max_nodes} vertices and"
                f" {self.generator.max_edges} edges, so there is no target: use another table or wider limits"
            )
        listed = target_state(self.generator.max_nodes)
        within = listed.edges.bit_count() <= self.generator.max_edges
        self.target_is_listed = within and self.accuracy_of(listed) == accuracy
        self.target = listed if self.target_is_listed else State(*cells.cell(best_index), True)
        self.target_accuracy = accuracy

    def _best_of(self, vertices: int) -> tuple[float, int]:
        """The best accuracy and its index among the cells with that many vertices, within MAX_EDGES."""
        values = self.cell_values(vertices)
        if not np.any(values >= 0):
            return -1.0, cells.NOT_A_CELL
        position = int(np.nanargmax(values))
        return float(values[position]), cells.first_index(vertices) + position

    def cell_values(self, vertices: int) -> np.ndarray:
        """float64 [n]: accuracies of all stored cells of that size, in index order.

        NaN where the table has none or the cell has more than MAX_EDGES edges.
        """
        codes = cells.enumerate_codes(vertices)
        values = np.full(len(codes), np.nan)
        known = self.accuracies[cells.first_index(vertices) : cells.cell_count(vertices)]
        values[: len(known)] = known
        values[np.bitwise_count(codes // 3 ** (vertices - 2)) > self.generator.max_edges] = np.nan
        return values

    def all_cells(self) -> np.ndarray:
        """int64 [n]: the indices of all cells in the table, within the limits."""
        values = [self.cell_values(v) for v in range(2, self.generator.max_nodes + 1)]
        return np.flatnonzero(~np.isnan(np.concatenate(values)))

    def groups(self, vertices: int) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """The edge sets (int64) of the cells in the table within the limits, for each list of operations."""
        codes = cells.enumerate_codes(vertices)[~np.isnan(self.cell_values(vertices))]
        edges, number = np.divmod(codes, 3 ** (vertices - 2))
        for row, operations in enumerate(cells.operation_table(vertices).tolist()):
            yield tuple(operations), edges[number == row]

    def looked_up(self, state: State) -> tuple[cells.Operations, int] | None:
        """The form of a cell under which the lookup in use finds it; None where there is none."""
        if self.lookup == "isomorphic":
            return cells.stored_form(state.operations, state.edges)
        return state.operations, state.edges

    def index(self, state: State) -> int:
        """The index of a cell under the lookup in use; ``cells.NOT_A_CELL`` where the table lacks it."""
        looked_up = self.looked_up(state)
        if looked_up is None:
            return cells.NOT_A_CELL
        index = cells.index(*looked_up)
        present = 0 <= index < len(self._values) and self._values[index] == self._values[index]  # NaN: absent
        return index if present else cells.NOT_A_CELL

    def accuracy_of(self, state: State) -> float | None:
        """The accuracy of a cell, uncounted; None where it is not in the table."""
        index = self.index(state)
        return None if index == cells.NOT_A_CELL else self._values[index]

    def train_net(self, state: State) -> float:
        """Sample a finished cell: its accuracy (0..1), or 0 where it is not in the table."""
        self.counter += 1
        index = self.index(state)
        if index == cells.NOT_A_CELL:
            return 0.0
        if index not in self.training_trace:
            self._take(index)
        return self._values[index]

    def _take(self, index: int) -> None:
        """A new unique sample."""
        accuracy = self.training_trace[index] = self._values[index]
        if not self.best_trace or accuracy > self.best_trace[-1][0]:
            self.best_trace.append((accuracy, self.unique_samples))
            self.best = State(*cells.cell(index), True)

    def restore(self, samples: list[int], counter: int) -> None:
        """Take in the unique samples of a saved search, in their order, and its number of look-ups.

        Raises
        ------
        ValueError
            If a sample is not in the table, is outside the limits or comes twice, or there are too few look-ups.
        """
        if not self.are_different_cells(samples) or counter < len(samples):
            raise ValueError("samples: not different cells of the table, or more than look-ups")
        for index in samples:
            self._take(index)
        self.counter = counter

    def are_different_cells(self, indices: list[int]) -> bool:
        """Whether all are indices of cells in the table and within the limits, and none comes twice."""
        return len(set(indices)) == len(indices) and bool(np.isin(indices, self.all_cells()).all())

    def known_accuracy(self, state: State) -> float | None:
        """The accuracy of a cell that was sampled already; None where it was not. Not counted as a look-up."""
        return self.training_trace.get(self.index(state))

    def fingerprint(self) -> str:
        """SHA-256 of the accuracies; NaN, which has many bit patterns, counts as -1."""
        return hashlib.sha256(np.nan_to_num(self.accuracies, nan=-1.0).tobytes()).hexdigest()

    @property
    def unique_samples(self) -> int:
        """How many different cells of the table were sampled."""
        return len(self.training_trace)

    @property
    def best_accuracy(self) -> float:
        """The best sampled accuracy; 0 before the first sample."""
        return self.best_trace[-1][0] if self.best_trace else 0.0

    @property
    def found(self) -> bool:
        """Whether the search has its target. A cell that ties with it is as good, and no new best may follow."""
        return bool(self.best_trace) and self.best_accuracy >= self.target_accuracy
