"""The linear model that guides the tuned search: its features, its fit, what it chooses."""

import random

import numpy as np
import pytest
from sklearn.linear_model import Ridge

import guide as guide_module
from arch_generator import State, arch_generator
from cell_encodings import KINDS, paths_and_edges
from driver import Driver
from guide import FEATURES, FIRST_EDGE, FIRST_OPERATION, MOST_FEATURES, RIDGE, Guide, features_of
from MCTS import MCTS
from nasbench_dataset import cells, features
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer
from options import SearchOptions, preset
from space import LOOKUPS, Space

TUNED = SearchOptions(**preset(SearchOptions, "tuned"))


@pytest.fixture(scope="module")
def accuracies() -> list[float]:
    return load(EMBEDDED).columns["test"].tolist()


@pytest.fixture
def guide() -> Guide:
    return Guide(Space(arch_generator(6), "isomorphic"), random.Random(0))


def cell_of(index: int) -> State:
    return State(*cells.cell(index), True)


def sample(guide: Guide, accuracies: list[float], count: int, seed: int = 0) -> list[int]:
    """Tell the guide of randomly chosen cells; their indices."""
    indices = random.Random(seed).sample(range(cells.cell_count(6)), count)
    for index in indices:
        guide.tell(index, accuracies[index])
    return indices


def counts(index):
    return np.bincount(features_of(*cells.cell(index)), minlength=FEATURES)


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
            paths, pairs = paths_and_edges(vertices, edges)
            short = [path for path in paths if len(path) <= guide_module.LONGEST_PATH]
            assert len(short) + len(pairs) + vertices - 2 <= MOST_FEATURES


def test_predictions_are_those_of_ridge_regression(guide, accuracies):
    indices = sample(guide, accuracies, 200)
    guide.fit()
    logs = -np.log(1 - np.array([accuracies[i] for i in indices]))
    reference = Ridge(alpha=RIDGE).fit([counts(i) for i in indices], logs)
    others = [i for i in range(0, cells.cell_count(6), 997) if i not in indices]
    expected = 1 - np.exp(-reference.predict([counts(i) for i in others]))
    worth = [guide.worth(cell_of(i)) for i in others]
    np.testing.assert_allclose(worth, expected, atol=1e-7)
    assert guide.shown == [*indices, *others]
    guide.fit()  # all at once instead of one by one: the same to the last bit
    assert [guide.worth(cell_of(i)) for i in others] == worth


def test_it_orders_cells_that_it_has_not_seen(guide, accuracies):
    """By chance the correlation of 1,500 would be 0 with a standard deviation of .026."""
    sampled = sample(guide, accuracies, 1000)
    guide.fit()
    others = random.Random(1).sample(range(cells.cell_count(6)), 1500)
    others = [i for i in others if i not in sampled]
    worth, true = [guide.worth(cell_of(i)) for i in others], [accuracies[i] for i in others]
    ranks = [np.argsort(np.argsort(values)) for values in (worth, true)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def test_what_cells_are_worth(guide, accuracies):
    sampled = sample(guide, accuracies, 120)
    assert not guide.ready and guide.due and not guide.promises and guide.choose() is None
    guide.fit()
    assert guide.ready and not guide.due
    assert guide.worth(cell_of(sampled[0])) == accuracies[sampled[0]]
    assert guide.worth(State((0,), 0, True)) == 0  # input and output are not connected
    assert guide.shown == sampled and not guide.promises
    sample(guide, accuracies, 49, seed=1)
    assert not guide.due
    sample(guide, accuracies, 2, seed=2)
    assert guide.due


def test_it_is_fitted_first_when_it_is_told_to(accuracies):
    guide = Guide(Space(arch_generator(6)), random.Random(0), first_fit=30)
    for index in range(30):
        guide.fit_if_due()
        assert not guide.ready
        guide.tell(index, accuracies[index])
    guide.fit_if_due()
    assert guide.fitted_to == 30


def test_the_first_answer_of_a_cell_counts(guide):
    guide.tell(50, 0.5)
    guide.tell(50, 0.7)
    assert guide.samples == {50: 0.5}


def test_it_chooses_the_most_promising_first_and_nothing_twice(guide, accuracies):
    sampled = sample(guide, accuracies, 120)
    guide.fit()
    for index in range(0, 60_000, 500):
        guide.worth(cell_of(index))
    best = max(set(guide.shown) - set(sampled), key=lambda i: guide.worth(cell_of(i)))
    before, cell = set(guide.shown), guide.choose()
    assert cell == cell_of(best)
    around = {guide.space.index(State(*n, True)) for n in cells.neighbours(*cells.cell(best))}
    around -= {cells.NOT_A_CELL, *sampled}
    assert around and set(guide.shown) > before | around
    chosen = [best]
    for _ in range(80):
        guide.tell(chosen[-1], accuracies[chosen[-1]])
        guide.fit_if_due()
        chosen.append(guide.space.index(guide.choose()))
    assert len(set(chosen)) == 81 and not set(chosen) & set(sampled)


def test_a_cell_that_is_taken_is_not_chosen_whenever_it_is_shown(guide, accuracies):
    """Before the first fit none is shown, and a cell can be asked for long before its answer comes."""
    sampled = sample(guide, accuracies, 120)
    shown = [index for index in range(0, 60_000, 3_000) if index not in sampled]
    early, late = shown[::2], shown[1::2]
    for index in early:
        guide.take(index)
    guide.fit()
    for index in shown:
        guide.worth(cell_of(index))
    for index in late:
        guide.take(index)
    sample(guide, accuracies, 60, seed=1)
    guide.fit()
    chosen = [guide.space.index(cell) for cell in iter(guide.choose, None)]
    assert chosen == [] and set(guide.shown) > {*shown, *sampled}
    guide.worth(cell_of(50_001))
    chosen = [guide.space.index(guide.choose()) for _ in range(300)]
    assert chosen[0] == 50_001 and not {*chosen} & {*shown, *sampled}


def test_it_is_shown_larger_mutants_and_the_same_ones_under_either_lookup(accuracies):
    """From a cell of 4 vertices it comes to some of 5, within the limits."""
    shown = []
    first, *others = range(7, cells.cell_count(4))
    for lookup in LOOKUPS:
        space = Space(arch_generator(6, 7), lookup)
        guide = Guide(space, random.Random(1))
        for index in others:
            guide.tell(index, accuracies[index])
        guide.fit()
        guide.worth(cell_of(first))
        assert guide.choose() == cell_of(first)
        assert space.are_different_cells(guide.shown)  # in the table, within the limits
        shown.append(guide.shown)
    assert shown[0] == shown[1]
    assert any(len(cells.cell(index)[0]) == 5 - 2 for index in shown[0])


def test_a_restored_guide_goes_on_as_the_saved_one(guide, accuracies):
    sample(guide, accuracies, 120)
    guide.fit()
    for index in range(0, 60_000, 500):
        guide.worth(cell_of(index))
    chosen = [guide.space.index(guide.choose()) for _ in range(5)]
    again = Guide(guide.space, random.Random())
    for index, accuracy in guide.samples.items():
        again.tell(index, accuracy)
    again.restore(guide.to_save())
    for index in chosen:  # open questions, of which the search tells it
        again.take(index)
    again.rng.setstate(guide.rng.getstate())
    assert again.to_save() == guide.to_save()
    assert [again.choose() for _ in range(20)] == [guide.choose() for _ in range(20)]
    assert again.shown == guide.shown


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
@pytest.mark.parametrize("max_edges", [9, 4])
def test_a_guided_search_ends_with_every_cell_sampled(lookup, max_edges):
    trainer = NetTrainer(load(EMBEDDED), arch_generator(4, max_edges), lookup=lookup)
    search = MCTS(trainer.space, 0, SearchOptions(**preset(SearchOptions, "tuned"), guide_from=10))
    driver = Driver(search, trainer)
    assert driver.run() == "exhausted"
    assert search.guide.ready and search.guided
    within = [i for i in range(91) if cells.cell(i)[1].bit_count() <= max_edges]
    assert sorted(driver.history.training_trace) == within


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_guided_search_needs_few_samples(lookup):
    """None of 30 needed more than 300; without the guide it is 649 on average, isomorphic look-up (docs/study.md)."""
    trainer = NetTrainer(load(EMBEDDED), arch_generator(6), lookup=lookup)
    for seed in range(3):
        driver = Driver(MCTS(trainer.space, seed, TUNED), trainer, trainer.target_accuracy)
        assert driver.run(samples=400) == "found"
