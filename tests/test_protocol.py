"""``compare.py --protocol`` and ``--over seconds``: the published settings, what counts as a query, seconds by hand."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from conftest import assert_refused, run

import comparison_protocol
from arch_generator import arch_generator
from comparison_report import over_seconds
from driver import Driver
from method import GeneratorMethod
from nasbench_dataset import cells
from nasbench_dataset.table import EMBEDDED, Table, save
from net_training import NetTrainer
from space import FULL, Space
from training_time import TimedTrainer

METHODS = comparison_protocol.METHODS


@pytest.fixture
def space() -> Space:
    return Space(arch_generator(5), "isomorphic")


def asked(proposals, accuracy, count: int) -> list:
    """The first cells that a method asks for, told what ``accuracy`` gives."""
    found = [next(proposals)]
    while len(found) < count:
        found.append(proposals.send(accuracy(found[-1])))
    return found


def worth(space: Space):
    """A landscape of one hill: the more conv3x3 the better, then the index of the cell."""
    return lambda cell: cell.operations.count(0) / 10 + space.index(cell) / 1e6


def test_random_search_and_local_search_ask_for_no_cell_twice(space):
    for name in ("protocol-random", "protocol-local-search"):
        found = asked(METHODS[name](space, random.Random(0)), worth(space), 300)
        assert max(Counter(map(space.index, found)).values()) == 1, name


def test_random_search_ends_when_it_has_all():
    space = Space(arch_generator(3), "isomorphic")
    assert sorted(map(space.index, METHODS["protocol-random"](space, random.Random(0)))) == list(range(7))


def test_random_graphs_are_those_of_the_protocol():
    """Each edge with probability 1/2: a graph of 7 vertices stands for one of two vertices about every tenth time."""
    space, rng = Space(arch_generator(7), "isomorphic"), random.Random(0)
    sizes = Counter(len(space.cell(space.graph(rng)).operations) + 2 for _ in range(3_000))
    assert sizes[2] / 3_000 == pytest.approx(0.0973, abs=0.02)  # by counting all graphs
    assert sizes[5] / 3_000 == pytest.approx(0.3032, abs=0.03)


def test_evolution_mutates_the_best_of_the_last_thirty(space, monkeypatch):
    parents, mutate = [], space.mutate
    noted = lambda graph, *rest, **how: parents.append(graph) or mutate(graph, *rest, **how)  # noqa: E731
    monkeypatch.setattr(space, "mutate", noted)
    proposals = METHODS["protocol-evolution"](space, random.Random(0))
    next(proposals)
    for number in range(9):
        proposals.send(number / 1_000)
    assert not parents
    proposals.send(0.9)  # the tenth, and by far the best
    for _ in range(29):
        proposals.send(0.0)
    best = Counter(parents).most_common(1)[0]
    assert best[1] >= 15  # a tournament of 10 out of at most 30 meets it with probability .29 or more
    before = len(parents)
    for _ in range(100):
        proposals.send(0.0)
    assert best[0] not in parents[before + 1 :]  # it has left


def test_repeated_cells_count_as_queries_of_evolution_alone():
    table = Table({"valid": np.linspace(0.8, 0.9, 91)}, "made up", False)
    trainer = NetTrainer(table, arch_generator(4), "valid", "isomorphic")
    proposals = comparison_protocol.limited(METHODS["protocol-evolution"](trainer.space, random.Random(0)), 40)
    driver = Driver(GeneratorMethod(proposals, trainer.space), trainer)
    assert driver.run(samples=40) == "exhausted"
    assert driver.history.counter == 40 > driver.history.unique_samples


def test_local_search_steps_to_the_first_better_neighbour(space):
    accuracy = worth(space)
    found = asked(METHODS["protocol-local-search"](space, random.Random(0)), accuracy, 40)
    start = max(found[:10], key=accuracy)
    climbed, here = 0, accuracy(start)
    for cell in found[10:25]:
        climbed += accuracy(cell) > here
        here = max(here, accuracy(cell))
    assert climbed >= 3


def test_the_command_prints_what_was_published_beside_it(tmp_path):
    options = ["--trials", 2, "--quiet", "--jobs", 1, "--dataset", EMBEDDED, "--out", tmp_path]
    result = run("compare.py", "--protocol", 20, *options)
    assert result.returncode == 0, result.stderr
    assert "6.109 (regularized evolution)" in result.stdout and "| protocol-local-search | 2 |" in result.stdout
    trials = [json.loads(path.read_text()) for path in (tmp_path / "trials").iterdir()]
    assert len(trials) == 6
    for trial in trials:
        assert trial["trial"]["metric"] == "valid" and trial["trial"]["lookup"] == "isomorphic"
        assert trial["lookups"] == 20 or trial["outcome"] == "found"


def test_seconds_of_training_by_hand():
    columns = {"valid": np.linspace(0.8, 0.9, 7), "valid_36": np.linspace(0.5, 0.6, 7)}
    columns["train_seconds"] = np.arange(7) * 100.0
    table = Table(columns, "made up", False)
    trainer = NetTrainer(table, arch_generator(3), "valid")
    timed = TimedTrainer(trainer, table)
    questions = [(1, FULL), (2, 36), (3, FULL)]

    def proposals():
        for index, epochs in questions:
            yield _finished(index), epochs

    driver = Driver(GeneratorMethod(proposals(), trainer.space), timed)
    driver.run()
    assert timed.at_sample == pytest.approx([100, 100 + 200 * 36 / 108 + 300]) and timed.seconds == timed.at_sample[-1]


def _finished(index: int):
    from arch_generator import State

    return State(*cells.cell(index), True)


def test_seconds_in_place_of_samples():
    result = {"samples": 9, "trace": [[1, 0.5, 0.4], [7, 0.6, 0.5]], "trained": [100.0, 900.0, 1_200.0]}
    found = over_seconds(result)
    assert found["samples"] == 1_200 and found["trace"] == [[100, 0.5, 0.4], [900, 0.6, 0.5]]


def test_a_comparison_over_seconds(tmp_path):
    options = ["--methods", "random", "--max-nodes", 4, "--trials", 2, "--quiet", "--jobs", 1, "--out", tmp_path]
    result = run("compare.py", *options, "--dataset", EMBEDDED, "--over", "seconds", "--at", "20000")
    assert result.returncode == 0, result.stderr
    assert "Seconds of training to the best cell" in result.stdout
    assert "after so many seconds of training" in result.stdout
    save(Table({"test": np.linspace(0.8, 0.9, 91)}, "made up", False), tmp_path / "t.pickle")
    without = run("compare.py", *options, "--dataset", tmp_path / "t.pickle", "--over", "seconds")
    assert_refused(without, "seconds of training", "t.pickle")
