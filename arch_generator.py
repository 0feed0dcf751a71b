"""The search space: states, actions, limits and transition rules (Wang et al., AAAI-20, section 3.1).

A *state* is a partly or fully built NAS-Bench-101 cell. It starts as ``input, output`` without an edge and
grows by one action at a time; ``term`` finishes it. Nothing here knows accuracies or trees.

Change the two knobs of ``class arch_generator`` to change the domain.
"""

from functools import lru_cache
from typing import NamedTuple

from nasbench_dataset import InputError, cells


class State(NamedTuple):
    """A cell under construction; see ``nasbench_dataset.cells`` for the coding.

    Attributes
    ----------
    operations : tuple of int
        The operation (0..2) of every inner vertex.
    edges : int
        The edges as bits.
    finished : bool
        Whether ``term`` was taken.
    """

    operations: tuple[int, ...] = ()
    edges: int = 0
    finished: bool = False

    @property
    def vertices(self) -> int:
        """The number of vertices, input and output included."""
        return len(self.operations) + 2

    def to_dict(self) -> dict:
        """``{"adj_mat": ..., "node_list": [...]}``; a finished cell ends with ``"term"``."""
        state = cells.to_dict(self.operations, self.edges)
        if self.finished:
            state["node_list"].append("term")
        return state

    @classmethod
    def from_dict(cls, state: dict) -> "State":
        """The inverse of ``to_dict``; raises ValueError with what is wrong."""
        try:
            names = list(state["node_list"])
        except (TypeError, KeyError) as error:
            raise ValueError("a state is an object with a matrix 'adj_mat' and a list 'node_list'") from error
        finished = names[-1:] == ["term"]
        if finished:
            state = {**state, "node_list": names[:-1]}
        return cls(*cells.from_dict(state), finished)


ROOT = State()


class Action(NamedTuple):
    """One step of building a cell: ``("node", operation name)``, ``("edge", (i, j))`` or ``("term", None)``."""

    kind: str
    what: str | tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.kind if self.what is None else f"{self.kind}:{self.what}"


TERM = Action("term")
ADD_VERTEX = tuple(Action("node", name) for name in cells.OPERATIONS)


@lru_cache(maxsize=None)
def _edge_actions(vertices: int) -> tuple[tuple[int, Action], ...]:
    return tuple((cells.edge_bit(x, y), Action("edge", (x, y))) for x, y in cells.edge_pairs(vertices))


class arch_generator:  # noqa: N801 (the original's name)
    """Which actions a state has and where they lead.

    Parameters
    ----------
    max_nodes, max_edges : int, optional
        Limits of this instance; by default those of the class.

    Raises
    ------
    InputError
        If a limit is outside its range.
    """

    MAX_NODES = 6  # vertices of a cell, input and output included: 3..7
    MAX_EDGES = 9  # edges of a cell: 1..9; NAS-Bench-101 has no cell with more than 9

    def __init__(self, max_nodes: int | None = None, max_edges: int | None = None):
        self.max_nodes = self.MAX_NODES if max_nodes is None else max_nodes
        self.max_edges = self.MAX_EDGES if max_edges is None else max_edges
        for name, value, low, high in (
            ("MAX_NODES", self.max_nodes, 3, cells.MAX_VERTICES),
            ("MAX_EDGES", self.max_edges, 1, cells.MAX_EDGES),
        ):
            if type(value) is not int or not low <= value <= high:
                raise InputError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")

    def actions(self, state: State) -> list[Action]:
        """All actions of an unfinished state, those that would pass a limit included."""
        absent = [action for bit, action in _edge_actions(state.vertices) if not state.edges & bit]
        return [*ADD_VERTEX, *absent, TERM]

    def transition(self, state: State, action: Action) -> State | None:
        """The state that an action leads to; None where it would pass a limit.

        Adding a vertex wipes all edges: so does the original, whose paper does not mention it.
        """
        if action.kind == "term":
            return State(state.operations, state.edges, True)
        if action.kind == "node":
            if state.vertices >= self.max_nodes:
                return None
            return State((*state.operations, cells.OPERATIONS.index(action.what)), 0)
        if state.edges.bit_count() >= self.max_edges:
            return None
        return State(state.operations, state.edges | cells.edge_bit(*action.what))

    def successors(self, state: State) -> tuple[list[State], int]:
        """The states that the actions of an unfinished state lead to, and how many actions would pass a limit.

        What ``transition`` makes of each of ``actions``, in their order, but several times as fast.
        """
        operations, edges, _ = state
        absent = [bit for bit, _ in _edge_actions(state.vertices) if not edges & bit]
        larger = [State((*operations, o)) for o in range(len(ADD_VERTEX))] if state.vertices < self.max_nodes else []
        denser = [State(operations, edges | bit) for bit in absent] if edges.bit_count() < self.max_edges else []
        states = [*larger, *denser, State(operations, edges, True)]
        return states, len(ADD_VERTEX) + len(absent) + 1 - len(states)

    def random_walk(self, vertices: int, edges: int) -> tuple[list[float], float]:
        """Where uniformly random actions lead from a state with so many vertices and edges.

        The chances depend on the two counts alone, since every limit and every number of actions does.

        Returns
        -------
        stop : list of float
            ``stop[k]``: the probability of taking ``term`` with k edges and still as many vertices.
        leave : float
            The probability of adding one more vertex. What is missing to 1 ends in ``None``.
        """
        return _random_walk(vertices, edges, self.max_nodes, self.max_edges)

    def ended(self, vertices: int, edges: int) -> float:
        """The probability that uniformly random actions end in ``term``, with any cell."""
        return _ended(vertices, edges, self.max_nodes, self.max_edges)


@lru_cache(maxsize=None)
def _random_walk(vertices: int, edges: int, max_nodes: int, max_edges: int) -> tuple[list[float], float]:
    possible = vertices * (vertices - 1) // 2
    stop, leave, reach = [0.0] * (max_edges + 1), 0.0, 1.0
    for k in range(edges, min(possible, max_edges) + 1):
        number_of_actions = len(ADD_VERTEX) + (possible - k) + 1
        stop[k] = reach / number_of_actions
        if vertices < max_nodes:
            leave += reach * len(ADD_VERTEX) / number_of_actions
        reach *= (possible - k) / number_of_actions
    return stop, leave


@lru_cache(maxsize=None)
def _ended(vertices: int, edges: int, max_nodes: int, max_edges: int) -> float:
    stop, leave = _random_walk(vertices, edges, max_nodes, max_edges)
    return sum(stop) + (leave * _ended(vertices + 1, 0, max_nodes, max_edges) if leave else 0.0)
