"""Monte Carlo Tree Search over NAS-Bench-101 cells (AlphaX; Wang et al., AAAI-20, arXiv 1903.11059).

    python MCTS.py                     searches the embedded table up to 6 vertices
    python MCTS.py --max-nodes 4       a smaller domain
    python MCTS.py --resume            goes on with a search that was interrupted
    python MCTS.py --help              everything that can be set

One episode: from the root, UCT *selects* actions down the tree until one leads out of it. The new state becomes a node
(*expansion*) and is evaluated: a finished cell by its accuracy, any other state by one *rollout*, that is, by the
accuracy of a finished cell that random actions lead to. The accuracy is *backed up* along the node's ancestors, and the
next episode starts at the root. Who knows the accuracy is asked (``ask``) and may answer later (``tell``).

Quirks of the original that are kept, since they decide what it finds: an action that would pass a limit
counts as an action worth 0; back-up follows *first* parents, not the way walked; a cell outside the table is
worth 0 but is not backed up when it is created. As a consequence a few searches revisit one region for ever:
those end as "stalled".
"""

import math
import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Callable

import checkpoint
from arch_generator import ROOT, State, arch_generator
from guide import Guide
from method import EXHAUSTED, FAILED, NO_QUESTION, NOT_IN_DATA_SET, WAITING, Answer, NoAccuracy, Nothing, Question
from nasbench_dataset import command
from options import SearchOptions
from rollouts import ROLLOUTS
from saved_tree import pack_cells, pack_questions, pack_tree, unpack_cells, unpack_questions, unpack_tree
from search_command import build_parser, run_command
from space import Space

GIVEN_UP = 0.1  # value of a state whose rollout gives up; the original's value


class Leads(Enum):
    """Where the best action of a node leads, if to no state."""

    DEAD = "past a limit"
    CLOSED = "nowhere: nothing new can come of any action"
    WAITING = "nowhere, until an open question is answered"


class Node:
    """A state in the tree with its statistics.

    Attributes
    ----------
    state : State
    parent : Node or None
        The node from which this one was first created; with back-up along the path, last reached.
    n, x_bar : int, float
        Visits, and the mean of what was backed up through this node, its own evaluation included.
    pending : int
        Visits that are under way: open questions whose answer will be backed up through this node.
    children : list of Node
        The children known to be in the tree.
    fresh : list of State or None
        The successors not known to be in the tree; None until the node is first selected.
    dead : int
        The number of actions that lead past a limit.
    closed : bool
        Whether nothing new can come of it: never selected again. Only with ``close_exhausted``.
    """

    __slots__ = ("state", "parent", "n", "x_bar", "pending", "children", "fresh", "dead", "closed")

    def __init__(self, state: State, parent: "Node | None"):
        self.state, self.parent = state, parent
        self.n, self.x_bar, self.pending = 0, 0.0, 0
        self.children: list[Node] = []
        self.fresh: list[State] | None = None
        self.dead = 0
        self.closed = False

    def look_around(self, generator: arch_generator) -> None:
        """Find out where the actions lead, at the first selection."""
        successors = [generator.transition(self.state, action) for action in generator.actions(self.state)]
        self.fresh = [state for state in successors if state is not None]
        self.dead = len(successors) - len(self.fresh)

    def way(self) -> "list[Node]":
        """The ancestors along the parents, the root last, the node itself excluded."""
        way, node = [], self.parent
        while node is not None:
            way.append(node)
            node = node.parent
        return way


def back_up(way: list[Node], reward: float) -> None:
    """Tell every node on a way of a reward."""
    for node in way:
        node.n += 1
        node.x_bar += (reward - node.x_bar) / node.n


@dataclass(eq=False, slots=True)
class TreeQuestion(Question):
    """A question whose answer evaluates a node.

    Attributes
    ----------
    node : Node or None
        The node to be evaluated; None where the guide asks.
    way : list of Node
        Its ancestors when it was asked, to whom the value is backed up, whatever later episodes change.
    """

    node: Node | None = None
    way: list[Node] = field(default_factory=list)


class MCTS:
    """The search, as a method to be asked and told (``method.Method``).

    Parameters
    ----------
    space : Space
        Which cells there are.
    seed : int
        The same seed, options and answers give the same questions.
    options : SearchOptions

    Attributes
    ----------
    tree : dict of State to Node
        States reached on several ways (transpositions) share one node.
    dangling_nodes : dict of State to float
        Finished cells that rollouts have sampled and the tree has not reached yet, with their accuracy.
    episodes : int
        How often the search went out from the root.
    """

    name = "mcts"

    def __init__(self, space: Space, seed: int, options: SearchOptions = SearchOptions()):
        self.space, self.generator, self.seed, self.options = space, space.generator, seed, options
        self.rng = random.Random(seed)
        self.rollout: Callable[[State], State | None] = ROLLOUTS[space.lookup](space, self.rng)
        self.guide = Guide(space, self.rng)
        self.guided = 0  # turns of the guide so far: one every ``options.guide`` episodes
        self._exploration = 2 * options.cp * math.sqrt(2)
        self.tree: dict[State, Node] = {}
        self.dangling_nodes: dict[State, float] = {}
        self.root: Node | None = None
        self.episodes = 0
        self._open: dict[TreeQuestion, None] = {}  # in the order of asking

    # --- one episode: selection, expansion, rollout; then, when it is told, back-up ----------------

    def ask(self) -> Question | Nothing:
        """One episode, up to the question that it leads to."""
        if self.root is None:
            self.root = self.expand(None, ROOT)
            return self.evaluate(self.root)
        if self.options.guide and self.guided < self.episodes // self.options.guide:
            self.guided += 1
            return self.ask_for_guide()
        if self.root.closed and not self.guide.promises:
            return EXHAUSTED
        reached = self.select()
        if reached is not WAITING:
            self.episodes += 1
        if isinstance(reached, Nothing):
            return reached
        if reached.n or reached.pending:  # a finished cell that was visited before: its value once more
            reached.n += 1
            back_up(reached.way(), reached.x_bar)
            return NO_QUESTION
        return self.evaluate(reached)

    def select(self) -> Node | Nothing:
        """From the root down: a new node, or a finished cell that was visited before."""
        waiting: set[Node] = set()  # no action of theirs can be taken before an answer comes
        node = self.root
        while True:
            child = self.best_child(node, waiting)
            if child is Leads.DEAD:
                back_up(node.way(), 0.0)
                return NO_QUESTION
            if child is Leads.CLOSED or child is Leads.WAITING:  # set it aside, and begin again without it
                node.closed = child is Leads.CLOSED
                waiting.add(node)
                if node is self.root:
                    return NO_QUESTION if node.closed else WAITING
                node = self.root
            elif isinstance(child, State):
                return self.expand(node, child)
            else:
                if self.options.backup == "path":
                    child.parent = node  # the parents of a node are then the way on which it was last reached
                if child.state.finished:
                    return child
                node = child

    def best_child(self, node: Node, waiting: set[Node]) -> Node | State | Leads:
        """What the action with the largest UCT leads to, ties broken uniformly at random.

        A state outside the tree is worth infinity, one past a limit 0, and a node

            x_bar(child) + 2 Cp sqrt(2 ln n(node) / n(child))

        where visits that are under way count in both n (Liu et al. 2020, "Watch the Unobserved", arXiv 1810.11755).
        """
        if node.fresh is None:
            node.look_around(self.generator)
        while node.fresh:
            state = node.fresh.pop(int(self.rng.random() * len(node.fresh)))
            if state not in self.tree:
                return state
            node.children.append(self.tree[state])  # in the meantime it was reached on another way
        best, ties, children = -1.0, [], node.children
        if self.options.close_exhausted:
            children = [child for child in children if not child.closed]
        if self._open and children:
            children = [c for c in children if c not in waiting and (c.n or not c.state.finished)]
            if not children:
                return Leads.WAITING
        exploration, sqrt, log_n = self._exploration, math.sqrt, math.log(node.n + node.pending)
        for child in children:
            uct = child.x_bar + exploration * sqrt(log_n / (child.n + child.pending))
            if uct > best:
                best, ties = uct, [child]
            elif uct == best:
                ties.append(child)
        if best <= 0 and not self.options.close_exhausted:
            ties += [Leads.DEAD] * node.dead
        return ties[0] if len(ties) == 1 else self.rng.choice(ties or [Leads.CLOSED])

    def expand(self, parent: Node | None, state: State) -> Node:
        """Create the node of a state outside the tree, to be evaluated."""
        node = self.tree[state] = Node(state, parent)
        node.closed = self.options.close_exhausted and state.finished
        if parent is not None:
            parent.children.append(node)
        return node

    def evaluate(self, node: Node) -> Question | Nothing:
        """Of a finished cell its own accuracy is asked for, of any other state that to which a rollout leads."""
        if node.state.finished:
            self.dangling_nodes.pop(node.state, None)
        cell = node.state if node.state.finished else self.rollout(node.state)
        if cell is None:
            self.settle(node, node.way(), GIVEN_UP)
        elif self.guide.ready:
            self.settle(node, node.way(), self.guide.worth(cell))
        else:
            return self.question(cell, node, node.way())
        return NO_QUESTION

    def question(self, cell: State, node: Node | None, way: list[Node]) -> TreeQuestion:
        """Open a question; until it is answered it is a visit under way of each node that the answer goes to."""
        question = TreeQuestion(cell, self.space.index(cell), node=node, way=way)
        self._open[question] = None
        for visited in (node, *way) if node else ():
            visited.pending += 1
        return question

    def tell(self, question: TreeQuestion, answer: Answer) -> None:
        """The answer to an open question: it is backed up."""
        del self._open[question]
        node, cell = question.node, question.cell
        for visited in (node, *question.way) if node else ():
            visited.pending -= 1
        if not isinstance(answer, NoAccuracy):
            self.learn(question.index, answer)
            if cell not in self.tree:
                self.dangling_nodes[cell] = answer
        if node is None:
            self.fit_guide()
        elif answer is NOT_IN_DATA_SET:
            self.settle(node, question.way, 0.0)
        elif answer is FAILED:  # as where a rollout gives up, but nobody else is told
            self.settle(node, [], 0.0 if node.state.finished else GIVEN_UP)
        else:
            self.settle(node, question.way, self.value(node.state, answer))

    def settle(self, node: Node, way: list[Node], value: float) -> None:
        """A node has its value: the reward of all on its way."""
        back_up([node], value)
        if value > 0:  # a cell outside the table is not backed up when it is created
            back_up(way, value)

    def value(self, state: State, accuracy: float) -> float:
        """What a state is worth whose own accuracy, or that of its rollout, is known: just that."""
        return accuracy

    # --- the guide (ours) -------------------------------------------------------------------------

    def ask_for_guide(self) -> Question | Nothing:
        """Ask for the cell that the guide finds most promising."""
        cell = self.guide.choose()
        if cell is not None:
            return self.question(cell, None, [])
        self.fit_guide()
        return NO_QUESTION

    def fit_guide(self) -> None:
        """Fit the guide where there are enough new samples."""
        if self.guide.due:
            self.guide.fit()

    def learn(self, index: int, accuracy: float) -> None:
        """What there is to learn from a sample: here, by the guide."""
        if self.options.guide:
            self.guide.tell(index, accuracy)

    # --- saved and restored -----------------------------------------------------------------------

    def open_questions(self) -> list[Question]:
        return list(self._open)

    def to_save(self) -> checkpoint.Saved:
        """Everything that decides how the search goes on, but for the samples.

        Returns
        -------
        main : dict
            Counters, the random generator and the open questions, for JSON.
        files : dict of str to bytes
            The tree, and what else is large, by file name.
        """
        version, state, gauss = self.rng.getstate()
        main = {
            "episodes": self.episodes,
            "guided": self.guided,
            "open": pack_questions(list(self._open), self.tree.values()),
            "rng": [version, list(state), gauss],
        }
        files = {"nodes": pack_tree(self.tree.values()), "dangling_nodes": pack_cells(self.dangling_nodes)}
        return main, {**files, "guide": self.guide.to_save()} if self.options.guide else files

    def restore(self, main: dict, files: dict[str, bytes], samples: dict[int, float]) -> None:
        """Take over what ``to_save`` of another search gave, which had these samples; this one has to be new.

        Raises
        ------
        LookupError, TypeError, ValueError
            If anything in it is not as ``to_save`` makes it.
        """
        self.episodes, self.guided = checkpoint.numbers([main["episodes"], main["guided"]], int, 0, 2**53, "episodes")
        nodes = unpack_tree(files["nodes"], self.generator, self.episodes, Node)
        if not all(map(self._can_be_so, nodes)):
            raise ValueError("nodes: closed where that cannot be, or a finished cell that is not")
        self.tree, self.root = {node.state: node for node in nodes}, nodes[0]
        self.dangling_nodes = unpack_cells(files["dangling_nodes"], self.generator)
        if any(samples.get(self.space.index(cell)) != value for cell, value in self.dangling_nodes.items()):
            raise ValueError("dangling_nodes: a cell that is no sample")
        for index, accuracy in samples.items():
            self.learn(index, accuracy)
        if self.options.guide:
            self.guide.restore(files["guide"])
        for cell, node, way in unpack_questions(main["open"], nodes, self.generator):
            self.guide.take(self.question(cell, node, way).index)
        if any(not node.n + node.pending for node in nodes):
            raise ValueError("nodes: one that was never evaluated")
        version, state, gauss = main["rng"]
        if gauss is not None:
            raise ValueError("rng: a normal number, which no search draws")
        self.rng.setstate((version, tuple(checkpoint.numbers(state, int, 0, 2**32 - 1, "rng")), None))

    def _can_be_so(self, node: Node) -> bool:
        """Whether a saved node can be closed, or open, as it is."""
        if node.state.finished or not self.options.close_exhausted:
            return node.closed == self.options.close_exhausted
        return not node.closed or node.fresh == [] and all(child.closed for child in node.children)

    # --- in words ---------------------------------------------------------------------------------

    def details(self) -> dict:
        """What this kind of search adds to summary.json."""
        return {}

    def closing_lines(self) -> list[str]:
        """What this kind of search says at the end."""
        return []


def main(argv: list[str] | None = None) -> int:
    """Run ``python MCTS.py``; returns the exit status."""
    parser = build_parser("Monte Carlo Tree Search over NAS-Bench-101 cells.", SearchOptions)
    return run_command(parser.parse_args(argv), MCTS)


if __name__ == "__main__":
    command.run(main)
