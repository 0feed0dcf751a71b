"""The cells of NAS-Bench-101: their coding, stored form, enumeration and trainable parameters.

A *cell* is a small labelled directed acyclic graph, written here as two values:

- ``operations``: a tuple with one number in 0..2 per inner vertex (see ``OPERATIONS``). A cell has
  ``v = len(operations) + 2`` vertices: vertex 0 is ``input``, vertex ``v - 1`` is ``output``.
- ``edges``: an int, the set of edges. The edge x -> y (x < y) is bit ``x + y(y-1)/2``, so the number
  does not change when a vertex is appended.

NAS-Bench-101 (Ying et al. 2019, arXiv 1902.09635) stores one labelled matrix of every isomorphism
class. Which one has a rule: walk over ``v = 2..7``, over ``edges`` ascending, over the operations in
the order of ``itertools.product(range(3), repeat=v-2)``; keep graphs of at most 9 edges in which every
vertex lies on a way from input to output; the first of its class is the stored form. The position in
that walk is the cell's *index*, 0..423623, so that a table needs no keys.
"""

import random
from functools import lru_cache
from itertools import permutations

import numpy as np

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
CONV3X3, CONV1X1, MAXPOOL3X3 = range(3)
MIN_VERTICES, MAX_VERTICES = 2, 7
MAX_EDGES = 9
CELL_COUNTS = {2: 1, 3: 6, 4: 84, 5: 2_441, 6: 62_010, 7: 359_082}  # published, by vertex count
NOT_A_CELL = -1  # the index of whatever NAS-Bench-101 does not store

Operations = tuple[int, ...]


def edge_bit(x: int, y: int) -> int:
    """The bit of the edge x -> y, for 0 <= x < y."""
    return 1 << (x + y * (y - 1) // 2)


def edge_pairs(vertices: int) -> list[tuple[int, int]]:
    """All edges (x, y), x < y, of a graph with that many vertices, in the order of their bits."""
    return [(x, y) for y in range(1, vertices) for x in range(y)]


# --- the JSON form, at the boundary of the program ---------------------------------------------


def to_dict(operations: Operations, edges: int) -> dict:
    """``{"adj_mat": [[0/1]], "node_list": ["input", ..., "output"]}`` of a cell."""
    vertices = len(operations) + 2
    matrix = [[int(x < y and edges & edge_bit(x, y) != 0) for y in range(vertices)] for x in range(vertices)]
    return {"adj_mat": matrix, "node_list": ["input", *(OPERATIONS[o] for o in operations), "output"]}


def from_dict(cell: dict) -> tuple[Operations, int]:
    """The ``(operations, edges)`` of a cell in JSON form.

    Raises
    ------
    ValueError
        If it is not a strictly upper-triangular 0/1 matrix with as many vertices as names, 2 to 7,
        or if a name is unknown. The message says what is wrong.
    """
    try:
        matrix, names = cell["adj_mat"], cell["node_list"]
        vertices = len(names)
        if not MIN_VERTICES <= vertices <= MAX_VERTICES:
            raise ValueError(f"a cell has {MIN_VERTICES} to {MAX_VERTICES} vertices, not {vertices}")
        if len(matrix) != vertices or any(len(row) != vertices for row in matrix):
            raise ValueError(f"adj_mat is not a {vertices} x {vertices} matrix, one row for each name in node_list")
        if names[0] != "input" or names[-1] != "output":
            raise ValueError("node_list does not begin with 'input' and end with 'output'")
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError("a cell is an object with a matrix 'adj_mat' and a list 'node_list'") from error
    if unknown := [name for name in names[1:-1] if name not in OPERATIONS]:
        raise ValueError(f"unknown operation {shown(unknown[0])}; known: {', '.join(OPERATIONS)}")
    return tuple(OPERATIONS.index(name) for name in names[1:-1]), _edges_of(matrix)


def _edges_of(matrix: list) -> int:
    """The edges of a square matrix; ValueError where it is not strictly upper-triangular of 0 and 1."""
    edges = 0
    for x, row in enumerate(matrix):
        for y, entry in enumerate(row):
            if entry not in (0, 1):
                raise ValueError(f"adj_mat has {shown(entry)}, which is neither 0 nor 1")
            if entry and y <= x:
                raise ValueError("adj_mat is not strictly upper-triangular")
            if entry:
                edges |= edge_bit(x, y)
    return edges


def shown(value: object) -> str:
    """A value out of a file for a message: its type where it is neither text nor a number, so of any size."""
    if isinstance(value, str):
        return repr(value[:50])
    return f"{value!r:.50}" if isinstance(value, (int, float)) else f"something of type {type(value).__name__}"


def neighbours(operations: Operations, edges: int) -> list[tuple[Operations, int]]:
    """All graphs of as many vertices with one operation or one edge changed; not all are cells."""
    changed = [
        (operations[:i] + (o,) + operations[i + 1 :], edges)
        for i in range(len(operations))
        for o in range(len(OPERATIONS))
        if o != operations[i]
    ]
    vertices = len(operations) + 2
    return changed + [(operations, edges ^ 1 << bit) for bit in range(vertices * (vertices - 1) // 2)]


def mutate(
    operations: Operations, edges: int, rng: random.Random, edge_chance: float | None = None
) -> tuple[Operations, int]:
    """A graph with on average one operation and (v - 1) / 2 edges changed (Ying et al. 2019).

    Each edge is flipped with probability 1 / v, or another, each operation replaced with probability 1 / (v - 2).
    """
    vertices = len(operations) + 2
    edge_chance = 1 / vertices if edge_chance is None else edge_chance
    for bit in range(vertices * (vertices - 1) // 2):
        if rng.random() < edge_chance:
            edges ^= 1 << bit
    mutated = tuple(
        rng.choice([other for other in range(3) if other != o]) if rng.random() < 1 / len(operations) else o
        for o in operations
    )
    return mutated, edges


def enlarge(operations: Operations, edges: int, more: Operations) -> tuple[Operations, int]:
    """The graph with more inner vertices, after the others and without edges."""
    output, new_output = len(operations) + 1, len(operations) + 1 + len(more)
    first = output * (output - 1) // 2  # the bit of the first edge into the output
    into_output = edges >> first << new_output * (new_output - 1) // 2
    return operations + more, edges & (1 << first) - 1 | into_output


# --- relabelling ------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def _relabellings(vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All orders of the inner vertices, the identity first.

    Returns
    -------
    order : int [P, vertices - 2]
        Row p: the inner vertex that takes each new place.
    moved : int64 [P, E]
        Where bit e goes under p, as a value ``1 << new bit``; 0 where that edge would point backwards.
    backwards : int64 [P]
        The edges (as bits) that p would turn backwards; p fits ``edges`` iff ``edges & backwards == 0``.
    """
    pairs = edge_pairs(vertices)
    order = list(permutations(range(1, vertices - 1)))
    moved = np.zeros((len(order), len(pairs)), np.int64)
    for p, row in enumerate(order):
        place = {old: new for new, old in enumerate((0, *row, vertices - 1))}
        for e, (x, y) in enumerate(pairs):
            if place[x] < place[y]:
                moved[p, e] = edge_bit(place[x], place[y])
    backwards = ((moved == 0) << np.arange(len(pairs))).sum(axis=1)
    return np.array(order, int).reshape(len(order), vertices - 2), moved, backwards


def _move(edges: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Relabel every edge set of an int64 array by one row of ``moved`` (see ``_relabellings``)."""
    result = np.zeros_like(edges)
    for e, target in enumerate(moved):
        result |= ((edges >> e) & 1) * target
    return result


@lru_cache(maxsize=1 << 18)
def smallest_relabelling(vertices: int, edges: int) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """The smallest relabelling of ``edges`` and the orders (as indices into operations) that give it."""
    order, moved, backwards = _relabellings(vertices)
    bits = [e for e in range(moved.shape[1]) if edges >> e & 1]
    relabelled = np.where(backwards & edges, np.iinfo(np.int64).max, moved[:, bits].sum(axis=1))
    smallest = relabelled.min()
    rows = order[relabelled == smallest] - 1
    return int(smallest), tuple(map(tuple, rows.tolist()))


def prune(operations: Operations, edges: int) -> tuple[Operations, int] | None:
    """Without the vertices that lie on no way from input to output; None if there is no such way."""
    pruned = _pruned_graph(len(operations) + 2, edges)
    if pruned is None:
        return None
    kept, edges = pruned
    return tuple([operations[i] for i in kept]), edges


@lru_cache(maxsize=1 << 16)  # all edge sets of up to 6 vertices
def _pruned_graph(vertices: int, edges: int) -> tuple[tuple[int, ...], int] | None:
    """The vertices in between that are kept, as indices into operations, and the edges that are left."""
    sources = [edges >> y * (y - 1) // 2 & (1 << y) - 1 for y in range(vertices)]  # bit x: there is an edge x -> y
    forward, backward = 1, 1 << vertices - 1
    for y in range(1, vertices):
        if sources[y] & forward:
            forward |= 1 << y
    for y in range(vertices - 1, 0, -1):
        if backward >> y & 1:
            backward |= sources[y]
    if not forward >> vertices - 1:
        return None
    kept = [vertex for vertex in range(vertices) if (forward & backward) >> vertex & 1]
    left = [edge_bit(x, y) for y, old in enumerate(kept) for x in range(y) if sources[old] >> kept[x] & 1]
    return tuple([vertex - 1 for vertex in kept[1:-1]]), sum(left)


@lru_cache(maxsize=1 << 16)  # a search asks for the same cell several times in a row
def stored_form(operations: Operations, edges: int) -> tuple[Operations, int] | None:
    """The form in which NAS-Bench-101 stores the class of a labelled cell, after pruning.

    None where input and output are not connected or more than 9 edges are left.
    """
    pruned = prune(operations, edges)
    if pruned is None or pruned[1].bit_count() > MAX_EDGES:
        return None
    operations, edges = pruned
    smallest, orders = smallest_relabelling(len(operations) + 2, edges)
    return min(tuple(operations[i] for i in order) for order in orders), smallest


# --- enumeration ------------------------------------------------------------------------------


def _connected(vertices: int) -> np.ndarray:
    """All edge sets (int64, ascending) of at most 9 edges without dangling vertices."""
    edges = np.arange(1 << (vertices * (vertices - 1) // 2), dtype=np.int64)
    keep = np.bitwise_count(edges) <= MAX_EDGES
    for vertex in range(vertices):
        outgoing = sum(edge_bit(vertex, y) for y in range(vertex + 1, vertices))
        incoming = sum(edge_bit(x, vertex) for x in range(vertex))
        for mask in (outgoing, incoming):
            if mask:
                keep &= edges & mask != 0
    return edges[keep]


@lru_cache(maxsize=None)
def operation_table(vertices: int) -> np.ndarray:
    """uint8 [3^(v-2), v-2], read-only: all operations of v vertices in the order of ``itertools.product``."""
    inner = vertices - 2
    numbers = np.arange(3**inner)[:, None]
    table = (numbers // 3 ** np.arange(inner - 1, -1, -1) % 3).astype(np.uint8)
    table.flags.writeable = False
    return table


def operation_number(operations: Operations) -> int:
    """The row of ``operations`` in ``operation_table``."""
    number = 0
    for operation in operations:
        number = 3 * number + operation
    return number


@lru_cache(maxsize=None)
def enumerate_codes(vertices: int) -> np.ndarray:
    """The codes ``edges * 3^(v-2) + operation_number`` (int64, ascending) of all stored cells of v vertices."""
    order, moved, backwards = _relabellings(vertices)
    edges = _connected(vertices)
    for p in range(1, len(order)):  # a graph with a smaller relabelling is not the first of its class
        fits = edges & backwards[p] == 0
        edges = edges[~fits | (_move(edges, moved[p]) >= edges)]
    labels = operation_table(vertices)
    numbers = np.arange(len(labels))
    weights = 3 ** np.arange(vertices - 3, -1, -1) if vertices > 2 else np.zeros(0, int)
    first = np.ones((len(edges), len(labels)), bool)
    for p in range(1, len(order)):  # among the relabellings that keep the graph, the operations decide
        automorphic = (edges & backwards[p] == 0) & (_move(edges, moved[p]) == edges)
        first[automorphic] &= labels[:, order[p] - 1].astype(int) @ weights >= numbers
    row, number = np.nonzero(first)
    codes = edges[row] * len(labels) + number
    codes.flags.writeable = False
    return codes


@lru_cache(maxsize=None)
def first_index(vertices: int) -> int:
    """The index of the first cell with that many vertices; equally, the number of cells with fewer."""
    return sum(count for v, count in CELL_COUNTS.items() if v < vertices)


def cell_count(vertices: int = MAX_VERTICES) -> int:
    """The number of cells with at most that many vertices."""
    return first_index(vertices + 1)


def index(operations: Operations, edges: int) -> int:
    """The index (0..423623) of a cell given in its stored form; ``NOT_A_CELL`` for anything else."""
    codes = enumerate_codes(len(operations) + 2)
    code = edges * 3 ** len(operations) + operation_number(operations)
    position = int(codes.searchsorted(code))
    if position == len(codes) or codes.item(position) != code:
        return NOT_A_CELL
    return first_index(len(operations) + 2) + position


def cell(index: int) -> tuple[Operations, int]:
    """The stored ``(operations, edges)`` at an index; the inverse of ``index``."""
    for vertices in CELL_COUNTS:
        if index < cell_count(vertices):
            code = int(enumerate_codes(vertices)[index - first_index(vertices)])
            edges, number = divmod(code, 3 ** (vertices - 2))
            return tuple(operation_table(vertices)[number].tolist()), edges
    raise IndexError(f"cell {index}: NAS-Bench-101 has {cell_count():,} cells")


# --- trainable parameters ---------------------------------------------------------------------

STEM_CHANNELS, STACKS, CELLS_PER_STACK, CLASSES = 128, 3, 3, 10


def vertex_channels(edges: int, vertices: int, channels_in: int, channels_out: int) -> list[int]:
    """The width of every vertex by NAS-Bench-101's rule (Ying et al. 2019, section 2.3 and its code).

    The vertices that feed ``output`` share its channels, the remainder going to the first of them; any
    other one is as wide as its widest successor.
    """
    output = vertices - 1
    channels = [channels_in] + [0] * (vertices - 2) + [channels_out]
    feeding = [x for x in range(1, output) if edges & edge_bit(x, output)]
    for place, x in enumerate(feeding):
        channels[x] = channels_out // len(feeding) + (place < channels_out % len(feeding))
    for x in range(output - 1, 0, -1):
        if x not in feeding:
            channels[x] = max((channels[y] for y in range(x + 1, output) if edges & edge_bit(x, y)), default=0)
    return channels


def _convolution(kernel: int, channels_in: int, channels_out: int) -> int:
    """Parameters of a convolution without bias and its batch normalisation."""
    return kernel * kernel * channels_in * channels_out + 2 * channels_out


@lru_cache(maxsize=1 << 18)
def parameter_terms(edges: int, vertices: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
    """Trainable parameters of the network built from a graph, apart by what its operations decide.

    Returns the part that does not depend on the operations, and for every inner vertex what it adds with
    each operation (in the order of ``OPERATIONS``).
    """
    fixed = _convolution(3, 3, STEM_CHANNELS)
    added = [[0, 0, 0] for _ in range(vertices - 2)]
    channels_in = STEM_CHANNELS
    for stack in range(STACKS):
        channels_out = STEM_CHANNELS << stack
        for _ in range(CELLS_PER_STACK):
            channels = vertex_channels(edges, vertices, channels_in, channels_out)
            for y in range(1, vertices):
                if edges & edge_bit(0, y):  # what leaves ``input`` goes through a projection
                    fixed += _convolution(1, channels_in, channels[y])
            for inner, width in enumerate(channels[1:-1]):
                added[inner][CONV3X3] += _convolution(3, width, width)
                added[inner][CONV1X1] += _convolution(1, width, width)
            channels_in = channels_out
    return fixed + channels_in * CLASSES + CLASSES, tuple(map(tuple, added))


def trainable_parameters(operations: Operations, edges: int) -> int:
    """Trainable parameters of the CIFAR-10 network of a cell without dangling vertices."""
    fixed, added = parameter_terms(edges, len(operations) + 2)
    return fixed + sum(terms[operation] for terms, operation in zip(added, operations))
