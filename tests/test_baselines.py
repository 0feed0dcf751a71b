"""The methods of comparison: what they propose, what they are told, and how their samples are counted."""

import random
import sys
from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import pytest

import baselines
import meta_dnn
from arch_generator import arch_generator
from baselines import METHODS
from driver import Driver
from method import GeneratorMethod, Question
from nasbench_dataset import InputError, cells
from nasbench_dataset.table import Table, from_entries
from net_training import NetTrainer
from space import FULL, LOOKUPS, PARTIAL, Space

SMALL = (16, "relu", "GlorotUniform"), (1, "sigmoid", "GlorotUniform")  # layers of a Meta-DNN, for speed
small_predictor = partial(baselines.predictor, least=10, new_network=partial(meta_dnn.MetaDNN, layers=SMALL))


def trainer_of(table: Table, lookup: str = "exact", metric: str = "test") -> NetTrainer:
    return NetTrainer(table, arch_generator(4), metric, lookup)


def driver_of(method: str, trainer: NetTrainer, seed: int = 0, target: float | None = None) -> Driver:
    proposals = {**METHODS, "predictor": small_predictor}[method](trainer.space, random.Random(seed))
    return Driver(GeneratorMethod(proposals, trainer.space), trainer, target)


@pytest.fixture
def epochs_table(small_table) -> Table:
    """The made-up table with validation accuracies after 4, 12, 36 and 108 epochs, each nearer to the last."""
    rng = np.random.default_rng(1)
    valid = small_table.columns["test"] + 0.005
    partly = {f"valid_{e}": valid - rng.uniform(0, 1 / e, len(valid)) for e in PARTIAL}
    return Table({**small_table.columns, "valid": valid, **partly}, "made up", False)


def test_every_method_is_named():
    assert list(METHODS) == [
        "random", "evolution", "local-search", "q-learning", "predictor", "predictor-enumerating",
        "tpe", "smac", "hyperband", "bohb", "bananas", "lanas", "npenas", "nas-bowl", "top-k",
    ]  # fmt: skip
    assert all(method.__doc__ for method in METHODS.values())


def test_random_search_needs_half_the_domain(small_table):
    trainer, needed = trainer_of(small_table), []
    for seed in range(400):
        driver = driver_of("random", trainer, seed, trainer.target_accuracy)
        assert driver.run() == "found"
        needed.append(driver.history.unique_samples)
    assert np.mean(needed) == pytest.approx(46, abs=4 * 26.3 / 20)  # uniform on 1..91


def test_evolution_mutates_winners_of_tournaments_and_forgets_the_old(monkeypatch):
    space, rng, parents = Space(arch_generator(6), "isomorphic"), random.Random(0), []
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
    space, visited = trainer.space, []
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
    """Baker et al. 2017, table 2."""
    samples = 0, 1_499, 1_500, 1_600, 1_799, 1_800, 2_549, 2_550, 10**6
    assert [baselines.epsilon_after(n) for n in samples] == [1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.2, 0.1, 0.1]
    assert baselines.epsilon_after(41, ((1.0, 40), (0.0, 10**9))) == 0.0


def test_q_learning_learns(small_table):
    """Greedy from the fortieth sample on, it goes on to the better of the cells it knows."""
    trainer = trainer_of(small_table, "isomorphic")
    proposals = baselines.q_learning(trainer.space, random.Random(0), ((1.0, 40), (0.0, 10**9)))
    cell, values = next(proposals), []
    for _ in range(3_000):
        values.append(trainer.accuracy_of(cell) or 0.0)
        cell = proposals.send(values[-1])
    assert np.mean(values[-100:]) > np.mean(values[:100]) + 0.05
    assert values[-1] > np.median(small_table.columns["test"])


@pytest.mark.parametrize(
    "method, lookup",
    [("predictor", "isomorphic"), *product(["random", "evolution", "local-search", "q-learning", "tpe"], LOOKUPS)],
)
def test_the_same_seed_gives_the_same_samples(small_table, method, lookup):
    trainer = trainer_of(small_table, lookup)

    def run(seed):
        driver = driver_of(method, trainer, seed)
        assert driver.run(samples=25, patience=2_000) == "samples"
        return list(driver.history.training_trace.items())

    first = run(1)
    assert first == run(1) and first != run(2)
    assert first == [(index, small_table.columns["test"][index]) for index, _ in first]


@pytest.mark.parametrize("enumerating", [False, True])
def test_the_predictor_asks_for_all_cells_at_last(small_table, enumerating):
    """Ten at a time; the last ones are hard to come by at random."""
    small_table.columns["test"][cells.index((0, 1), 0b101101)] = np.nan
    trainer = trainer_of(small_table, "isomorphic")
    proposals = small_predictor(trainer.space, random.Random(0), enumerating)
    driver = Driver(GeneratorMethod(proposals, trainer.space), trainer)
    assert driver.run() == "exhausted"
    assert driver.history.unique_samples == 90


def test_the_predictor_asks_for_what_it_finds_best(small_table):
    """After a random round, those of all other cells for which its network predicts most."""

    class Network:
        def __init__(self):
            self.added: list[tuple] = []

        def add(self, batch, accuracies):
            self.added += zip(batch, accuracies)

        def fit(self):
            pass

        def predict(self, batch):
            return np.array([cells.index(*cell) for cell in batch], float)

    trainer, network = trainer_of(small_table), Network()
    proposals = baselines.predictor(trainer.space, random.Random(0), True, least=20, new_network=lambda seed: network)
    driver = Driver(GeneratorMethod(proposals, trainer.space), trainer)
    driver.run(samples=60)
    asked = list(driver.history.training_trace)
    for start in (20, 40):
        left = sorted(set(range(91)) - {*asked[:start]}, reverse=True)
        assert asked[start : start + 20] == left[:20]
    assert network.added[:40] == [(cells.cell(i), small_table.columns["test"][i]) for i in asked[:40]]


@pytest.mark.parametrize("method, lookup", [*product(["random", "evolution", "local-search"], LOOKUPS)])
def test_a_table_that_chance_does_not_meet_is_searched_to_its_end(method, lookup):
    """Of half a billion graphs one or two stand for each of its cells."""
    last = range(cells.cell_count() - 5, cells.cell_count())
    table = from_entries("test", {index: 0.9 + 0.01 * (index - last[0]) for index in last}, "made up", measured=False)
    trainer = NetTrainer(table, arch_generator(7), "test", lookup)
    present = np.zeros(cells.cell_count(), bool)
    present[last] = True
    space = Space(trainer.generator, lookup, present, draws=3_000)
    driver = Driver(GeneratorMethod(METHODS[method](space, random.Random(0)), space), trainer, trainer.target_accuracy)
    assert driver.run(patience=1_000) == "found"


# --- by libraries -----------------------------------------------------------------------------


def test_smac_proposes_what_its_library_says(small_table):
    pytest.importorskip("smac")
    driver = driver_of("smac", trainer_of(small_table, "isomorphic"))
    assert driver.run(samples=12) == "samples" and driver.history.unique_samples == 12


@pytest.mark.parametrize("method", ["hyperband", "bohb"])
def test_partial_trainings_count_in_proportion(epochs_table, method):
    pytest.importorskip("optuna")
    trainer = trainer_of(epochs_table, "isomorphic", "valid")
    asked: set[tuple[int, int]] = set()
    driver = driver_of(method, trainer)
    ask = driver.method.ask

    def watched() -> Question:
        question = ask()
        asked.add((question.index, question.epochs))
        return question

    driver.method.ask = watched
    assert driver.run(samples=12) == "samples"
    partly = {(index, epochs) for index, epochs in asked if index != cells.NOT_A_CELL and epochs < FULL}
    history = driver.history
    assert history.cost == pytest.approx(history.unique_samples + sum(epochs for _, epochs in partly) / FULL)
    assert 0 < history.unique_samples < len({index for index, _ in partly})  # most are stopped early
    assert history.costs == sorted(history.costs) and len(history.costs) == len(history.best_trace)


@pytest.mark.parametrize("method", ["hyperband", "bohb"])
def test_methods_that_need_epochs_say_so(small_table, method):
    pytest.importorskip("optuna")
    with pytest.raises(InputError, match="4, 12 and 36 epochs"):
        driver_of(method, trainer_of(small_table)).run(samples=5)


@pytest.mark.parametrize("method", ["tpe", "smac", "hyperband", "bohb"])
def test_without_its_library_a_method_says_what_to_install(epochs_table, method, monkeypatch):
    for name in ("optuna", "smac", "ConfigSpace"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="needs (Optuna|SMAC); pip install -r requirements-compare.txt"):
        driver_of(method, trainer_of(epochs_table, metric="valid")).run(samples=1)
