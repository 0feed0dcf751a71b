"""What "training" a network means here: looking its accuracy up in a table, at once.

On NAS-Bench-101 a look-up replaces the 108 epochs that were trained once and for all by Ying et al. 2019.
``NetTrainer`` knows one table and the target of the search, nothing of trees, nor of what was sampled (``history.py``).

The targets below are the best cells by mean test accuracy; the listed one is used when it is the best
cell of the table within the domain under the chosen metric, else the table's own best cell there.
"""

import hashlib
import json
import math

import numpy as np

from arch_generator import State, arch_generator
from history import History
from method import NOT_IN_DATA_SET, Answer, Question
from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from nasbench_dataset.table import Table
from space import FULL, PARTIAL, Space

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


def target_state(max_nodes: int) -> State:
    """The listed target for a MAX_NODES, as a finished state."""
    target = TARGETS[max_nodes]
    operations, edges = cells.from_dict({"adj_mat": target["t_adj_mat"], "node_list": target["t_node_list"]})
    return State(operations, edges, True)


class NetTrainer:
    """Answers questions by a table.

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
    table : Table
    space : Space
        Which cells the table has.
    target, target_accuracy, target_is_listed : State, float, bool
        The cell that ends the search, in stored form; whether it is the one listed above.

    Raises
    ------
    InputError
        If the table has no such column or no cell within the limits.
    """

    at_once = 1  # questions that it works on at the same time: it answers each when it is asked

    def __init__(self, table: Table, generator: arch_generator, metric: str = "test", lookup: str = "exact"):
        if metric not in table.columns:
            columns = ", ".join(table.columns)
            raise InputError(f"the table has no column {metric!r}; it has {columns}: choose by --metric")
        self.table, self.generator, self.metric, self.lookup = table, generator, metric, lookup
        self.accuracies = table.columns[metric]
        partial = {epochs: f"{metric}_{epochs}" for epochs in PARTIAL}
        self._partial = {epochs: table.columns[name] for epochs, name in partial.items() if name in table.columns}
        self.space = Space(generator, lookup, ~np.isnan(self.accuracies), tuple(self._partial))
        self._values = self.accuracies.tolist()  # plain floats are read several times faster, one at a time
        self._choose_target()

    def _choose_target(self) -> None:
        sizes = range(2, self.generator.max_nodes + 1)
        accuracy, best = max(map(self._best_of, sizes), key=lambda pair: pair[0])
        if best == cells.NOT_A_CELL:
            raise InputError(
                f"the table has no cell with at most {self.generator.max_nodes} vertices and"
                f" {self.generator.max_edges} edges, so there is no target: use another table or wider limits"
            )
        listed = target_state(self.generator.max_nodes)
        index = self.space.index(listed)
        self.target_is_listed = index != cells.NOT_A_CELL and self._values[index] == accuracy
        self.target = listed if self.target_is_listed else State(*cells.cell(best), True)
        self.target_accuracy = accuracy

    def _best_of(self, vertices: int) -> tuple[float, int]:
        """The best accuracy and its index among the cells with that many vertices, within MAX_EDGES."""
        within = cells.first_index(vertices) + np.flatnonzero(self.space.within(vertices))
        if not len(within):
            return -1.0, cells.NOT_A_CELL
        best = int(within[self.accuracies[within].argmax()])
        return self._values[best], best

    def train_net(self, question: Question) -> Answer:
        """The accuracy (0..1) of a finished cell, or that it is not in the table."""
        if question.index == cells.NOT_A_CELL:
            return NOT_IN_DATA_SET
        if question.epochs == FULL:
            return self._values[question.index]
        return float(self._partial[question.epochs][question.index])

    def accuracy_of(self, state: State) -> float | None:
        """The accuracy of a cell, which nobody has to have asked for; None where it is not in the table."""
        index = self.space.index(state)
        return None if index == cells.NOT_A_CELL else self._values[index]

    def accuracies_of(self, samples: list[int]) -> dict[int, float]:
        """The accuracies of the unique samples of a saved search, by their indices.

        Raises
        ------
        ValueError
            If a sample is not in the table, is outside the limits or comes twice.
        """
        if not self.space.are_different_cells(samples):
            raise ValueError("samples: not different cells of the table")
        return {index: self._values[index] for index in samples}

    def fingerprint(self) -> str:
        """SHA-256 of the accuracies; NaN, which has many bit patterns, counts as -1."""
        return hashlib.sha256(np.nan_to_num(self.accuracies, nan=-1.0).tobytes()).hexdigest()

    def test_accuracy(self, index: int) -> float | None:
        """The test accuracy of a cell; None where the table has none."""
        test = float(self.table.columns["test"][index]) if "test" in self.table.columns else math.nan
        return None if math.isnan(test) else test

    # --- in words -----------------------------------------------------------------------------

    def describe(self) -> str:
        """What answers, for the banner."""
        return f"table    {printable(self.table.describe())}"

    def goal(self) -> list[str]:
        """What ends the search, for the banner."""
        lines = [f"target   {self.target_accuracy:.7f}  {json.dumps(self.target.to_dict(), sort_keys=True)}"]
        if not self.target_is_listed:
            words = "the listed target is not the best cell of this table here: the table's own best is the target"
            lines.append(f"         {words}")
        return lines

    def status(self, history: History, samples: int | None) -> str:
        """For the progress line."""
        return ""

    def details(self, history: History) -> dict:
        """For summary.json."""
        return {}

    def closing_lines(self, history: History) -> list[str]:
        """For the end."""
        return []
