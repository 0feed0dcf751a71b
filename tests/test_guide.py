"""The guide of the tuned search: what it is shown, what it chooses, at first and with cells under way."""

import random

import numpy as np
import pytest

from arch_generator import State, arch_generator
from driver import Driver
from guide import OUTLIER, SHORTLIST, Guide, expected_improvement, targets_of
from linear_model import LinearModel
from MCTS import MCTS
from nasbench_dataset import cells
from nasbench_dataset.table import EMBEDDED, load
from net_training import NetTrainer
from options import SearchOptions, preset
from space import LOOKUPS, Space

TUNED = SearchOptions(**preset(SearchOptions, "tuned"))


@pytest.fixture(scope="module")
def accuracies() -> list[float]:
    return load(EMBEDDED).columns["test"].tolist()


def new_guide(space: Space, seed: int | None = 0, first_fit: int = 100) -> Guide:
    return Guide(space, random.Random(seed), first_fit, LinearModel())


@pytest.fixture
def guide() -> Guide:
    return new_guide(Space(arch_generator(6), "isomorphic"))


def cell_of(index: int) -> State:
    return State(*cells.cell(index), True)


def sample(guide: Guide, accuracies: list[float], count: int, seed: int = 0) -> list[int]:
    """Tell the guide of randomly chosen cells; their indices."""
    indices = random.Random(seed).sample(range(cells.cell_count(6)), count)
    for index in indices:
        guide.tell(index, accuracies[index])
    return indices


def test_targets_are_logarithms_without_outliers_below():
    targets = targets_of(np.array([0.9, 0.91, 0.92, 0.93, 0.1, 1.0]))
    logs = -np.log([0.1, 0.09, 0.08, 0.07, 0.9, 0.001])
    low, middle, high = np.quantile(logs, (0.25, 0.5, 0.75))
    assert np.allclose(targets[[0, 1, 2, 3, 5]], logs[[0, 1, 2, 3, 5]])
    assert targets[4] == pytest.approx(middle - OUTLIER * (high - low)) and targets[4] > logs[4]


def test_expected_improvement_is_the_mean_of_draws():
    mean, spread = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.5, 3.0])
    drawn = np.random.default_rng(0).normal(mean, spread, (400_000, 3))
    assert np.allclose(expected_improvement(mean, spread, 0.7), np.maximum(drawn - 0.7, 0).mean(axis=0), atol=0.01)


def test_one_by_one_or_all_at_once_predictions_are_the_same(guide, accuracies):
    indices = sample(guide, accuracies, 200)
    guide.fit()
    others = [i for i in range(0, cells.cell_count(6), 997) if i not in indices]
    worth = [guide.worth(cell_of(i)) for i in others]
    assert guide.shown == [*indices, *others]
    rows = np.array([guide.model.encode(cells.cell(i)) for i in others])
    np.testing.assert_allclose(worth, 1 - np.exp(-guide.model.mean(rows)))
    guide.fit()  # the same to the last bit
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
    sample(guide, accuracies, 2, seed=1)
    assert not guide.due
    sample(guide, accuracies, 1, seed=2)
    assert guide.due  # 2 % of 120 more


def test_it_is_fitted_first_when_it_is_told_to(accuracies):
    guide = new_guide(Space(arch_generator(6)), first_fit=30)
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


def shortlist(guide: Guide) -> list[int]:
    """The indices of the cells that it could choose."""
    return [index for index, is_open in zip(guide.shown, guide._open_places) if is_open]


def test_it_chooses_by_expected_improvement_and_nothing_twice(guide, accuracies):
    sampled = sample(guide, accuracies, 120)
    guide.fit()
    chosen = []
    for _ in range(80):
        before = set(guide.shown)
        cell = guide.choose()
        index = guide.space.index(cell)
        around = {guide.space.index(State(*n, True)) for n in cells.neighbours(*cells.cell(index))}
        assert set(guide.shown) >= before | around - {cells.NOT_A_CELL}
        chosen.append(index)
        guide.tell(index, accuracies[index])
        guide.fit_if_due()
    assert len(set(chosen)) == 80 and not set(chosen) & set(sampled)
    candidates = shortlist(guide)
    rows = np.array([guide.model.encode(cells.cell(i)) for i in candidates])
    best = targets_of(np.array(list(guide.samples.values())[: guide.fitted_to])).max()
    gains = expected_improvement(guide.model.mean(rows), guide.model.spread(rows, rows[:0]), best)
    most = max(zip(gains, candidates))[1]
    assert guide._most_promising() == most


class Levels(LinearModel):
    """Predicts one of three values, so that most cells tie."""

    def mean(self, rows):
        return np.floor(super().mean(rows) * 3) / 3

    def spread(self, rows, pending):
        assert len(rows) <= SHORTLIST  # however many tie
        return np.ones(len(rows))


def test_of_equal_cells_it_chooses_the_first_that_it_was_shown(accuracies):
    """Whatever the processor: the order in which it finds the best few hundred differs between them."""
    guide = Guide(Space(arch_generator(6), "isomorphic"), random.Random(0), 100, Levels())
    sampled = sample(guide, accuracies, 100)
    guide.fit()
    shown = [i for i in random.Random(1).sample(range(cells.cell_count(6)), 3_000) if i not in sampled]
    worth = [guide.worth(cell_of(i)) for i in shown]
    assert worth.count(max(worth)) > 1 and worth.count(min(worth)) > 1
    ordered = sorted(range(len(shown)), key=lambda place: -worth[place])  # stable: as shown, where they tie
    for place in ordered[:400]:
        assert guide._most_promising() == shown[place]
        guide.take(shown[place])


def test_it_comes_to_better_cells_than_it_began_with(guide, accuracies):
    sampled = sample(guide, accuracies, 60)
    guide.fit()
    for _ in range(40):
        index = guide.space.index(guide.choose())
        guide.tell(index, accuracies[index])
        guide.fit_if_due()
    found = [accuracies[index] for index in list(guide.samples)[60:]]
    assert np.mean(found) > sorted(accuracies[i] for i in sampled)[-6]  # the mean of them is among the best tenth


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
    assert not {*shortlist(guide)} & {*shown, *sampled}
    chosen = [guide.space.index(guide.choose()) for _ in range(300)]
    assert len({*chosen}) == 300 and not {*chosen} & {*shown, *sampled}


def test_cells_under_way_make_others_like_them_less_promising(guide, accuracies):
    """The same model, cells and answers: with nothing under way it would choose neighbours of what it chose."""
    sample(guide, accuracies, 60)
    guide.fit()
    first = guide.space.index(guide.choose())
    assert list(guide._pending) == [first]
    rows = np.array([guide.model.encode(cells.cell(i)) for i in shortlist(guide)])
    waiting = guide.model.encode(cells.cell(first))[None]
    alone, beside = guide.model.spread(rows, waiting[:0]), guide.model.spread(rows, waiting)
    assert (beside <= alone).all() and (beside < alone - 1e-6).any()
    guide.give_up(first)
    assert not guide._pending and first not in shortlist(guide)
    guide.take(5)
    guide.tell(5, 0.9)
    assert not guide._pending


def test_at_first_it_takes_random_cells(accuracies):
    guide = new_guide(Space(arch_generator(6), "isomorphic"), first_fit=30)
    for index in (3, 4):
        guide.tell(index, accuracies[index])
    found = [guide.space.index(guide.anything()) for _ in range(40)]  # though as many as it needs are under way
    assert len({*found, 3, 4}) == 42 and guide.choose() is None
    for number, index in enumerate(found, 3):
        guide.tell(index, accuracies[index])
        guide.fit_if_due()
        assert guide.ready == (number >= 30)
    assert guide.anything() is None


def test_at_first_it_takes_the_cells_that_there_are():
    guide = new_guide(Space(arch_generator(3), "isomorphic"), first_fit=30)
    found = [guide.space.index(cell) for cell in iter(guide.anything, None)]
    assert len(set(found)) == len(found) and 5 <= len(found) <= 7


def test_it_is_shown_larger_mutants_and_the_same_ones_under_either_lookup(accuracies, monkeypatch):
    """From a cell of 4 vertices it comes to some of 5, within the limits."""
    shown = []
    others = range(7, cells.cell_count(4))
    for lookup in LOOKUPS:
        space = Space(arch_generator(6, 7), lookup)
        guide = new_guide(space, 1)
        monkeypatch.setattr("guide.ANYWHERE", 0)  # those are other ones
        for index in others:
            guide.tell(index, accuracies[index])
        guide.fit()
        guide.choose()
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
    again = new_guide(guide.space, None)
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
    search = MCTS(trainer.space, 0, SearchOptions(**preset(SearchOptions, "tuned") | {"guide_from": 10}))
    driver = Driver(search, trainer)
    assert driver.run() == "exhausted"
    assert search.guide.ready and search.guided
    within = [i for i in range(91) if cells.cell(i)[1].bit_count() <= max_edges]
    assert sorted(driver.history.training_trace) == within


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_guided_search_needs_few_samples(lookup):
    """Without the guide it is 649 on average, isomorphic look-up (docs/study.md)."""
    trainer = NetTrainer(load(EMBEDDED), arch_generator(6), lookup=lookup)
    for seed in range(3):
        driver = Driver(MCTS(trainer.space, seed, TUNED), trainer, trainer.target_accuracy)
        assert driver.run(samples=400) == "found"
