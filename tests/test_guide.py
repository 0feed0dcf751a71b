"""The linear model that guides the tuned search: its features, its fit, what it chooses."""

import random

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import guide as guide_module
from arch_generator import State, arch_generator
from guide import FEATURES, FIRST_EDGE, FIRST_OPERATION, KINDS, MOST_FEATURES, RIDGE, Guide, describe
from MCTS import MCTS, PRESETS
from nasbench_dataset import cells, features
from nasbench_dataset.table import EMBEDDED, load
from net_training import LOOKUPS, NetTrainer


@pytest.fixture
def trainer():
    return NetTrainer(load(EMBEDDED), arch_generator(6), lookup="isomorphic")


def sample(trainer, count, seed=0):
    rng = random.Random(seed)
    indices = rng.sample(range(cells.cell_count(6)), count)
    for index in indices:
        trainer.train_net(State(*cells.cell(index), True))
    return indices


def counts(index):
    return np.bincount(describe(*cells.cell(index)), minlength=FEATURES)


def test_features_are_those_that_the_surrogate_counts():
    """features.py counts the same for many cells at once, by other means."""
    indices = np.array(random.Random(0).sample(range(cells.cell_count()), 300))
    theirs = features.describe(indices)
    ours = np.array([counts(index) for index in indices])
    assert ours.shape[1] == FEATURES and (ours.sum(axis=1) <= MOST_FEATURES).all()
    short = ["without a vertex" if not s else "-".join(features.SHORT[o] for o in s) for s in features.SEQUENCES]
    for place, name in enumerate(short[:FIRST_EDGE]):
        assert np.array_equal(ours[:, place], theirs[f"paths {name}"] > 0), name
    for x, source in enumerate(features.KINDS):
        for y, target in enumerate(features.KINDS):
            column = ours[:, FIRST_EDGE + KINDS * x + y]
            assert np.array_equal(column, theirs.get(f"edges {source}->{target}", np.zeros(300))), (source, target)
    for o, name in enumerate(features.SHORT):
        assert np.array_equal(ours[:, FIRST_OPERATION + o], theirs[name])


def test_no_cell_has_more_features_than_there_is_room_for():
    """The most paths have graphs of few vertices and nine edges; operations only make paths equal."""
    for vertices in (5, 6, 7):
        for edges in set((cells.enumerate_codes(vertices) // 3 ** (vertices - 2)).tolist()):
            paths, pairs = guide_module._paths_and_edges(vertices, edges)
            assert len(paths) + len(pairs) + vertices - 2 <= MOST_FEATURES


def test_predictions_are_those_of_ridge_regression(trainer):
    indices = sample(trainer, 200)
    guide = Guide(trainer, random.Random(0))
    guide.fit()
    logs = -np.log(1 - np.array([trainer.training_trace[i] for i in indices]))
    reference = Ridge(alpha=RIDGE).fit([counts(i) for i in indices], logs)
    others = [i for i in range(0, cells.cell_count(6), 997) if i not in trainer.training_trace]
    expected = 1 - np.exp(-reference.predict([counts(i) for i in others]))
    worth = [guide.worth(State(*cells.cell(i), True)) for i in others]
    np.testing.assert_allclose(worth, expected, atol=1e-7)
    assert guide.shown == [*indices, *others]
    guide.fit()  # all at once instead of one by one: the same to the last bit
    assert [guide.worth(State(*cells.cell(i), True)) for i in others] == worth


def test_it_orders_cells_that_it_has_not_seen(trainer):
    """By chance the correlation of 1,500 would be 0 with a standard deviation of .026."""
    sample(trainer, 1000)
    guide = Guide(trainer, random.Random(0))
    guide.fit()
    others = random.Random(1).sample(range(cells.cell_count(6)), 1500)
    others = [i for i in others if i not in trainer.training_trace]
    ranks = [np.argsort(np.argsort(v)) for v in ([guide.worth(State(*cells.cell(i), True)) for i in others], trainer.accuracies[others])]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def test_what_cells_are_worth(trainer):
    sampled = sample(trainer, 120)
    guide = Guide(trainer, random.Random(0))
    assert not guide.ready and guide.due and not guide.promises and guide.choose() is None
    guide.fit()
    assert guide.ready and not guide.due
    assert guide.worth(State(*cells.cell(sampled[0]), True)) == trainer.training_trace[sampled[0]]
    assert guide.worth(State((0,), 0, True)) == 0  # input and output are not connected
    assert guide.shown == sampled and not guide.promises
    sample(trainer, 49, seed=1)
    assert not guide.due
    sample(trainer, 2, seed=2)
    assert guide.due


def test_it_chooses_the_most_promising_first_and_nothing_twice(trainer):
    sample(trainer, 120)
    guide = Guide(trainer, random.Random(0))
    guide.fit()
    for index in range(0, 60_000, 500):
        guide.worth(State(*cells.cell(index), True))
    best = max(set(guide.shown) - set(trainer.training_trace), key=lambda i: guide.worth(State(*cells.cell(i), True)))
    before, cell = set(guide.shown), guide.choose()
    assert trainer.index(cell) == best
    around = {trainer.index(State(*n, True)) for n in cells.neighbours(*cells.cell(best))}
    around -= {cells.NOT_A_CELL, *trainer.training_trace}
    assert around and set(guide.shown) > before | around
    chosen = [best]
    for _ in range(80):
        trainer.train_net(cell)
        if guide.due:
            guide.fit()
        cell = guide.choose()
        chosen.append(trainer.index(cell))
    assert len(set(chosen)) == 81


def test_it_is_shown_larger_mutants_and_the_same_ones_under_either_lookup():
    """From a cell of 4 vertices it comes to some of 5, within the limits."""
    shown = []
    first, *others = range(7, cells.cell_count(4))
    for lookup in LOOKUPS:
        trainer = NetTrainer(load(EMBEDDED), arch_generator(6, 7), lookup=lookup)
        guide = Guide(trainer, random.Random(1))
        for index in others:
            trainer.train_net(State(*cells.cell(index), True))
        guide.fit()
        guide.worth(State(*cells.cell(first), True))
        assert guide.choose() == State(*cells.cell(first), True)
        assert trainer.are_different_cells(guide.shown)  # in the table, within the limits
        shown.append(guide.shown)
    assert shown[0] == shown[1]
    assert any(len(cells.cell(index)[0]) == 5 - 2 for index in shown[0])


def test_new_vertices_change_nothing_before_edges_do():
    rng = random.Random(0)
    for index in rng.sample(range(cells.cell_count(6)), 100):
        operations, edges = cells.cell(index)
        more = tuple(rng.choices(range(3), k=7 - 2 - len(operations)))
        larger, same_edges = cells.enlarge(operations, edges, more)
        assert larger == operations + more and same_edges.bit_count() == edges.bit_count()
        assert cells.prune(larger, same_edges) == (operations, edges)


def test_neighbours_differ_in_one_operation_or_edge():
    operations, edges = (0, 2, 1), 0b1011010011
    found = cells.neighbours(operations, edges)
    assert len(set(found)) == len(found) == 3 * 2 + 10
    for other_operations, other_edges in found:
        changed = sum(map(int.__ne__, operations, other_operations))
        assert changed + (edges ^ other_edges).bit_count() == 1


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_guided_search_ends_with_every_cell_sampled(lookup, monkeypatch):
    monkeypatch.setattr(guide_module, "FIRST_SAMPLES", 20)
    trainer = NetTrainer(load(EMBEDDED), arch_generator(4), lookup=lookup)
    trainer.target_accuracy = 2.0  # out of reach
    search = MCTS(trainer, 0, **PRESETS["tuned"])
    assert search.search() == "exhausted"
    assert sorted(trainer.training_trace) == list(range(91))


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_guided_search_needs_few_samples(lookup):
    """None of 30 needed more than 300; without the guide it is 649 on average under the isomorphic lookup (docs/study.md)."""
    for seed in range(3):
        trainer = NetTrainer(load(EMBEDDED), arch_generator(6), lookup=lookup)
        assert MCTS(trainer, seed, **PRESETS["tuned"]).search(samples=400) == "found"


def test_max_edges_holds_for_what_the_guide_chooses(monkeypatch):
    monkeypatch.setattr(guide_module, "FIRST_SAMPLES", 20)
    trainer = NetTrainer(load(EMBEDDED), arch_generator(4, 4), lookup="isomorphic")
    trainer.target_accuracy = 2.0
    assert MCTS(trainer, 0, **PRESETS["tuned"]).search() == "exhausted"
    within = [i for i in range(cells.cell_count(4)) if cells.cell(i)[1].bit_count() <= 4]
    assert sorted(trainer.training_trace) == within
