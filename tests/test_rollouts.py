"""Rollouts: the same distribution as walking, without the rejected steps."""

import random

import numpy as np
import oracle
import pytest

from arch_generator import State, arch_generator
from MCTS import GIVEN_UP, MCTS
from method import NO_QUESTION
from nasbench_dataset import cells
from nasbench_dataset.table import EMBEDDED, Table, load
from net_training import NetTrainer
from options import SearchOptions
from rollouts import ROLLOUTS, ExactRollout
from space import LOOKUPS


def chi_square(ours: list, plain: list) -> float:
    """How improbable it is that two samples of outcomes have one distribution (rare outcomes joined)."""
    from scipy.stats import chi2_contingency

    outcomes = [o for o in {*ours, *plain} if ours.count(o) + plain.count(o) >= 20]
    counts = np.array([[sample.count(o) for o in outcomes] for sample in (ours, plain)])
    rest = np.array([[len(ours)], [len(plain)]]) - counts.sum(axis=1, keepdims=True)
    if rest.sum():
        counts = np.hstack([counts, rest])
    return 1.0 if counts.shape[1] < 2 else float(chi2_contingency(counts).pvalue)


STARTS = [
    (4, State()),
    (4, State((0,), 0b001)),
    (4, State((0, 1), 0b000001)),
    (4, State((2, 2), 0b100100)),
    (5, State()),
    (5, State((1, 0), 0b001000)),
    (5, State((0, 0, 2), 0b0000000001)),
    (5, State((1, 1, 1), 0b1000000101)),
]


@pytest.mark.parametrize("lookup", LOOKUPS)
@pytest.mark.parametrize("max_nodes, start", STARTS)
def test_rollouts_have_the_distribution_of_walking(lookup, max_nodes, start):
    generator = arch_generator(max_nodes, 6)
    table = Table({"test": load(EMBEDDED).columns["test"][:2_532].copy()}, "", False)
    table.columns["test"][1::4] = np.nan  # a table with gaps
    trainer = NetTrainer(table, generator, lookup=lookup)
    walker = oracle.Search(oracle.plain_table(trainer), max_nodes, 6, seed=1)
    draws = 1_000
    plain = [walker.rollout(oracle.name(start.to_dict())) for _ in range(draws)]
    rollout = ROLLOUTS[lookup](trainer.space, random.Random(2))
    drawn = [rollout(start) for _ in range(draws)]
    assert chi_square([cell and oracle.name(cell.to_dict()) for cell in drawn], plain) > 1e-4


def test_a_rollout_gives_up_as_often_as_1001_failures_in_a_row():
    """Of the states with two vertices only one cell is in this table, at few chances in a thousand."""
    values = np.full(91, np.nan)
    values[90] = 0.5
    generator = arch_generator(4)
    trainer = NetTrainer(Table({"test": values}, "", True), generator)
    rollout = ExactRollout(trainer.space, random.Random(0))
    start = State((), 0)
    total, _, _ = rollout._reach(start)
    expected = (1 - total / generator.ended(2, 0)) ** 1_001
    assert 0.05 < expected < 0.95
    given_up = sum(rollout(start) is None for _ in range(4_000)) / 4_000
    assert given_up == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4_000) ** 0.5)


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_where_no_way_leads_to_a_cell_of_the_table_a_rollout_gives_up(small_table, lookup):
    trainer = NetTrainer(small_table, arch_generator(4, 1), lookup=lookup)
    dead_end = State((0, 0), cells.edge_bit(1, 2))  # the one edge allowed does not join input and output
    search = MCTS(trainer.space, 0, SearchOptions())
    assert search.rollout(dead_end) is None
    node = search.expand(None, dead_end)
    assert search.evaluate(node) is NO_QUESTION
    assert (node.n, node.x_bar) == (1, GIVEN_UP) and GIVEN_UP == 0.1  # the original's
