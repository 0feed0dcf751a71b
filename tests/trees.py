"""Trees for tests: nodes as they are wanted, and all that a tree holds."""

from arch_generator import State
from MCTS import MCTS, Node


def node_with(state: State, parent: Node | None, n: int, x_bar: float, under_way: int = 0) -> Node:
    """A node with no action left to try, among the children of its parent."""
    node = Node(state, parent)
    node.n, node.x_bar, node.visits, node.fresh = n, x_bar, n + under_way, []
    if parent is not None:
        parent.children.append(node)
    return node


def statistics(search: MCTS) -> list[tuple]:
    """What each node of a tree holds, in the order of their creation."""
    return [(node.state, node.n, node.visits, node.x_bar, node.closed) for node in search.tree.values()]
