"""The targets, and what is counted as a sample."""

import numpy as np
import pytest

from arch_generator import State, arch_generator
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import Table, from_entries
from net_training import TARGETS, NetTrainer, target_state

TARGET_EDGES = {
    3: ("c3", "01 02 12"),
    4: ("c3 c1", "01 03 12 23"),
    5: ("c1 c3 c3", "01 02 03 04 12 13 23 34"),
    6: ("c3 c3 c3 c3", "01 02 03 04 05 14 23 34 45"),
    7: ("c1 c3 mp c3 c3", "01 02 05 06 15 23 34 45 56"),
}


def test_listed_targets_are_the_published_ones():
    assert TARGETS.keys() == TARGET_EDGES.keys()
    for max_nodes, (labels, pairs) in TARGET_EDGES.items():
        operations = tuple({"c3": 0, "c1": 1, "mp": 2}[label] for label in labels.split())
        edges = sum(cells.edge_bit(*map(int, pair)) for pair in pairs.split())
        assert target_state(max_nodes) == State(operations, edges, True)
        assert cells.index(operations, edges) != cells.NOT_A_CELL


def test_samples_are_counted_once_and_bests_in_order(small_table):
    trainer = NetTrainer(small_table, arch_generator(4))
    order = np.argsort(small_table.columns["test"])
    worst, middle, best = (State(*cells.cell(int(order[i])), True) for i in (0, 45, 90))
    outside = State((0, 0), 0, True)
    values = [trainer.train_net(s) for s in (middle, outside, middle, worst, best)]
    expected = small_table.columns["test"][order[[45, 0, 90]]].tolist()
    assert values == [expected[0], 0.0, expected[0], expected[1], expected[2]]
    assert (trainer.counter, trainer.unique_samples) == (5, 3)
    assert trainer.best_trace == [(expected[0], 1), (expected[2], 3)]
    assert trainer.best == best == trainer.target == target_state(4)
    assert trainer.found


def test_isomorphic_lookup_prunes_and_relabels(small_table):
    generator = arch_generator(4)
    stored = State((0, 1), 0b101101, True)
    other = State((1, 0, 2), cells.edge_bit(0, 2) | cells.edge_bit(0, 4) | cells.edge_bit(0, 1) | 0, True)
    relabelled = State((0, 2, 1), sum(cells.edge_bit(x, y) for x, y in ((0, 1), (0, 4), (1, 3), (3, 4), (0, 2))), True)
    exact = NetTrainer(small_table, generator)
    isomorphic = NetTrainer(small_table, generator, lookup="isomorphic")
    assert exact.train_net(relabelled) == 0.0
    assert isomorphic.train_net(relabelled) == isomorphic.train_net(stored) == exact.train_net(stored) == 0.9359642
    assert isomorphic.unique_samples == 1
    assert isomorphic.accuracy_of(other) == isomorphic.accuracy_of(State((), 1, True))  # input -> output alone is left
    assert isomorphic.accuracy_of(State((0,), 0, True)) is None


def test_the_target_is_the_tables_own_best_where_the_listed_one_is_not(small_table):
    values = small_table.columns["test"].copy()
    values[17] = 0.99
    trainer = NetTrainer(Table({"test": values}, "", True), arch_generator(4))
    assert not trainer.target_is_listed and trainer.target == State(*cells.cell(17), True)
    assert NetTrainer(small_table, arch_generator(4)).target_is_listed
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
    assert trainer.train_net(State(*cells.cell(91), True)) == 0.0
    assert trainer.train_net(State(*cells.cell(423_623), True)) == 0.0
    assert trainer.unique_samples == 0
