"""The methods that the tree search is compared with, each as a short generator that asks and is told.

    proposals = random_search(space, random.Random(0))
    cell = next(proposals)                  it asks for the accuracy of a cell,
    cell = proposals.send(accuracy)         is told it (0 where there is none), and asks again

A method knows the search space and which cells are in the data set (``space.Space``), as NAS-Bench-101's own interface
tells everyone; accuracies it knows only by asking. ``method.GeneratorMethod`` lets a driver run one, which looks up and
counts unique samples as for the tree search.

Most methods work on *graphs*: ``(operations, edges)`` of exactly ``max_nodes`` vertices, as in NAS-Bench-101
(Ying et al. 2019). Vertices on no way from input to output are cut off before a cell is looked up, so a graph also
stands for the smaller cells. Methods by libraries are in library_methods.py; those that learn from all their samples,
as published, in learned_methods.py.
"""

import math
import random
from collections import deque
from typing import TYPE_CHECKING, Callable, Iterator

import numpy as np

import learned_methods
from arch_generator import ROOT, Action, State
from library_methods import bohb, hyperband, smac, tpe
from method import Proposals
from nasbench_dataset import cells
from space import Graph, Space

if TYPE_CHECKING:  # Keras is imported by the predictor alone
    from meta_dnn import MetaDNN

POPULATION, TOURNAMENT = 100, 10  # regularized evolution; Ying et al. 2019, section 4
LEARNING_RATE = 0.1  # Q-learning; ours: Baker et al. use .01 and replay each sample many times
INITIAL_Q = 0.5  # Baker et al. 2017
# Chance of a random action, and after how many unique samples the next one is taken (Baker et al. 2017, table 2).
EPSILONS = ((1.0, 1500), (0.9, 100), (0.8, 100), (0.7, 100), *((e / 10, 150) for e in (6, 5, 4, 3, 2)), (0.1, math.inf))
ROUND, TOP_SHARE = 100, 0.2  # predictor: new samples of a round, or that share of all samples, if that is more
POOL = 20  # predictor: candidates to choose one from

Epsilons = tuple[tuple[float, float], ...]


def random_search(space: Space, rng: random.Random) -> Proposals:
    """Uniformly random labelled cells."""
    for cell in space.labelled_cells(rng):
        yield cell


def regularized_evolution(space: Space, rng: random.Random) -> Proposals:
    """The best of a random tournament is mutated, its child joins, the oldest member leaves (Real et al. 2019)."""
    population: deque[tuple[float, Graph]] = deque()
    while True:
        if len(population) < POPULATION:
            graph = space.graph(rng)
        else:
            graph = space.mutate(max(rng.sample(population, TOURNAMENT))[1], rng)
        population.append(((yield space.cell(graph)), graph))
        if len(population) > POPULATION:
            population.popleft()


def local_search(space: Space, rng: random.Random) -> Proposals:
    """From a random graph to its best neighbour, as long as that is better; then from another (White et al. 2021)."""
    while True:
        graph = space.graph(rng)
        accuracy = yield space.cell(graph)
        while True:
            neighbours = space.neighbours(graph)
            rng.shuffle(neighbours)
            judged = []
            for neighbour in neighbours:
                judged.append(((yield space.cell(neighbour)), neighbour))
            best = max(judged, default=(0.0, graph), key=lambda pair: pair[0])
            if best[0] <= accuracy:
                break
            accuracy, graph = best


def q_learning(space: Space, rng: random.Random, epsilons: Epsilons = EPSILONS) -> Proposals:
    """Greedy Q-learning over the states and actions of AlphaX (after Baker et al. 2017, without their replay)."""
    generator, q, sampled = space.generator, {}, set()

    def values(state: State) -> dict[Action, float]:
        if state not in q:
            possible = [a for a in generator.actions(state) if generator.transition(state, a) is not None]
            q[state] = dict.fromkeys(possible, INITIAL_Q)
        return q[state]

    while True:
        epsilon, walk, state = epsilon_after(len(sampled), epsilons), [], ROOT
        while not state.finished:
            known = values(state)
            highest = max(known.values())
            greedy = rng.random() >= epsilon
            action = rng.choice([a for a, value in known.items() if not greedy or value == highest])
            walk.append((state, action))
            state = generator.transition(state, action)
        accuracy = future = yield state
        if accuracy:
            sampled.add(space.index(state))
        for state, action in reversed(walk):  # the reward comes at the end alone, and is not discounted
            q[state][action] += LEARNING_RATE * (future - q[state][action])
            future = max(q[state].values())


def epsilon_after(samples: int, epsilons: Epsilons = EPSILONS) -> float:
    """The chance of a random action after so many unique samples."""
    for epsilon, count in epsilons:
        if samples < count:
            return epsilon
        samples -= count
    return epsilons[-1][0]


def predictor(
    space: Space,
    rng: random.Random,
    enumerate_table: bool = False,
    least: int = ROUND,
    new_network: "Callable[[int], MetaDNN] | None" = None,
) -> Proposals:
    """The most promising cells by the Meta-DNN, which is fitted again to all samples before each round.

    The first round asks for random cells. Each later one looks at candidates, random cells and mutations of the best
    samples, and asks for the best of them.

    Parameters
    ----------
    enumerate_table : bool
        The candidates are all cells of the data set, which no real search space allows.
    least : int
        Cells that a round asks for at least.
    new_network : callable, optional
        Makes the network of a seed.
    """
    from meta_dnn import MetaDNN

    network, told = (new_network or MetaDNN)(rng.getrandbits(32)), {}
    batch = _different(space, space.labelled_cells(rng), least, told)
    while batch:
        for index, cell in batch.items():
            told[index] = yield cell
        network.add([cells.cell(index) for index in batch], [told[index] for index in batch])
        network.fit()
        size = max(least, int(TOP_SHARE * len(told)))
        if enumerate_table:
            candidates = {i: State(*cells.cell(i), True) for i in space.all_cells().tolist() if i not in told}
        else:
            candidates = _different(space, _promising(space, told, rng), POOL * size, told)
        predicted = network.predict([cells.cell(index) for index in candidates])
        best = [list(candidates)[place] for place in np.argsort(-predicted, kind="stable")[:size]]
        batch = {index: candidates[index] for index in best}


def predictor_enumerating(space: Space, rng: random.Random) -> Proposals:
    """The same, choosing from the whole table."""
    return predictor(space, rng, enumerate_table=True)


def _different(space: Space, proposals: Iterator[State], count: int, known: dict) -> dict[int, State]:
    """So many different new cells, or fewer where few are left."""
    found: dict[int, State] = {}
    for _ in range(20 * count):
        cell = next(proposals)
        index = space.index(cell)
        if index not in known:
            found.setdefault(index, cell)
        if len(found) == count:
            break
    return found


def _promising(space: Space, told: dict[int, float], rng: random.Random) -> Iterator[State]:
    """By turns random cells and mutations of the best samples."""
    anywhere = space.labelled_cells(rng)
    best = sorted(told, key=told.get, reverse=True)[:POPULATION]
    while True:
        yield next(anywhere)
        yield space.cell(space.mutate(space.grown(cells.cell(rng.choice(best))), rng))


METHODS: dict[str, Callable[[Space, random.Random], Proposals]] = {
    "random": random_search,
    "evolution": regularized_evolution,
    "local-search": local_search,
    "q-learning": q_learning,
    "predictor": predictor,
    "predictor-enumerating": predictor_enumerating,
    "tpe": tpe,
    "smac": smac,
    "hyperband": hyperband,
    "bohb": bohb,
    **learned_methods.METHODS,
}
