"""Which nodes of a tree are drawn, and where: the root in the middle, each ring one action further from it."""

import math
from dataclasses import dataclass

import numpy as np

from arch_generator import State
from saved_run import Run, best_sample

MAX_DRAWN, MAX_IN_PAGE = 1_200, 5_000  # nodes; more of them run into each other


@dataclass
class Drawing:
    """The part of a tree that is drawn; all numbers of nodes are positions in ``drawn``.

    Attributes
    ----------
    drawn : int [D]
        The nodes, in the order in which they and all their ancestors were there; the parent of each is among them.
    appears : int [D]
        The number of the node with whose creation each was there with all its ancestors, itself mostly.
    parent : int [D]
        -1 for the root.
    least : int
        All nodes with at least so many visits are drawn; others only where they lead to these, or on the best path.
    x, y : float [D]
        In a circle of radius 1.
    best, high, low : list of int
        Paths from the root.
    best_cell : State or None
        The best network of the search (``best_sample``).
    best_accuracy : float
    best_is : str
        What the node at the end of the best path is.
    """

    drawn: np.ndarray
    appears: np.ndarray
    parent: np.ndarray
    least: int
    x: np.ndarray
    y: np.ndarray
    best: list[int]
    high: list[int]
    low: list[int]
    best_cell: State | None
    best_accuracy: float
    best_is: str


def way_to(cell: State | None, accuracy: float, run: Run) -> tuple[int, str]:
    """The node to mark for the best network, and what that node is."""
    if cell is None:
        return 0, "no network found yet"
    if cell in run.states:
        return run.states.index(cell), "the best network"
    # A rollout found it. From where is not saved, but the value of a node is at first that of its rollout.
    towards = [i for i, state in enumerate(run.states) if leads_to(state, cell)]
    found = [i for i in towards if run.value[i] == accuracy]
    if run.outcome == "found" and not run.guided:  # the target ends a search; a predicted value is no accuracy
        found += [i for i in towards[-1:] if i == len(run.states) - 1]
    if found:
        return found[0], "where a rollout found the best network"
    nearest = max(towards, key=lambda i: (run.states[i].vertices, run.states[i].edges.bit_count()))
    return nearest, "the state nearest to the best network"


def leads_to(state: State, cell: State) -> bool:
    """Whether actions can lead from a state to a finished cell; adding a vertex wipes the edges."""
    if state.finished or cell.operations[: len(state.operations)] != state.operations:
        return False
    return len(state.operations) < len(cell.operations) or not state.edges & ~cell.edges


def ancestry(parent: np.ndarray, node: int) -> list[int]:
    """The path from the root to a node."""
    path = [node]
    while parent[path[-1]] >= 0:
        path.append(int(parent[path[-1]]))
    return path[::-1]


def along_parents(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What depends on the parents of parents.

    Returns
    -------
    order : int [N]
        The nodes sorted so that every parent comes before its children.
    appears : int [N]
        The number of the youngest node among each and its ancestors.
    busiest : int [N]
        The most visits among each node and its descendants.
    """
    steps = [(state.vertices * 32 + state.edges.bit_count()) * 2 + state.finished for state in run.states]
    order = np.argsort(steps, kind="stable")
    parent, appears, busiest = run.parent.tolist(), list(range(len(steps))), run.visits.tolist()
    there, back = order[1:].tolist(), order[:0:-1].tolist()
    for i in there:
        appears[i] = max(i, appears[parent[i]])
    for i in back:
        busiest[parent[i]] = max(busiest[parent[i]], busiest[i])
    return order, np.array(appears), np.array(busiest)


def prune(busiest: np.ndarray, most: int, keep: list[int]) -> tuple[np.ndarray, int]:
    """The nodes to draw, ascending, and the least number of visits.

    No node has a larger number in ``busiest`` than its parent, so that a limit leaves a connected tree: the nodes
    with so many visits, and their ancestors. It is the smallest for which at most ``most`` nodes are left, those
    of ``keep`` (a path) included.
    """
    kept = np.zeros(len(busiest), bool)
    kept[keep] = True
    limits, counts = np.unique(busiest[~kept], return_counts=True)
    left = np.cumsum(counts[::-1])[::-1] + len(keep)
    fitting = limits[left <= most]
    least = int(fitting[0]) if len(fitting) else int(busiest.max()) + 1
    return np.flatnonzero(kept | (busiest >= least)), least


def extreme(run: Run, drawn: np.ndarray, least: int, sign: int) -> int:
    """Where in ``drawn`` the unfinished state of highest (sign 1) or lowest (-1) value is, the root apart.

    Finished cells are left aside, as most are worth 0: they are not in the table.
    """
    states = [
        i
        for i, node in enumerate(drawn.tolist())
        if node > 0 and run.visits[node] >= max(1, least) and not run.states[node].finished
    ]
    return max(states, key=lambda i: (sign * run.value[drawn[i]], run.visits[drawn[i]]), default=0)


def radial_layout(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in a circle of radius 1: each ring one action further out, each subtree in a sector as wide as its leaves.

    Parents come before their children.
    """
    number, up = len(parent), parent.tolist()
    depth, leaves, children = [0] * number, [0] * number, [[] for _ in range(number)]
    for i in range(1, number):
        depth[i] = depth[up[i]] + 1
        children[up[i]].append(i)
    for i in range(number - 1, 0, -1):
        leaves[i] = leaves[i] or depth[i]
        leaves[up[i]] += leaves[i]
    start, width = [0.0] * number, [0.0] * number
    width[0] = 2 * math.pi
    for i in range(number):
        angle = start[i]
        for child in children[i]:
            start[child], width[child] = angle, width[i] * leaves[child] / leaves[i]
            angle += width[child]
    crowd = np.bincount(depth)
    gap = 1 + 5 * crowd / crowd.max()  # crowded rings are further out
    gap[0] = 0
    gap[1:2] += 1  # room for the mark of the root
    ring = np.cumsum(gap)
    radius = (ring / max(ring[-1], 1))[depth]
    angle = np.array(start) + np.array(width) / 2
    return radius * np.cos(angle), radius * np.sin(angle)


def arrange(run: Run, most: int) -> Drawing:
    """Choose at most ``most`` nodes and place them."""
    cell, accuracy = best_sample(run)
    marked, what = way_to(cell, accuracy, run)
    order, appears, busiest = along_parents(run)
    drawn, least = prune(busiest, most, ancestry(run.parent, marked))
    drawn = drawn[np.lexsort((np.argsort(order)[drawn], appears[drawn]))]
    place = {node: i for i, node in enumerate(drawn.tolist())}
    parent = np.array([place.get(p, -1) for p in run.parent[drawn].tolist()])
    high, low = (ancestry(parent, extreme(run, drawn, least, sign)) for sign in (1, -1))
    best = ancestry(parent, place[marked])
    return Drawing(drawn, appears[drawn], parent, least, *radial_layout(parent), best, high, low, cell, accuracy, what)
