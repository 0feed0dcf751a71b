"""Monte Carlo Tree Search over NAS-Bench-101 cells (AlphaX; Wang et al., AAAI-20, arXiv 1903.11059).

    python MCTS.py                     searches the embedded table up to 6 vertices
    python MCTS.py --max-nodes 4       a smaller domain
    python MCTS.py --resume            goes on with a search that was interrupted
    python MCTS.py --help              everything that can be set

The way of one sample: from the root, UCT chooses actions down the tree until one leads out of it. The new
state becomes a node and is evaluated: a finished cell by its accuracy, any other state by one rollout, that
is, by the accuracy of a finished cell that random actions lead to. The accuracy is backed up along the
node's ancestors, and the next episode starts at the root.

Quirks of the original that are kept, since they decide what it finds: an action that would pass a limit
counts as an action worth 0; back-up follows *first* parents, not the way walked; a cell outside the table is
worth 0 but is not backed up when it is created. As a consequence a few searches revisit one region for ever:
those end as "stalled".
"""

import os
import sys

if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:  # it is not under PYTHONSAFEPATH
    sys.path.insert(0, here)

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import math
import random
from itertools import chain
from typing import Callable, Iterable

import numpy as np

import checkpoint
from arch_generator import ROOT, State, arch_generator
from guide import Guide
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.files import printable
from net_training import NetTrainer
from search_command import BACKUPS, CP, CP_RANGE, PATIENCE, PRESETS, build_parser, run_command

GIVEN_UP = 0.1  # value of a state whose rollout gives up; the original's value
FAILURES = 1_001  # cells outside the table after which a rollout gives up; the original's value


class Node:
    """A state in the tree with its statistics.

    Attributes
    ----------
    state : State
    parent : Node or None
        The node from which this one was first created; with back-up along the path, last reached.
    n, x_bar : int, float
        Visits, and the mean of what was backed up through this node, its own evaluation included.
    children : list of Node
        The children known to be in the tree.
    fresh : list of State or None
        The successors not known to be in the tree; None until the node is first selected.
    dead : int
        The number of actions that lead to ``None``.
    closed : bool
        Whether nothing new can come of it: never selected again. Only with ``close_exhausted``.
    """

    __slots__ = ("state", "parent", "n", "x_bar", "children", "fresh", "dead", "closed")

    def __init__(self, state: State, parent: "Node | None", value: float):
        self.state, self.parent = state, parent
        self.n, self.x_bar = 1, value
        self.children: list[Node] = []
        self.fresh: list[State] | None = None
        self.dead = 0
        self.closed = False

    def look_around(self, generator: arch_generator) -> None:
        """Find out where the actions lead, at the first selection."""
        successors = [generator.transition(self.state, action) for action in generator.actions(self.state)]
        self.fresh = [state for state in successors if state is not None]
        self.dead = len(successors) - len(self.fresh)

    def back_up(self, reward: float) -> None:
        """Tell every ancestor along the parents of a reward, the node itself excluded."""
        node = self.parent
        while node is not None:
            node.n += 1
            node.x_bar += (reward - node.x_bar) / node.n
            node = node.parent


# --- rollouts ---------------------------------------------------------------------------------
#
# A rollout acts uniformly at random. Where that leads to None it starts again, uncounted; where it ends in a
# cell outside the table it starts again and counts a failure, and after 1,001 failures it gives up. Walking
# like that takes thousands of rejected steps. The two classes below draw from the same distribution without
# them; which one fits depends on how many labelled cells the table answers to.


class ExactRollout:
    """Rollouts under the exact lookup: few labelled cells are in the table, so they can be listed.

    From a state with e edges, every set of k edges around it is reached with the same probability
    ``stop[k] / C(possible - e, k - e)`` (``arch_generator.random_walk``). Let F be the sum of that over the
    cells of the table, plus what more vertices lead to, and G the probability of ending elsewhere. One
    attempt then fails with probability ``G / (F + G)``, and where the rollout does not give up, its result is
    one of the cells with probability in proportion.
    """

    def __init__(self, trainer: NetTrainer, rng: random.Random):
        self.generator, self.rng = trainer.generator, rng
        self._cells: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {}
        self._weights: dict[tuple[int, int], np.ndarray] = {}
        self._from_empty: dict[tuple[int, ...], float] = {}
        for vertices in range(self.generator.max_nodes, 1, -1):
            for operations, edges in trainer.groups(vertices):
                self._cells[operations] = edges, np.bitwise_count(edges)
                self._from_empty[operations] = self._reach(State(operations))[0]

    def __call__(self, state: State) -> State | None:
        """A finished cell of the table; None where the rollout gives up."""
        total, ends, chances = self._reach(state)
        failure = 1 - total / self.generator.ended(state.vertices, state.edges.bit_count())
        if total == 0 or self.rng.random() < failure**FAILURES:
            return None
        while True:
            pick = self.rng.random() * total
            if len(ends) and pick < chances[-1]:
                return State(state.operations, int(ends[chances.searchsorted(pick, "right")]), True)
            larger = [(*state.operations, o) for o in range(3)]
            (operations,) = self.rng.choices(larger, [self._from_empty[o] for o in larger])
            state = State(operations)
            total, ends, chances = self._reach(state)

    def _reach(self, state: State) -> tuple[float, np.ndarray, np.ndarray]:
        """F of a state; the cells of the table with the same vertices; their probabilities, cumulated."""
        edges, counts = self._cells[state.operations]
        around = np.flatnonzero(edges & state.edges == state.edges)
        used = state.edges.bit_count()
        chances = self._weight(state.vertices, used)[counts[around]].cumsum()
        total = float(chances[-1]) if len(chances) else 0.0
        _, leave = self.generator.random_walk(state.vertices, used)
        if leave:
            total += leave / 3 * sum(self._from_empty[(*state.operations, o)] for o in range(3))
        return total, edges[around], chances

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
    """Rollouts under the isomorphic lookup: most labelled cells are in the table, so attempts are drawn.

    An attempt draws where ``term`` is taken (how many vertices and edges, ``arch_generator.random_walk``),
    which is one step instead of a walk, and never ends in ``None``. Its edges are any ones, equally likely.
    """

    def __init__(self, trainer: NetTrainer, rng: random.Random):
        self.trainer, self.generator, self.rng = trainer, trainer.generator, rng

    def __call__(self, state: State) -> State | None:
        """A finished cell of the table; None where the rollout gives up."""
        for _ in range(FAILURES):
            cell = self._attempt(state)
            if self.trainer.accuracy_of(cell) is not None:
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


# --- the search -------------------------------------------------------------------------------


class MCTS:
    """The search: select, expand, evaluate, back up.

    Parameters
    ----------
    trainer : NetTrainer
        What accuracies come from, and what has been sampled.
    seed : int
        The same seed, options and table give the same trace.
    cp : float
        Exploration constant of UCT.
    backup : str
        ``"first-parent"``: along the nodes from which each node was first created, as in the original;
        ``"path"``: along the way walked.
    close_exhausted : bool
        Never select again a visited finished cell, nor a state all of whose actions lead to such or to ``None``.
    guide : int
        0: every rollout is sampled. N: once there are 100 samples, a linear model of them (``guide.Guide``) predicts
        what finished cells are worth, those that rollouts lead to included, and every N episodes the most promising
        cell that it was shown is sampled.

    Attributes
    ----------
    tree : dict of State to Node
        States reached on several ways (transpositions) share one node.
    dangling_nodes : dict of State to float
        Finished cells that rollouts have sampled and the tree has not reached yet, with their accuracy.
    episodes : int
        How often the search went out from the root.
    phase, report : str, callable
        What it is doing, for a progress line; ``report`` is called after every episode and every change of phase.
    """

    method = "mcts"

    def __init__(
        self,
        trainer: NetTrainer,
        seed: int,
        cp: float = CP,
        backup: str = "first-parent",
        close_exhausted: bool = False,
        guide: int = 0,
    ):
        self.trainer, self.generator, self.seed = trainer, trainer.generator, seed
        self.rng = random.Random(seed)
        self.rollout = ROLLOUTS[trainer.lookup](trainer, self.rng)
        self.cp, self.backup = cp, backup
        self.close_exhausted = close_exhausted
        self.guide_every, self.guide = guide, Guide(trainer, self.rng)
        self._exploration = 2 * cp * math.sqrt(2)
        self.tree: dict[State, Node] = {}
        self.dangling_nodes: dict[State, float] = {}
        self.root: Node | None = None
        self.episodes = 0
        self.episode_of_last_sample = 0
        self.stop_requested = False
        self.phase = "searching"
        self.report: Callable[[], None] = lambda: None

    def search(self, samples: int | None = None, patience: int = PATIENCE) -> str:
        """Search until something ends it; can be called again to go on.

        Parameters
        ----------
        samples : int, optional
            End after so many unique samples.
        patience : int
            End after so many episodes without a new sample.

        Returns
        -------
        outcome : str
            ``"found"`` (the target), ``"samples"``, ``"exhausted"`` (all is closed), ``"stalled"`` or
            ``"interrupted"`` (``stop_requested`` was set).
        """
        if self.root is None:
            self.root = self.expand(None, ROOT)
        while True:
            if self.trainer.found:
                return "found"
            if samples is not None and self.trainer.unique_samples >= samples:
                return "samples"
            if self.root.closed and not self.guide.promises:
                return "exhausted"
            if self.episodes - self.episode_of_last_sample >= patience:
                return "stalled"
            if self.stop_requested:
                return "interrupted"
            self.episode()
            self.report()

    def episode(self) -> None:
        """From the root down to a new state, a limit, or a finished cell."""
        sampled = self.trainer.unique_samples
        node = self.root
        while True:
            child = self.select(node)
            if child is None and self.close_exhausted:  # all that the node leads to is closed, so it is, too
                node.closed = True
                if node is self.root:
                    break
                node = self.root
                continue
            if child is None:
                node.back_up(0.0)
                break
            if isinstance(child, State):
                child = self.expand(node, child)
                if child.x_bar > 0:  # a cell outside the table is not backed up when it is created
                    child.back_up(child.x_bar)
                break
            if self.backup == "path":
                child.parent = node  # the parents of a node are then the way on which it was last reached
            if child.state.finished:
                child.n += 1
                child.back_up(child.x_bar)
                break
            node = child
        self.episodes += 1
        if self.guide_every and self.episodes % self.guide_every == 0:
            self.follow_guide()
        if self.trainer.unique_samples > sampled:
            self.episode_of_last_sample = self.episodes

    def select(self, node: Node) -> Node | State | None:
        """What the action with the largest UCT leads to, ties broken uniformly at random.

        A state outside the tree is worth infinity, ``None`` is worth 0, and a node

            x_bar(child) + 2 Cp sqrt(2 ln n(node) / n(child))

        With ``close_exhausted`` neither closed nodes nor ``None`` are chosen; where that leaves nothing: ``None``.
        """
        if node.fresh is None:
            node.look_around(self.generator)
        while node.fresh:
            state = node.fresh.pop(int(self.rng.random() * len(node.fresh)))
            if state not in self.tree:
                return state
            node.children.append(self.tree[state])  # in the meantime it was reached on another way
        best, ties = -1.0, []
        log_n = math.log(node.n)
        children = [c for c in node.children if not c.closed] if self.close_exhausted else node.children
        for child in children:
            uct = child.x_bar + self._exploration * math.sqrt(log_n / child.n)
            if uct > best:
                best, ties = uct, [child]
            elif uct == best:
                ties.append(child)
        if best <= 0 and not self.close_exhausted:
            ties += [None] * node.dead
        return ties[0] if len(ties) == 1 else self.rng.choice(ties or [None])

    def expand(self, parent: Node | None, state: State) -> Node:
        """Create the node of a state outside the tree, evaluated."""
        node = self.tree[state] = Node(state, parent, self.evaluate(state))
        node.closed = self.close_exhausted and state.finished
        if parent is not None:
            parent.children.append(node)
        return node

    def evaluate(self, state: State) -> float:
        """The accuracy of a finished cell, or of that to which a rollout from any other state leads; perhaps predicted."""
        if state.finished:
            self.dangling_nodes.pop(state, None)
            return self.guide.worth(state) if self.guide.ready else self.trainer.train_net(state)
        cell = self.rollout(state)
        if cell is None:
            return GIVEN_UP
        return self.guide.worth(cell) if self.guide.ready else self.sample(cell)

    def follow_guide(self) -> None:
        """Sample what the guide finds most promising; fit it where there are enough new samples."""
        cell = self.guide.choose()
        if cell is not None:
            self.sample(cell)
        if self.guide.due:
            self.guide.fit()

    def sample(self, cell: State) -> float:
        """The accuracy of a cell that a rollout led to, or that the guide chose."""
        accuracy = self.trainer.train_net(cell)
        if cell not in self.tree:
            self.dangling_nodes[cell] = accuracy
        return accuracy

    def status(self) -> str:
        """How it stands, for the progress line."""
        return f"best {self.trainer.best_accuracy:.7f}, {self.episodes:,} episodes"

    def details(self) -> dict:
        """What this kind of search adds to summary.json."""
        return {}

    def closing_lines(self) -> list[str]:
        """What this kind of search says at the end."""
        return []

    def describe(self) -> str:
        """What this kind of search is, for the banner."""
        extras = ["back-up along the path"] * (self.backup == "path") + ["exhausted states closed"] * self.close_exhausted
        extras += [f"every {self.guide_every} episodes a linear model chooses a cell"] * (self.guide_every > 0)
        return ", ".join([self.method, f"Cp {self.cp:g}", *extras])

    def settings(self) -> dict:
        """What has to be the same when a saved search is resumed."""
        return {
            "method": self.method,
            "seed": self.seed,
            "max_nodes": self.generator.max_nodes,
            "max_edges": self.generator.max_edges,
            "metric": self.trainer.metric,
            "lookup": self.trainer.lookup,
            "cp": float(self.cp),
            "backup": self.backup,
            "close_exhausted": self.close_exhausted,
            "guide": self.guide_every,
            "table": self.trainer.fingerprint(),
        }

    def saved(self) -> checkpoint.Saved:
        """Everything that decides how the search goes on; to be called between episodes.

        Returns
        -------
        main : dict
            Settings, samples and counters, for JSON.
        files : dict of str to bytes
            The tree, and what else is large, by file name.
        """
        version, state, gauss = self.rng.getstate()
        main = {
            "settings": self.settings(),
            "samples": list(self.trainer.training_trace),
            "counter": self.trainer.counter,
            "episodes": self.episodes,
            "episode_of_last_sample": self.episode_of_last_sample,
            "rng": [version, list(state), gauss],
        }
        files = {"nodes": pack_tree(self.tree.values()), "dangling_nodes": pack_cells(self.dangling_nodes)}
        return main, {**files, "guide": self.guide.saved()} if self.guide_every else files

    def restore(self, main: dict, files: dict[str, bytes]) -> None:
        """Take over what ``saved`` of another search gave; this one has to be new.

        Raises
        ------
        InputError
            If its settings differ from those here, or anything in it is not as ``saved`` makes it.
        """
        try:
            theirs = main["settings"]
            for name, here in self.settings().items():
                if theirs[name] != here or type(theirs[name]) is not type(here):
                    difference = "its table is another one" if name == "table" else f"its {name} is {printable(theirs[name], 60)}, not {here}"
                    raise InputError(f"the saved search cannot be resumed so: {difference}; choose the same, or another --out")
            self._restore(main, files)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
            raise checkpoint.damaged(error) from error

    def _restore(self, main: dict, files: dict[str, bytes]) -> None:
        names = "counter", "episodes", "episode_of_last_sample"
        counters = checkpoint.numbers([main[name] for name in names], int, 0, 2**53, "counters")
        counter, self.episodes, self.episode_of_last_sample = counters
        if self.episode_of_last_sample > self.episodes:
            raise ValueError("the last sample lies ahead")
        samples = checkpoint.numbers(main["samples"], int, 0, cells.cell_count() - 1, "samples")
        self.trainer.restore(samples, counter)
        nodes = unpack_tree(files["nodes"], self.generator, self.episodes)
        if not all(map(self._can_be_so, nodes)):
            raise ValueError("nodes: closed where that cannot be, or a finished cell that is not")
        self.tree = {node.state: node for node in nodes}
        if len(self.tree) < len(nodes):
            raise ValueError("nodes: a state comes twice")
        self.root = nodes[0]
        self.dangling_nodes = unpack_cells(files["dangling_nodes"], self.generator)
        if any(self.trainer.known_accuracy(cell) != accuracy for cell, accuracy in self.dangling_nodes.items()):
            raise ValueError("dangling_nodes: a cell that is no sample")
        if self.guide_every:
            self.guide.restore(files["guide"])
        version, state, gauss = main["rng"]
        state = checkpoint.numbers(state, int, 0, 2**32 - 1, "rng")
        if gauss is not None:
            raise ValueError("rng: a normal number, which no search draws")
        self.rng.setstate((version, tuple(state), None))

    def _can_be_so(self, node: Node) -> bool:
        """Whether a saved node can be closed, or open, as it is."""
        if node.state.finished or not self.close_exhausted:
            return node.closed == self.close_exhausted
        return not node.closed or node.fresh is not None and not node.fresh and all(child.closed for child in node.children)


# --- the tree as JSON -------------------------------------------------------------------------
#
# Parallel lists, one entry for each node or cell: written and read several times faster than objects.


def pack_tree(tree: Iterable[Node]) -> bytes:
    """Nodes in the order of their creation; the children are numbers, null where never selected."""
    nodes = list(tree)
    number = {id(node): i for i, node in enumerate(nodes)}
    columns = {
        "operations": [node.state.operations for node in nodes],
        "edges": [node.state.edges for node in nodes],
        "finished": [node.state.finished for node in nodes],
        "parent": [None if node.parent is None else number[id(node.parent)] for node in nodes],
        "n": [node.n for node in nodes],
        "x_bar": [node.x_bar for node in nodes],
        "closed": [node.closed for node in nodes],
        "children": [
            None if node.fresh is None else [number[id(child)] for child in node.children] for node in nodes
        ],
    }
    return checkpoint.to_json(columns)


def unpack_tree(content: bytes, generator: arch_generator, episodes: int) -> list[Node]:
    """The inverse of ``pack_tree``; a LookupError, TypeError or ValueError where it is no tree of such a search.

    What is not saved follows: the fresh states of a node are its successors, in order, without its children.
    """
    names = "operations", "edges", "finished", "parent", "n", "x_bar", "closed", "children"
    operations, edges, finished, parents, visits, means, closed, children = checkpoint.columns(content, *names)
    states = checkpoint.states(operations, edges, finished, generator)
    checkpoint.numbers(parents[1:], int, 0, len(parents), "parent")
    checkpoint.numbers(visits, int, 1, episodes + 1, "n")
    checkpoint.numbers(means, float, 0, 1, "x_bar")
    checkpoint.numbers(closed, bool, False, True, "closed")
    checkpoint.numbers(list(chain.from_iterable(filter(None, children))), int, 1, len(parents), "children")
    nodes = [Node(state, None, x_bar) for state, x_bar in zip(states, means)]
    for node, parent, node.n, node.closed in zip(nodes[1:], parents[1:], visits[1:], closed[1:]):
        node.parent = nodes[parent]
    nodes[0].n, nodes[0].closed = visits[0], closed[0]
    placed = 1
    for node, numbers in zip(nodes, children):
        if numbers is not None:
            adopt(node, [nodes[i] for i in numbers], generator)
            placed += sum(child.parent is node for child in node.children)
    # Together with adopt(): every state is what actions lead to from the root.
    if nodes[0].state != ROOT or parents[0] is not None or placed != len(nodes):
        raise ValueError("nodes: not a tree that grew from the root")
    return nodes


def adopt(node: Node, children: list[Node], generator: arch_generator) -> None:
    """Give a node back its children, in the order in which they became known."""
    node.look_around(generator)
    known = {child.state for child in children}
    successors = len(node.fresh)
    node.children, node.fresh = children, [state for state in node.fresh if state not in known]
    if node.state.finished or len(known) < len(children) or len(node.fresh) + len(known) != successors:
        raise ValueError("nodes: children that no action leads to")


def pack_cells(values: dict[State, float]) -> bytes:
    """Finished cells, each with a number."""
    columns = {"operations": [c.operations for c in values], "edges": [c.edges for c in values]}
    return checkpoint.to_json({**columns, "value": list(values.values())})


def unpack_cells(content: bytes, generator: arch_generator) -> dict[State, float]:
    """The inverse of ``pack_cells``; a TypeError or ValueError where a cell or a number is impossible."""
    operations, edges, values = checkpoint.columns(content, "operations", "edges", "value")
    checkpoint.numbers(values, float, 0, 1, "value")
    found = dict(zip(checkpoint.states(operations, edges, [True] * len(edges), generator), values))
    if len(found) < len(values):
        raise ValueError("a cell comes twice")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run ``python MCTS.py``; returns the exit status."""
    options = build_parser("Monte Carlo Tree Search over NAS-Bench-101 cells.").parse_args(argv)
    return run_command(options, MCTS)


if __name__ == "__main__":
    command.run(main)
