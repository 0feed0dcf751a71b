"""The methods of comparison: what they propose, what they are told, and how their samples are counted."""

import random
from collections import Counter
from itertools import islice, product

import numpy as np
import pytest

import baselines
import meta_dnn
from arch_generator import State, arch_generator
from baselines import FULL, METHODS, PARTIAL, Partial, Search, Space
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import EMBEDDED, Table, from_entries, load
from net_training import LOOKUPS, NetTrainer


def trainer_of(table: Table, lookup: str = "exact", metric: str = "test") -> NetTrainer:
    return NetTrainer(table, arch_generator(4), metric, lookup)


@pytest.fixture
def epochs_table(small_table) -> Table:
    """The made-up table with validation accuracies after 4, 12, 36 and 108 epochs, each nearer to the last."""
    rng = np.random.default_rng(1)
    valid = small_table.columns["test"] + 0.005
    partial = {f"valid_{e}": valid - rng.uniform(0, 1 / e, len(valid)) for e in PARTIAL}
    return Table({**small_table.columns, "valid": valid, **partial}, "made up", False)


@pytest.fixture
def small_predictor(monkeypatch):
    """A Meta-DNN of one small layer that is fitted after ten samples, for speed."""
    monkeypatch.setattr(meta_dnn, "LAYERS", ((16, "relu", "GlorotUniform"), (1, "sigmoid", "GlorotUniform")))
    monkeypatch.setattr(baselines, "FIRST_SAMPLES", 10)


def every_graph():
    return [(operations, edges) for operations in product(range(3), repeat=2) for edges in range(64)]


# --- the space --------------------------------------------------------------------------------


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_graphs_mutations_and_neighbours_are_in_the_data_set(small_table, lookup):
    space, rng = Space(trainer_of(small_table, lookup)), random.Random(0)
    known = {graph for graph in every_graph() if space.has(space.cell(graph))}
    assert {space.graph(rng) for _ in range(5_000)} == known
    for graph in sorted(known)[::7]:
        one_change = {
            other
            for other in known
            if (other[0] == graph[0]) * (other[1] ^ graph[1]).bit_count() == 1
            or other[1] == graph[1] and sum(a != b for a, b in zip(other[0], graph[0])) == 1
        }
        neighbours = space.neighbours(graph)
        assert set(neighbours) == one_change and len(neighbours) == len(one_change)
        assert {space.mutate(graph, rng) for _ in range(20)} <= known


def test_the_limit_of_edges_holds(small_table):
    space = Space(NetTrainer(small_table, arch_generator(4, 3), "test", "isomorphic"))
    for graph in every_graph():
        cell = space.cell(graph)
        assert space.has(cell) == (cells.prune(*graph) is not None and cell.edges.bit_count() <= 3)


def test_mutations_change_what_the_settings_say(small_table):
    space, rng = Space(trainer_of(small_table, "isomorphic")), random.Random(1)
    graph = (0, 1), 0b111111
    changed = [space.mutate(graph, rng) for _ in range(4_000)]
    every = product([0, 1], repeat=6)
    kept = [bits for bits in every if cells.prune((0, 1), sum(bit << i for i, bit in enumerate(bits)))]
    weight = [np.prod([0.25 if b == 0 else 0.75 for b in c]) for c in kept]  # flips that leave a cell
    expected = np.dot(weight, [6 - sum(c) for c in kept]) / sum(weight)
    assert np.mean([(edges ^ 0b111111).bit_count() for _, edges in changed]) == pytest.approx(expected, abs=0.06)
    assert np.mean([operations[0] != 0 for operations, _ in changed]) == pytest.approx(0.5, abs=0.03)
    assert Counter(operations[0] for operations, _ in changed)[1] == pytest.approx(1_000, abs=100)


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_labelled_cells_are_uniform(small_table, lookup):
    """Against a plain count of all labelled matrices that the lookup knows."""
    trainer = trainer_of(small_table, lookup)
    every = [
        State(operations, edges, True)
        for v in (2, 3, 4)
        for operations in product(range(3), repeat=v - 2)
        for edges in range(1 << v * (v - 1) // 2)
    ]
    expected = Counter(index for cell in every if (index := trainer.index(cell)) != cells.NOT_A_CELL)
    drawn = Counter(trainer.index(c) for c in islice(Space(trainer).labelled_cells(random.Random(2)), 40_000))
    for index, count in expected.items():
        mean = 40_000 * count / expected.total()
        assert abs(drawn[index] - mean) < 5 * mean**0.5
    assert drawn.keys() == expected.keys()


def test_a_smaller_cell_as_a_graph(small_table):
    for index in range(91):
        for vertices in (4, 5, 7):
            graph = baselines._grown(*cells.cell(index), vertices)
            assert len(graph[0]) == vertices - 2 and cells.prune(*graph) == cells.cell(index)


@pytest.mark.parametrize("method, lookup", product(["random", "evolution", "local-search"], LOOKUPS))
def test_a_table_that_chance_does_not_meet_is_searched_to_its_end(method, lookup):
    """Of half a billion graphs one or two stand for each of its cells."""
    last = range(cells.cell_count() - 5, cells.cell_count())
    table = from_entries("test", {index: 0.9 + 0.01 * (index - last[0]) for index in last}, "made up", measured=False)
    trainer = NetTrainer(table, arch_generator(7), "test", lookup)
    proposals = METHODS[method](Space(trainer, draws=3_000), random.Random(0))
    cell = next(proposals)
    while not trainer.found:
        cell = proposals.send(trainer.train_net(cell))
    assert trainer.counter < 1_000


def test_a_graph_without_mutants_in_the_data_set_gives_way_to_another_cell():
    """With 3 vertices the operation always changes, and here no other one is in the table."""
    only = cells.index((0,), 0b101), cells.index((0,), 0b111)
    table = from_entries("test", dict.fromkeys(only, 0.9), "made up", measured=False)
    space, rng = Space(NetTrainer(table, arch_generator(3), "test", "exact"), draws=3_000), random.Random(0)
    mutants = [space.mutate(((0,), 0b101), rng) for _ in range(30)]
    assert {cells.index(*mutant) for mutant in mutants} == set(only)


# --- the methods ------------------------------------------------------------------------------


def test_random_search_needs_half_the_domain(small_table):
    needed = []
    for seed in range(400):
        trainer = trainer_of(small_table)
        assert Search("random", trainer, seed).search() == "found"
        needed.append(trainer.unique_samples)
    assert np.mean(needed) == pytest.approx(46, abs=4 * 26.3 / 20)  # uniform on 1..91


def test_evolution_mutates_winners_of_tournaments_and_forgets_the_old(monkeypatch):
    trainer = NetTrainer(load(EMBEDDED), arch_generator(6), "test", "isomorphic")
    space, rng, parents = Space(trainer), random.Random(0), []
    mutate = space.mutate
    monkeypatch.setattr(space, "mutate", lambda graph, rng: parents.append(graph) or mutate(graph, rng))
    first = []
    graph = space.graph
    monkeypatch.setattr(space, "graph", lambda rng: first.append(graph(rng)) or first[-1])
    proposals = baselines.regularized_evolution(space, rng)
    next(proposals)
    for number in range(99):
        proposals.send(number / 1_000)
        assert not parents
    for accuracy in (0.9, *[0.0] * 99):  # the hundredth is the best, and is forgotten a hundred births later
        proposals.send(accuracy)
    best, members = first[-1], set(first)
    assert 4 <= parents.count(best) <= 20  # it wins whenever it is among ten of a hundred: ten times on average
    for _ in range(200):
        proposals.send(0.0)
    assert len(parents) == 300 and not members & set(parents[-100:])


def test_local_search_climbs_to_a_local_best(small_table, monkeypatch):
    """Where it stands is where it looks around; each time the next place follows by a plain rule."""
    trainer = trainer_of(small_table, "isomorphic")
    space, visited = Space(trainer), []
    neighbours = space.neighbours
    monkeypatch.setattr(space, "neighbours", lambda graph: visited.append(graph) or neighbours(graph))
    proposals = baselines.local_search(space, random.Random(3))
    cell, asked = next(proposals), []
    for _ in range(2_000):
        asked.append(cell)
        cell = proposals.send(trainer.accuracy_of(cell))

    def worth(graph):
        return trainer.accuracy_of(space.cell(graph))

    climbs = 0
    for here, there in zip(visited, visited[1:]):
        best = max(map(worth, neighbours(here)))
        if best > worth(here):
            assert there in neighbours(here) and worth(there) == best
            climbs += 1
    assert 10 < climbs < len(visited) - 10  # else it never came to a local best
    expected = [space.cell(graph) for graph in neighbours(visited[0])]
    assert asked[0] == space.cell(visited[0]) and Counter(asked[1 : 1 + len(expected)]) == Counter(expected)


def test_q_learning_counts_epsilon_by_unique_samples():
    assert [baselines._epsilon(n) for n in (0, 1_499, 1_500, 1_600, 1_799, 1_800, 2_549, 2_550, 10**6)] == [
        1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.2, 0.1, 0.1,
    ]  # fmt: skip


def test_q_learning_learns(small_table, monkeypatch):
    """Greedy from the fiftieth sample on, it goes on to the better of the cells it knows."""
    monkeypatch.setattr(baselines, "EPSILONS", ((1.0, 40), (0.0, 10**9)))
    trainer = trainer_of(small_table, "isomorphic")
    proposals = baselines.q_learning(Space(trainer), random.Random(0))
    cell, values = next(proposals), []
    for _ in range(3_000):
        values.append(trainer.train_net(cell))
        cell = proposals.send(values[-1])
    assert np.mean(values[-100:]) > np.mean(values[:100]) + 0.05
    assert values[-1] > np.median(small_table.columns["test"])


@pytest.mark.parametrize(
    "method, lookup",
    [("predictor", "isomorphic"), *product(["random", "evolution", "local-search", "q-learning", "tpe"], LOOKUPS)],
)
def test_the_same_seed_gives_the_same_samples(small_table, small_predictor, method, lookup):
    def run(seed):
        trainer = trainer_of(small_table, lookup)
        outcome = Search(method, trainer, seed).search(samples=25, patience=2_000)
        assert outcome == "samples" and trainer.unique_samples == 25 or trainer.found
        return list(trainer.training_trace.items())

    first = run(1)
    assert first == run(1) and first != run(2)
    assert first == [(index, small_table.columns["test"][index]) for index, _ in first]


def test_the_predictor_asks_for_all_cells_at_last(small_table, small_predictor):
    """Both forms, ten at a time; the last ones are hard to come by at random."""
    small_table.columns["test"][cells.index((0, 1), 0b101101)] = np.nan
    for method in ("predictor", "predictor-enumerating"):
        trainer = trainer_of(small_table, "isomorphic")
        trainer.target_accuracy = 2.0
        assert Search(method, trainer, 0).search() == "exhausted"
        assert trainer.unique_samples == 90


def test_smac_proposes_what_its_library_says(small_table):
    pytest.importorskip("smac")
    trainer = trainer_of(small_table, "isomorphic")
    trainer.target_accuracy = 2.0
    search = Search("smac", trainer, 0)
    assert search.search(samples=12) == "samples" and trainer.unique_samples == 12


# --- counting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hyperband", "bohb"])
def test_partial_trainings_count_in_proportion(epochs_table, method):
    pytest.importorskip("optuna")
    trainer = trainer_of(epochs_table, "isomorphic", "valid")
    trainer.target_accuracy = 2.0
    search, asked = Search(method, trainer, 0), []
    answer = search.answer
    search.answer = lambda question: asked.append(question) or answer(question)
    assert search.search(samples=12) == "samples"
    partial = {(trainer.index(q.cell), q.epochs) for q in asked if isinstance(q, Partial) and search.space.has(q.cell)}
    assert search.cost == pytest.approx(trainer.unique_samples + sum(e for _, e in partial) / FULL)
    assert 0 < trainer.unique_samples < len({index for index, _ in partial})  # most are stopped early
    assert search.costs == sorted(search.costs) and len(search.costs) == len(trainer.best_trace)


@pytest.mark.parametrize("method", ["hyperband", "bohb"])
def test_methods_that_need_epochs_say_so(small_table, method):
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match="4, 12 and 36 epochs"):
        Search(method, trainer_of(small_table), 0).search(samples=5)


def test_cells_outside_are_told_as_0_and_repeats_are_not_counted(small_table, monkeypatch):
    told = []

    def stubborn(space, rng):
        best, outside = State((0, 1), 0b101101, True), State((0, 1), 0, True)
        for cell in (best, outside, best, State((), 1, True)):
            told.append((yield cell))

    monkeypatch.setitem(METHODS, "stubborn", stubborn)
    trainer = trainer_of(small_table)
    trainer.target_accuracy = 2.0
    assert Search("stubborn", trainer, 0).search() == "exhausted"
    assert told == [0.9359642, 0.0, 0.9359642, small_table.columns["test"][0]]
    assert (trainer.unique_samples, trainer.counter) == (2, 4)
    trainer = trainer_of(small_table)
    assert Search("stubborn", trainer, 0).search() == "found"
    trainer = trainer_of(small_table)
    trainer.target_accuracy = 2.0
    assert Search("stubborn", trainer, 0).search(patience=1) == "stalled"
