"""The search again, as plainly as it can be said: states as JSON strings, rollouts by walking.

An independent oracle for tests; slow, and sharing nothing with the project but the names of operations.
(``plain_table`` turns a table of the project into what the oracle searches.)
"""

import json
import math
import random
from itertools import product

from arch_generator import State
from net_training import NetTrainer

OPERATIONS = ["conv1x1-bn-relu", "conv3x3-bn-relu", "maxpool3x3"]
START = {"adj_mat": [[0, 0], [0, 0]], "node_list": ["input", "output"]}


def name(state):
    return json.dumps(state, sort_keys=True)


def successors(state, max_nodes, max_edges):
    """The names of the successors, None for actions beyond a limit."""
    labels, matrix = state["node_list"], state["adj_mat"]
    result = []
    for operation in OPERATIONS:
        empty = [[0] * (len(labels) + 1) for _ in range(len(labels) + 1)]
        larger = {"adj_mat": empty, "node_list": labels[:-1] + [operation, "output"]}
        result.append(name(larger) if len(labels) < max_nodes else None)
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if not matrix[i][j]:
                denser = [row[:] for row in matrix]
                denser[i][j] = 1
                full = sum(map(sum, denser)) > max_edges
                result.append(None if full else name({"adj_mat": denser, "node_list": labels}))
    return result + [name({"adj_mat": matrix, "node_list": labels + ["term"]})]


def plain_table(trainer: NetTrainer) -> dict[str, float]:
    """``name of a finished cell -> accuracy`` over all labelled cells that the look-up answers to."""
    plain = {}
    for vertices in range(2, trainer.generator.max_nodes + 1):
        for operations in product(range(3), repeat=vertices - 2):
            for edges in range(1 << (vertices * (vertices - 1) // 2)):
                cell = State(operations, edges, True)
                accuracy = trainer.accuracy_of(cell)
                if accuracy is not None:
                    plain[name(cell.to_dict())] = accuracy
    return plain


class Search:
    """``table``: name of a finished cell (with "term") -> accuracy."""

    def __init__(self, table, max_nodes, max_edges=9, seed=0, cp=2.0):
        self.table, self.limits, self.cp = table, (max_nodes, max_edges), cp
        self.rng = random.Random(seed)
        self.successors_of, self.x, self.n, self.parent, self.samples = {}, {}, {}, {}, {}
        self.root = name(START)
        self.parent[self.root], self.n[self.root], self.x[self.root] = None, 1, self.value(self.root)

    def successors(self, state):
        if state not in self.successors_of:
            self.successors_of[state] = successors(json.loads(state), *self.limits)
        return self.successors_of[state]

    def rollout(self, start):
        """A finished cell of the table, or None after 1,001 failures."""
        state, failures = start, 0
        while failures < 1_001:
            state = self.rng.choice(self.successors(state))
            if state is None:
                state = start
            elif '"term"' in state:
                if state in self.table:
                    return state
                state, failures = start, failures + 1
        return None

    def value(self, state):
        cell = state if '"term"' in state else self.rollout(state)
        if cell is None:
            return 0.1
        if cell in self.table:
            self.samples[cell] = self.table[cell]
        return self.table.get(cell, 0)

    def back_up(self, state, reward):
        while self.parent[state] is not None:
            state = self.parent[state]
            self.n[state] += 1
            self.x[state] += (reward - self.x[state]) / self.n[state]

    def uct(self, state, child):
        if child is None:
            return 0
        if child not in self.n:
            return math.inf
        return self.x[child] + 2 * self.cp * math.sqrt(2 * math.log(self.n[state]) / self.n[child])

    def episode(self):
        state = self.root
        while True:
            values = [self.uct(state, child) for child in self.successors(state)]
            best = [c for c, v in zip(self.successors(state), values) if v == max(values)]
            child = self.rng.choice(best)
            if child is None:
                return self.back_up(state, 0)
            if child not in self.n:
                self.parent[child], self.n[child] = state, 1
                self.x[child] = self.value(child)
                if self.x[child] > 0:
                    self.back_up(child, self.x[child])
                return None
            if '"term"' in child:
                self.n[child] += 1
                return self.back_up(child, self.x[child])
            state = child
