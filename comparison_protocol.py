"""The protocol by which the field compares methods on NAS-Bench-101 at small budgets: ``compare.py --protocol 150``.

White et al. (BANANAS, arXiv 1910.11858; local search, arXiv 2005.02960): all cells of up to 7 vertices, isomorphic ones
are one; 150 queries guided by mean validation accuracy; then the mean test error of the queried cell that is best by
validation accuracy, averaged over 200 trials. Its random search, evolution and local search have settings of their own;
they are the methods ``protocol-random``, ``protocol-evolution`` and ``protocol-local-search``.
"""

import random
from collections import deque
from typing import Callable, Iterator

import numpy as np

from method import Proposals
from nasbench_dataset import cells
from space import Graph, Space

QUERIES, TRIALS = 150, 200
SETTINGS = {"max_nodes": 7, "max_edges": cells.MAX_EDGES, "lookup": "isomorphic", "metric": "valid"}
FIRST, POPULATION, TOURNAMENT = 10, 30, 10

# Mean test error (%) after 150 queries, 200 trials, on NAS-Bench-101 itself.
PUBLISHED = {
    "protocol-random": ("random", 6.341),
    "protocol-evolution": ("regularized evolution", 6.109),
    "protocol-local-search": ("local search", 5.932),
    "mcts": ("AlphaX", 6.233),
    "bohb": ("BOHB", 6.356),
    "tpe": ("TPE", 6.415),
    "bananas": ("BANANAS", 5.923),
}


def protocol_random(space: Space, rng: random.Random) -> Proposals:
    """Random graphs: each edge with probability 1/2, each operation as likely; a repeated cell is drawn again."""
    for _, graph in _new_graphs(space, rng, set()):
        yield space.cell(graph)


def protocol_evolution(space: Space, rng: random.Random) -> Proposals:
    """From 10 random graphs on, the best of 10 of the last 30 is mutated; a repeated cell counts as a query."""
    population: deque[tuple[float, Graph]] = deque(maxlen=POPULATION)
    while True:
        graph = space.graph(rng)
        if len(population) >= FIRST:
            parent = max(rng.choices(population, k=TOURNAMENT), key=lambda member: member[0])[1]
            graph = space.mutate(parent, rng, edge_chance=1 / space.edge_count)
        population.append(((yield space.cell(graph)), graph))


def protocol_local_search(space: Space, rng: random.Random) -> Proposals:
    """From the best of 10 random graphs to the first neighbour that is better, until none is; then from 10 others."""
    known: dict[int, float] = {}
    new = _new_graphs(space, rng, known)
    while True:
        best = -1.0, (), 0
        for _, (index, graph) in zip(range(FIRST), new):
            known[index] = yield space.cell(graph)
            best = max(best, (known[index], *graph), key=lambda member: member[0])
        improved = best[0] >= 0
        if not improved:  # no new cell was left
            return
        while improved:
            accuracy, *graph = best
            neighbours, improved = space.neighbours(tuple(graph)), False
            rng.shuffle(neighbours)
            for neighbour in neighbours:
                index = space.index(space.cell(neighbour))
                if index not in known:
                    known[index] = yield space.cell(neighbour)
                if known[index] > accuracy:
                    best, improved = (known[index], *neighbour), True
                    break


METHODS: dict[str, Callable[[Space, random.Random], Proposals]] = {
    "protocol-random": protocol_random,
    "protocol-evolution": protocol_evolution,
    "protocol-local-search": protocol_local_search,
}


def _new_graphs(space: Space, rng: random.Random, known: set | dict) -> Iterator[tuple[int, Graph]]:
    """Random graphs of cells that are not known yet, each made known if ``known`` is a set; ends where none is left."""
    everything = len(space.all_cells())
    while len(known) < everything:
        graph = space.graph(rng)
        index = space.index(space.cell(graph))
        if index not in known:
            if isinstance(known, set):
                known.add(index)
            yield index, graph


REPEATS_COUNT = ("protocol-evolution",)


def limited(proposals: Proposals, queries: int) -> Proposals:
    """The same proposals, so many of them: for methods of which a repeated cell counts as a query."""
    cell = next(proposals)
    for _ in range(queries - 1):
        cell = proposals.send((yield cell))
    yield cell


def errors_table(results: dict[str, list[dict]]) -> list[str]:
    """Lines of a table: mean test error of what each method found in the end, beside the published one.

    Parameters
    ----------
    results : dict of str to list of dict
        The results of each method's trials (``compare.run_trial``).
    """
    lines = ["Mean test error (%) of the best by validation accuracy after all queries, ± its standard error:", ""]
    lines += ["| method | trials | here | published |", "|-|-|-|-|"]
    for method, trials in results.items():
        errors = np.array([100 * (1 - trial["trace"][-1][2]) for trial in trials])
        spread = f" ± {errors.std(ddof=1) / np.sqrt(len(errors)):.3f}" if len(errors) > 1 else ""
        name, published = PUBLISHED.get(method, ("", None))
        words = f"{published:.3f} ({name})" if published else ""
        lines.append(f"| {method} | {len(errors)} | {errors.mean():.3f}{spread} | {words} |")
    return lines
