"""The tree as JSON: packed, unpacked, and checked.

Parallel lists, one entry for each node or cell: written and read several times faster than objects. A node is anything
with the attributes of ``MCTS.Node``, whose class is handed in.
"""

from itertools import chain
from typing import TYPE_CHECKING, Callable, Iterable

import checkpoint
from arch_generator import ROOT, State, arch_generator

if TYPE_CHECKING:  # imports point down: MCTS imports this
    from MCTS import Node


def number(tree: Iterable["Node"]) -> dict[int, int]:
    """The place of each node in the tree, by its ``id``."""
    return {id(node): place for place, node in enumerate(tree)}


def pack_tree(tree: Iterable["Node"]) -> bytes:
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
    content: bytes, generator: arch_generator, episodes: int, new_node: "Callable[[State, Node | None], Node]"
) -> "list[Node]":
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
        node.n, node.x_bar, node.closed = visits[i], means[i], closed[i]
        node.parent = nodes[parents[i]] if i else None
    placed = 1
    for node, numbers in zip(nodes, children):
        if numbers is not None:
            adopt(node, [nodes[i] for i in numbers], generator)
            placed += sum(child.parent is node for child in node.children)
    # Together with adopt(): every state is what actions lead to from the root.
    if nodes[0].state != ROOT or parents[0] is not None or placed != len(nodes) or len(set(states)) < len(states):
        raise ValueError("nodes: not a tree that grew from the root, each state in it once")
    return nodes


def adopt(node: "Node", children: "list[Node]", generator: arch_generator) -> None:
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


def pack_questions(questions: list, tree: Iterable["Node"]) -> list[dict]:
    """Open questions: the cell, the number of the node they are to evaluate, and those of the nodes on its way."""
    place = number(tree)
    return [
        {
            "operations": list(question.cell.operations),
            "edges": question.cell.edges,
            "node": None if question.node is None else place[id(question.node)],
            "way": [place[id(node)] for node in question.way],
        }
        for question in questions
    ]


def unpack_questions(packed: list[dict], nodes: "list[Node]", generator: arch_generator) -> list[tuple]:
    """The inverse of ``pack_questions``: (cell, node or None, way); a LookupError, TypeError or ValueError where it is none."""
    found = []
    for question in packed:
        (cell,) = checkpoint.states([question["operations"]], [question["edges"]], [True], generator)
        numbers = [] if question["node"] is None else [question["node"], *question["way"]]
        checkpoint.numbers(numbers, int, 0, len(nodes) - 1, "open")
        node, *way = [nodes[i] for i in numbers] or [None]
        if node is not None and (len(set(numbers)) < len(numbers) or ([node, *way])[-1] is not nodes[0]):
            raise ValueError("open: a way that does not lead from the root")
        found.append((cell, node, way))
    return found
