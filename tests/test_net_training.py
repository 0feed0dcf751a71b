"""The targets, and answers by table."""

import numpy as np
import pytest

from arch_generator import State, arch_generator
from method import NOT_IN_DATA_SET, Question
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import Table, from_entries
from net_training import TARGETS, NetTrainer, target_state
from space import FULL, PARTIAL

TARGET_EDGES = {
    3: ("c3", "01 02 12"),
    4: ("c3 c1", "01 03 12 23"),
    5: ("c1 c3 c3", "01 02 03 04 12 13 23 34"),
    6: ("c3 c3 c3 c3", "01 02 03 04 05 14 23 34 45"),
    7: ("c1 c3 mp c3 c3", "01 02 05 06 15 23 34 45 56"),
}


def asking(trainer: NetTrainer, cell: State, epochs: int = FULL) -> Question:
    return Question(cell, trainer.space.index(cell), epochs)


def test_listed_targets_are_the_published_ones():
    assert TARGETS.keys() == TARGET_EDGES.keys()
    for max_nodes, (labels, pairs) in TARGET_EDGES.items():
        operations = tuple({"c3": 0, "c1": 1, "mp": 2}[label] for label in labels.split())
        edges = sum(cells.edge_bit(*map(int, pair)) for pair in pairs.split())
        assert target_state(max_nodes) == State(operations, edges, True)
        assert cells.index(operations, edges) != cells.NOT_A_CELL


def test_questions_are_answered_by_the_table(small_table):
    trainer = NetTrainer(small_table, arch_generator(4))
    for index in (0, 45, 90):
        cell, accuracy = State(*cells.cell(index), True), small_table.columns["test"][index]
        assert trainer.train_net(asking(trainer, cell)) == trainer.accuracy_of(cell) == accuracy
    outside = State((0, 0), 0, True)
    assert trainer.train_net(asking(trainer, outside)) is NOT_IN_DATA_SET and trainer.accuracy_of(outside) is None


def test_accuracies_after_fewer_epochs_are_those_of_the_metric(small_table):
    columns = {"valid": small_table.columns["test"] + 0.005}
    columns |= {f"valid_{epochs}": columns["valid"] - 1 / epochs for epochs in PARTIAL}
    table = Table({**small_table.columns, **columns}, "made up", False)
    trainer = NetTrainer(table, arch_generator(4), "valid")
    assert trainer.space.epochs == PARTIAL and NetTrainer(table, arch_generator(4), "test").space.epochs == ()
    cell = State(*cells.cell(30), True)
    for epochs in PARTIAL:
        assert trainer.train_net(asking(trainer, cell, epochs)) == columns[f"valid_{epochs}"][30]
    assert trainer.train_net(asking(trainer, cell)) == columns["valid"][30]


def test_isomorphic_lookup_prunes_and_relabels(small_table):
    stored = State((0, 1), 0b101101, True)
    dangling = State((1, 0, 2), sum(cells.edge_bit(x, y) for x, y in ((0, 2), (0, 4), (0, 1))), True)
    relabelled_edges = sum(cells.edge_bit(x, y) for x, y in ((0, 1), (0, 4), (1, 3), (3, 4), (0, 2)))
    relabelled = State((0, 2, 1), relabelled_edges, True)
    exact = NetTrainer(small_table, arch_generator(4))
    isomorphic = NetTrainer(small_table, arch_generator(4), lookup="isomorphic")
    assert exact.train_net(asking(exact, relabelled)) is NOT_IN_DATA_SET
    assert asking(isomorphic, relabelled).index == asking(isomorphic, stored).index == asking(exact, stored).index
    assert isomorphic.accuracy_of(relabelled) == exact.accuracy_of(stored) == 0.9359642
    assert isomorphic.accuracy_of(dangling) == isomorphic.accuracy_of(State((), 1, True))  # input -> output is left
    assert isomorphic.accuracy_of(State((0,), 0, True)) is None


def test_the_target_is_the_tables_own_best_where_the_listed_one_is_not(small_table):
    values = small_table.columns["test"].copy()
    values[17] = 0.99
    trainer = NetTrainer(Table({"test": values}, "", True), arch_generator(4))
    assert not trainer.target_is_listed and trainer.target == State(*cells.cell(17), True)
    assert trainer.target_accuracy == 0.99
    listed = NetTrainer(small_table, arch_generator(4))
    assert listed.target_is_listed and listed.target == target_state(4) and listed.target_accuracy == 0.9359642
    # a smaller domain has its own target; at most 3 edges exclude the listed one of 4 vertices
    narrow = NetTrainer(small_table, arch_generator(4, 3))
    assert narrow.target.edges.bit_count() <= 3 and not narrow.target_is_listed


def test_a_table_without_cells_of_the_domain(small_table):
    seven = from_entries("test", {423_623: 0.9}, "", True)
    with pytest.raises(InputError, match="no target"):
        NetTrainer(seven, arch_generator(6))
    assert NetTrainer(seven, arch_generator(7)).target == State(*cells.cell(423_623), True)
    with pytest.raises(InputError, match="no column 'valid'"):
        NetTrainer(small_table, arch_generator(4), "valid")


def test_cells_beyond_a_short_table_are_not_in_it(small_table):
    trainer = NetTrainer(small_table, arch_generator(7))
    for index in (91, 423_623):
        assert trainer.train_net(asking(trainer, State(*cells.cell(index), True))) is NOT_IN_DATA_SET


def test_the_accuracies_of_saved_samples_are_given_for_cells_of_the_domain_alone(small_table):
    values = small_table.columns["test"].copy()
    values[20] = np.nan
    trainer = NetTrainer(Table({"test": values}, "", True), arch_generator(4, 5))
    assert trainer.accuracies_of([8, 3]) == {8: values[8], 3: values[3]}
    full = next(index for index in range(91) if cells.cell(index)[1].bit_count() == 6)
    for wrong in ([20], [8, 8], [full], [91], [-1]):
        with pytest.raises(ValueError, match="different cells"):
            trainer.accuracies_of(wrong)


def test_the_fingerprint_is_that_of_the_accuracies(small_table):
    def fingerprint(values):
        return NetTrainer(Table({"test": values}, "", True), arch_generator(4)).fingerprint()

    values = small_table.columns["test"]
    gaps = values.copy()
    gaps[20] = np.nan
    other_gaps = gaps.copy()
    other_gaps[20:21].view(np.int64)[0] ^= 1  # another bit pattern of NaN
    other = values.copy()
    other[20] = np.nextafter(other[20], 1)
    assert np.isnan(other_gaps[20]) and fingerprint(gaps) == fingerprint(other_gaps)
    assert len({fingerprint(v) for v in (values, gaps, other)}) == 3
    assert fingerprint(values) == fingerprint(values.copy())
