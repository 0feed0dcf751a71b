"""Rollouts: from a state at random to a finished cell of the data set.

A rollout acts uniformly at random. Where that leads to None it starts again, uncounted; where it ends in a cell outside
the data set it starts again and counts a failure, and after 1,001 failures it gives up. Walking like that takes
thousands of rejected steps. The two classes below draw from the same distribution without them; which one fits depends
on how many labelled cells the data set answers to.
"""

import math
import random

import numpy as np

from arch_generator import State
from space import Space

FAILURES = 1_001  # cells outside the data set after which a rollout gives up; the original's value


class ExactRollout:
    """Rollouts under the exact lookup: few labelled cells are in the data set, so they can be listed.

    From a state with e edges, every set of k edges around it is reached with the same probability
    ``stop[k] / C(possible - e, k - e)`` (``arch_generator.random_walk``). Let F be the sum of that over the
    cells of the data set, plus what more vertices lead to, and G the probability of ending elsewhere. One
    attempt then fails with probability ``G / (F + G)``, and where the rollout does not give up, its result is
    one of the cells with probability in proportion.
    """

    def __init__(self, space: Space, rng: random.Random):
        self.generator, self.rng = space.generator, rng
        self._cells: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._weights: dict[tuple[int, int], np.ndarray] = {}
        self._from_empty: dict[tuple[int, ...], float] = {}
        self._from_larger: dict[tuple[int, ...], float] = {}  # the sum of that over the states with one vertex more
        for vertices in range(self.generator.max_nodes, 1, -1):
            for operations, edges in space.groups(vertices):
                self._cells[operations] = edges, np.bitwise_count(edges).astype(np.intp)
                larger = [(*operations, o) for o in range(3)] if vertices < self.generator.max_nodes else []
                self._from_larger[operations] = sum(self._from_empty[o] for o in larger)
                self._from_empty[operations] = self._reach(State(operations))[0]

    def __call__(self, state: State) -> State | None:
        """A finished cell of the data set; None where the rollout gives up."""
        total, around, chances = self._reach(state)
        failure = 1 - total / self.generator.ended(state.vertices, state.edges.bit_count())
        if total == 0 or self.rng.random() < failure**FAILURES:
            return None
        while True:
            pick = self.rng.random() * total
            if len(around) and pick < chances[-1]:
                edges, _ = self._cells[state.operations]
                return State(state.operations, int(edges[around[chances.searchsorted(pick, "right")]]), True)
            larger = [(*state.operations, o) for o in range(3)]
            (operations,) = self.rng.choices(larger, [self._from_empty[o] for o in larger])
            state = State(operations)
            total, around, chances = self._reach(state)

    def _reach(self, state: State) -> tuple[float, np.ndarray, np.ndarray]:
        """F of a state; which cells of the data set with its vertices are around it; their probabilities, cumulated."""
        edges, counts = self._cells[state.operations]
        (around,) = (edges & state.edges == state.edges).nonzero()
        used = state.edges.bit_count()
        chances = self._weight(state.vertices, used).take(counts.take(around)).cumsum()
        total = float(chances[-1]) if len(chances) else 0.0
        _, leave = self.generator.random_walk(state.vertices, used)
        if leave:
            total += leave / 3 * self._from_larger[state.operations]
        return total, around, chances

    def _weight(self, vertices: int, used: int) -> np.ndarray:
        """float64 [MAX_EDGES + 1]: the probability of each single set of k edges around ``used`` given ones."""
        if (vertices, used) not in self._weights:
            stop, _ = self.generator.random_walk(vertices, used)
            free = vertices * (vertices - 1) // 2 - used
            self._weights[vertices, used] = np.array(
                [p / math.comb(free, k - used) if p else 0.0 for k, p in enumerate(stop)]
            )
        return self._weights[vertices, used]


class IsomorphicRollout:
    """Rollouts under the isomorphic lookup: most labelled cells are in the data set, so attempts are drawn.

    An attempt draws where ``term`` is taken (how many vertices and edges, ``arch_generator.random_walk``),
    which is one step instead of a walk, and never ends in ``None``. Its edges are any ones, equally likely.
    """

    def __init__(self, space: Space, rng: random.Random):
        self.space, self.generator, self.rng = space, space.generator, rng

    def __call__(self, state: State) -> State | None:
        """A finished cell of the data set; None where the rollout gives up."""
        for _ in range(FAILURES):
            cell = self._attempt(state)
            if self.space.has(cell):
                return cell
        return None

    def _attempt(self, state: State) -> State:
        while True:
            used = state.edges.bit_count()
            stop, leave = self.generator.random_walk(state.vertices, used)
            more = leave * self.generator.ended(state.vertices + 1, 0) if leave else 0.0
            (edges_at_end,) = self.rng.choices(range(len(stop) + 1), [*stop, more])
            if edges_at_end < len(stop):
                break
            state = State((*state.operations, self.rng.randrange(3)))
        possible = state.vertices * (state.vertices - 1) // 2
        free = [bit for bit in range(possible) if not state.edges >> bit & 1]
        added = sum(1 << bit for bit in self.rng.sample(free, edges_at_end - used))
        return State(state.operations, state.edges | added, True)


ROLLOUTS = {"exact": ExactRollout, "isomorphic": IsomorphicRollout}
