"""Monte Carlo Tree Search over NAS-Bench-101 cells (AlphaX; Wang et al., AAAI-20, arXiv 1903.11059).

    python MCTS.py                     searches the embedded table up to 6 vertices
    python MCTS.py --resume            goes on with a search that was interrupted
    python MCTS.py --help              everything that can be set

One episode: from the root, UCT *selects* actions down the tree until one leads out of it. The new state becomes a node
(*expansion*) and is evaluated: a finished cell by its accuracy, any other state by that of the cell to which random
actions lead (*rollout*). The accuracy is *backed up* along the node's ancestors. Who knows accuracies is asked for one
(``ask``) and may answer later (``tell``); meanwhile the next episode can begin.

Quirks of the original that are kept, since they decide what it finds: an action that would pass a limit counts as an
action worth 0; back-up follows *first* parents, not the way walked; a cell outside the table is worth 0 but is not
backed up when it is created. As a consequence a few searches revisit one region for ever: those end as "stalled".
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # it is not there under PYTHONSAFEPATH

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import random
from enum import Enum
from math import log, sqrt

from arch_generator import ROOT, State
from guide import Guide, Model
from linear_model import LinearModel
from method import EXHAUSTED, FAILED, NO_QUESTION, NOT_IN_DATA_SET, WAITING
from method import Announce, Answer, NoAccuracy, Nothing, Question, TreeMethod, silently
from nasbench_dataset import command
from options import SearchOptions
from rollouts import ROLLOUTS
from saved_tree import Saved, pack_search, unpack_rng, unpack_search
from search_command import build_parser, run_command
from space import Space

GIVEN_UP = 0.1  # value of a state whose rollout gives up; the original's value
Leads = Enum("Leads", "DEAD CLOSED WAITING")  # past a limit; nowhere new, ever; nowhere until an answer comes


class Node:
    """A state in the tree with its statistics.

    Attributes
    ----------
    parent : Node or None
        The node from which this one was first created; with back-up along the path, last reached.
    n, x_bar, visits : int, float, int
        Visits; the mean of what was backed up, the own evaluation included; ``n`` and the visits under way.
    children, fresh : list of Node, list of State or None
        The successors known, and not known, to be in the tree; None until the node is first selected.
    dead, closed : int, bool
        The number of actions past a limit; whether it is never selected again, as nothing new can come of it.
    """

    __slots__ = ("state", "parent", "n", "x_bar", "visits", "children", "fresh", "dead", "closed")

    def __init__(self, state: State, parent: "Node | None"):
        self.state, self.parent = state, parent
        self.n, self.x_bar, self.visits = 0, 0.0, 0
        self.children: list[Node] = []
        self.fresh: list[State] | None = None
        self.dead, self.closed = 0, False

    def way(self) -> "list[Node]":
        """The node itself and its ancestors along the parents, the root last."""
        way = [self]
        while (parent := way[-1].parent) is not None:
            way.append(parent)
        return way


def back_up(way: list[Node], reward: float) -> None:
    """Tell every node on a way of a reward."""
    for node in way:
        node.n += 1
        node.visits += 1
        node.x_bar += (reward - node.x_bar) / node.n


class MCTS(TreeMethod):
    """The search, as a method to be asked and told (``method.Method``).

    Parameters
    ----------
    space, seed, options, announce : Space, int, SearchOptions, callable
        Which cells there are; the same seed, options and answers give the same questions; told of what takes a while.

    Attributes
    ----------
    tree : dict of State to Node
        States reached on several ways (transpositions) share one node.
    dangling_nodes : dict of State to float
        Finished cells that rollouts have sampled and the tree has not reached yet, with their accuracy.
    """

    name = "mcts"

    def __init__(self, space: Space, seed: int, options: SearchOptions, announce: Announce = silently):
        self.space, self.generator, self.options, self.announce = space, space.generator, options, announce
        self.rng = random.Random(seed)
        self.rollout = ROLLOUTS[space.lookup](space, self.rng)
        self.guide = Guide(space, self.rng, options.guide_from, self.new_model(seed))
        self._exploration = 2 * options.cp * sqrt(2)
        self._closing, self._along_path = options.close_exhausted, options.backup == "path"
        self.tree: dict[State, Node] = {}
        self.dangling_nodes: dict[State, float] = {}
        self.root: Node | None = None
        self.episodes = self.guided = 0  # guided: turns of the guide, one every ``options.guide`` episodes
        self._open: dict[Question, None] = {}  # in the order of asking

    def new_model(self, seed: int) -> Model:
        """What the guide predicts by."""
        return LinearModel()

    def ask(self) -> Question | Nothing:
        """One episode, up to the question that it leads to."""
        if self.root is None:
            self.root = self.expand(None, ROOT)
            return self.evaluate(self.root)
        if self.options.guide and (cell := self.guide.anything()) is not None:
            return self.open_question(cell, [])
        if self.options.guide and self.guided < self.episodes // self.options.guide:
            self.guided += 1
            return self.ask_for_guide()
        if self.root.closed and not self.guide.promises:
            return EXHAUSTED
        reached = self.select()
        self.episodes += reached is not WAITING
        if not isinstance(reached, Node):
            return reached
        if reached.n:  # a finished cell that was visited before: its value once more
            back_up(reached.way(), reached.x_bar)
            return NO_QUESTION
        return self.evaluate(reached)

    def select(self) -> Node | Nothing:
        """From the root down: a new node, or a finished cell that was visited before."""
        node, aside = self.root, set()  # nodes of which no action can be taken, some before an answer comes
        while True:
            child = self.best_child(node, aside)
            if isinstance(child, Node):
                if self._along_path:
                    child.parent = node  # the parents of a node are then the way on which it was last reached
                if child.state.finished:
                    return child
                node = child
            elif isinstance(child, State):
                return self.expand(node, child)
            elif child is Leads.DEAD:
                back_up(node.way()[1:], 0.0)
                return NO_QUESTION
            else:  # set it aside, and begin again without it
                node.closed = child is Leads.CLOSED
                aside.add(node)
                if node is self.root:
                    return NO_QUESTION if node.closed else WAITING
                node = self.root

    def best_child(self, node: Node, aside: set[Node]) -> Node | State | Leads:
        """What the action with the largest UCT leads to, ties broken uniformly at random.

        A state outside the tree is worth infinity, one past a limit 0, and a node

            x_bar(child) + 2 Cp sqrt(2 ln n(node) / n(child))

        where visits under way count in both n (Liu et al. 2020, "Watch the Unobserved", arXiv 1810.11755).
        """
        if node.fresh is None:
            node.fresh, node.dead = self.generator.successors(node.state)
        while node.fresh:
            state = node.fresh.pop(int(self.rng.random() * len(node.fresh)))
            if state not in self.tree:
                return state
            node.children.append(self.tree[state])  # in the meantime it was reached on another way
        best, winner, ties, children = -1.0, None, None, node.children
        if self._closing:
            children = [child for child in children if not child.closed]
        if self._open and children:
            children = [c for c in children if c not in aside and (c.n or not c.state.finished)]
            if not children:
                return Leads.WAITING
        exploration, log_n = self._exploration, log(node.visits)
        for child in children:
            uct = child.x_bar + exploration * sqrt(log_n / child.visits)
            if uct > best:
                best, winner, ties = uct, child, None
            elif uct == best:
                ties = [*(ties or [winner]), child]
        if best > 0 and not ties:
            return winner
        ties = ties or [winner or Leads.CLOSED]
        if best <= 0 and not self._closing:
            ties += [Leads.DEAD] * node.dead
        return ties[0] if len(ties) == 1 and children else self.rng.choice(ties)

    def expand(self, parent: Node | None, state: State) -> Node:
        """Create the node of a state outside the tree, to be evaluated."""
        node = self.tree[state] = Node(state, parent)
        node.closed = self._closing and state.finished
        if parent:
            parent.children.append(node)
        return node

    def evaluate(self, node: Node) -> Question | Nothing:
        """Of a finished cell its own accuracy is asked for, of any other state that to which a rollout leads."""
        if node.state.finished:
            self.dangling_nodes.pop(node.state, None)
        cell = node.state if node.state.finished else self.rollout(node.state)
        if cell is not None and not self.guide.ready:
            return self.open_question(cell, node.way())
        self.settle(node.way(), GIVEN_UP if cell is None else self.guide.worth(cell))
        return NO_QUESTION

    def open_question(self, cell: State, way: list[Node]) -> Question:
        """A question whose answer goes to the nodes on a way; until it comes, it is a visit under way of each."""
        question = Question(cell, self.space.index(cell), way=way)
        self._open[question] = None
        self.guide.take(question.index)
        for node in way:
            node.visits += 1
        return question

    def tell(self, question: Question, answer: Answer) -> None:
        """The answer to an open question: back it up."""
        del self._open[question]
        way, cell = question.way, question.cell
        for node in way:
            node.visits -= 1
        if isinstance(answer, NoAccuracy):
            self.guide.give_up(question.index)
        else:
            self.learn(question.index, answer)
            if cell not in self.tree:
                self.dangling_nodes[cell] = answer
        if not way:
            self.guide.fit_if_due()
        elif answer is NOT_IN_DATA_SET:
            self.settle(way, 0.0)
        elif answer is FAILED:  # as where a rollout gives up, but nobody else is told
            back_up(way[:1], 0.0 if way[0].state.finished else GIVEN_UP)
        else:
            self.settle(way, self.value(way[0].state, answer))

    def settle(self, way: list[Node], value: float) -> None:
        """The first node on a way has its value, the reward of the others."""
        back_up(way if value > 0 else way[:1], value)  # a cell outside the table is not backed up when it is created

    def value(self, state: State, accuracy: float) -> float:
        """What a state is worth whose own accuracy, or that of its rollout, is known: just that."""
        return accuracy

    def ask_for_guide(self) -> Question | Nothing:
        """The guide's turn: ask for the cell that it finds most promising. Nothing of that is backed up."""
        cell = self.guide.choose()
        if cell is not None:
            return self.open_question(cell, [])
        self.guide.fit_if_due()
        return NO_QUESTION

    def learn(self, index: int, accuracy: float) -> None:
        """What there is to learn from a sample: here, by the guide."""
        if self.options.guide:
            self.guide.tell(index, accuracy)

    def open_questions(self) -> list[Question]:
        """Those that were asked and not answered, in the order in which they were asked."""
        return list(self._open)

    def to_save(self) -> Saved:
        main, files = pack_search(self)
        return main, {**files, "guide": self.guide.to_save()} if self.options.guide else files

    def restore(self, main: dict, files: dict[str, bytes], samples: dict[int, float]) -> None:
        saved = unpack_search(main, files, self.generator, self._closing, Node)
        self.tree, self.dangling_nodes, self.root = saved.tree, saved.dangling_nodes, saved.tree[ROOT]
        self.episodes, self.guided = saved.episodes, saved.guided
        for index, accuracy in samples.items():
            self.learn(index, accuracy)
        if self.options.guide:
            self.guide.restore(files["guide"], main.get("failed", []))
        for cell, way in saved.open_questions:
            self.open_question(cell, way)
        unpack_rng(main["rng"], self.rng)


def main(argv: list[str] | None = None) -> int:
    """Run ``python MCTS.py``; returns the exit status."""
    parser = build_parser("Monte Carlo Tree Search over NAS-Bench-101 cells.", SearchOptions)
    return run_command(parser.parse_args(argv), MCTS, SearchOptions)


if __name__ == "__main__":
    command.run(main)
