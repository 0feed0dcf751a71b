"""The tree as JSON: packed, unpacked, and checked.

Parallel lists, one entry for each node or cell: written and read several times faster than objects. A node is anything
with the attributes of ``MCTS.Node``, whose class is handed in.
"""

import random
from itertools import chain
from typing import Callable, Iterable, NamedTuple, Protocol

import checkpoint
from arch_generator import ROOT, State, arch_generator
from checkpoint import Saved
from method import Question, TreeMethod


class Node(Protocol):
    """What is saved of a node; see ``MCTS.Node``."""

    state: State
    parent: "Node | None"
    n: int
    x_bar: float
    visits: int
    children: "list[Node]"
    fresh: list[State] | None
    dead: int
    closed: bool


NewNode = Callable[[State, Node | None], Node]


class SavedSearch(NamedTuple):
    """What ``unpack_search`` gives; the attributes of an ``MCTS`` by their names."""

    tree: dict[State, Node]
    dangling_nodes: dict[State, float]
    episodes: int
    guided: int
    open_questions: list[tuple[State, list[Node]]]


def pack_search(search: TreeMethod) -> Saved:
    """Everything of a search, but for the samples and its guide: a part for JSON, and files by their names."""
    nodes = search.tree.values()
    main = {
        "episodes": search.episodes,
        "guided": search.guided,
        "open": pack_questions(search.open_questions(), nodes),
        "rng": pack_rng(search.rng),
    }
    return main, {"nodes": pack_tree(nodes), "dangling_nodes": pack_cells(search.dangling_nodes)}


def unpack_search(
    main: dict, files: dict[str, bytes], generator: arch_generator, closing: bool, new_node: NewNode
) -> SavedSearch:
    """The inverse of ``pack_search``; a LookupError, TypeError or ValueError where it is anything else.

    Parameters
    ----------
    closing : bool
        Whether the search closes what is exhausted.
    new_node : callable
        Makes a node of a state and its parent.
    """
    episodes, guided = checkpoint.numbers([main["episodes"], main["guided"]], int, 0, 2**53, "episodes")
    nodes = unpack_tree(files["nodes"], generator, episodes, closing, new_node)
    questions = unpack_questions(main["open"], nodes, generator)
    under_way = {id(way[0]) for _, way in questions if way}
    if not all(node.n or id(node) in under_way for node in nodes):
        raise ValueError("nodes: one that was never evaluated")
    tree = {node.state: node for node in nodes}
    return SavedSearch(tree, unpack_cells(files["dangling_nodes"], generator), episodes, guided, questions)


def number(tree: Iterable[Node]) -> dict[int, int]:
    """The place of each node in the tree, by its ``id``."""
    return {id(node): place for place, node in enumerate(tree)}


def pack_tree(tree: Iterable[Node]) -> bytes:
    """Nodes in the order of their creation; the children are numbers, null where never selected."""
    nodes = list(tree)
    place = number(nodes)
    columns = {
        "operations": [node.state.operations for node in nodes],
        "edges": [node.state.edges for node in nodes],
        "finished": [node.state.finished for node in nodes],
        "parent": [None if node.parent is None else place[id(node.parent)] for node in nodes],
        "n": [node.n for node in nodes],
        "x_bar": [node.x_bar for node in nodes],
        "closed": [node.closed for node in nodes],
        "children": [None if node.fresh is None else [place[id(child)] for child in node.children] for node in nodes],
    }
    return checkpoint.to_json(columns)


def unpack_tree(
    content: bytes, generator: arch_generator, episodes: int, closing: bool, new_node: NewNode
) -> list[Node]:
    """The inverse of ``pack_tree``; a LookupError, TypeError or ValueError where it is no tree of such a search.

    What is not saved follows: the fresh states of a node are its successors, in order, without its children.
    """
    names = "operations", "edges", "finished", "parent", "n", "x_bar", "closed", "children"
    operations, edges, finished, parents, visits, means, closed, children = checkpoint.columns(content, *names)
    states = checkpoint.states(operations, edges, finished, generator)
    checkpoint.numbers(parents[1:], int, 0, len(parents), "parent")
    checkpoint.numbers(visits, int, 0, episodes + 1, "n")
    checkpoint.numbers(means, float, 0, 1, "x_bar")
    checkpoint.numbers(closed, bool, False, True, "closed")
    checkpoint.numbers(list(chain.from_iterable(filter(None, children))), int, 1, len(parents), "children")
    nodes = [new_node(state, None) for state in states]
    for i, node in enumerate(nodes):
        node.n, node.visits, node.x_bar, node.closed = visits[i], visits[i], means[i], closed[i]
        node.parent = nodes[parents[i]] if i else None
    placed = 1
    for node, numbers in zip(nodes, children):
        if numbers is not None:
            adopt(node, [nodes[i] for i in numbers], generator)
            placed += sum(child.parent is node for child in node.children)
    # Together with adopt(): every state is what actions lead to from the root.
    if nodes[0].state != ROOT or parents[0] is not None or placed != len(nodes) or len(set(states)) < len(states):
        raise ValueError("nodes: not a tree that grew from the root, each state in it once")
    if not all(can_be_so(node, closing) for node in nodes):
        raise ValueError("nodes: closed where that cannot be, or a finished cell that is not")
    return nodes


def can_be_so(node: Node, closing: bool) -> bool:
    """Whether a saved node can be closed, or open, as it is."""
    if node.state.finished or not closing:
        return node.closed == closing
    return not node.closed or node.fresh == [] and all(child.closed for child in node.children)


def adopt(node: Node, children: list[Node], generator: arch_generator) -> None:
    """Give a node back its children, in the order in which they became known."""
    node.fresh, node.dead = generator.successors(node.state)
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


def pack_questions(questions: list[Question], tree: Iterable[Node]) -> list[dict]:
    """Open questions: the cell, and the numbers of the nodes on its way."""
    place = number(tree)
    return [
        {"operations": q.cell.operations, "edges": q.cell.edges, "way": [place[id(node)] for node in q.way]}
        for q in questions
    ]


def unpack_questions(
    packed: list[dict], nodes: list[Node], generator: arch_generator
) -> list[tuple[State, list[Node]]]:
    """The inverse of ``pack_questions``: the cell and the way of each.

    Raises
    ------
    LookupError, TypeError, ValueError
        Where it is anything else.
    """
    found = []
    for question in packed:
        (cell,) = checkpoint.states([question["operations"]], [question["edges"]], [True], generator)
        numbers = checkpoint.numbers(question["way"], int, 0, len(nodes) - 1, "open")
        if len(set(numbers)) < len(numbers) or numbers and numbers[-1] != 0:
            raise ValueError("open: a way that does not lead from the root")
        found.append((cell, [nodes[i] for i in numbers]))
    return found


def pack_rng(rng: random.Random) -> list:
    """The state of a random generator, for JSON."""
    version, state, gauss = rng.getstate()
    return [version, list(state), gauss]


def unpack_rng(packed: list, rng: random.Random) -> None:
    """The inverse of ``pack_rng``; a LookupError, TypeError or ValueError where it is anything else."""
    version, state, gauss = packed
    if gauss is not None:
        raise ValueError("rng: a normal number, which no search draws")
    rng.setstate((version, tuple(checkpoint.numbers(state, int, 0, 2**32 - 1, "rng")), None))
