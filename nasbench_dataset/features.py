"""What the surrogate sees of a cell: numbers that describe its structure, for many cells at once.

A path leads from ``input`` to ``output``; its inner vertices are a subset of the cell's, in order, so a
cell of 7 vertices has at most 32 of them and all cells can be asked for the same subset together. Most
of what decides an accuracy can be read off the paths: how many there are, by the sequence of operations
on them (the path encoding of White et al. 2019, arXiv 1910.11858), the longest, the shortest, the one
with the most convolutions.
"""

from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from nasbench_dataset import cells, published

SHORT = published.SHORT  # names of the operations within names of features
KINDS = (*SHORT, "in", "out")  # what a vertex can be
INPUT, OUTPUT = 3, 4  # places in KINDS
MAX_INNER = cells.MAX_VERTICES - 2
SEQUENCES = [s for length in range(MAX_INNER + 1) for s in product(range(3), repeat=length)]
LONGEST_COUNTED = 4  # a path of 5 is alone in its cell, and the operations by place tell its sequence
FULL_WIDTH = 512  # channels are counted in parts of the cell's output; any large number does


class Graphs(NamedTuple):
    """Cells of one vertex count v.

    Attributes
    ----------
    kinds : uint8 [n, v]
        What every vertex is, as a place in ``KINDS``.
    edges : int64 [n]
        Edge sets, coded as in ``cells``.
    edge : bool [v, v, n]
        ``edge[x, y]``: which of the cells have the edge x -> y.
    """

    kinds: np.ndarray
    edges: np.ndarray
    edge: np.ndarray


def _graphs(vertices: int, codes: np.ndarray) -> Graphs:
    """Decode codes (int64 [n], as ``cells.enumerate_codes`` gives them)."""
    edges, numbers = np.divmod(codes, 3 ** (vertices - 2))
    kinds = np.full((len(codes), vertices), INPUT, np.uint8)
    kinds[:, 1:-1] = cells.operation_table(vertices)[numbers]
    kinds[:, -1] = OUTPUT
    edge = np.zeros((vertices, vertices, len(codes)), bool)
    for x, y in cells.edge_pairs(vertices):
        edge[x, y] = edges & cells.edge_bit(x, y) != 0
    return Graphs(kinds, edges, edge)


def _path_features(graphs: Graphs) -> Iterator[tuple[str, np.ndarray]]:
    """Numbers of paths by their operations, and the extremes over the paths of a cell."""
    n, vertices = graphs.kinds.shape
    first_of_length = [(3**length - 1) // 2 for length in range(MAX_INNER + 1)]  # in SEQUENCES
    counts = np.zeros((n, len(SEQUENCES)), np.uint8)
    for length in range(vertices - 1):
        for inner in combinations(range(1, vertices - 1), length):
            way = (0, *inner, vertices - 1)
            there = np.flatnonzero(np.logical_and.reduce([graphs.edge[x, y] for x, y in zip(way, way[1:])]))
            operations = graphs.kinds[np.ix_(there, inner)].astype(int)
            sequence = first_of_length[length] + operations @ 3 ** np.arange(length)[::-1]
            counts[there, sequence] += 1
    for sequence, column in zip(SEQUENCES, counts.T):
        if len(sequence) <= LONGEST_COUNTED:
            yield "paths " + ("-".join(SHORT[o] for o in sequence) or "without a vertex"), column

    yield "paths", counts.sum(axis=1)
    counts = counts.astype(np.float32)  # whole numbers still, and products of matrices are fast
    quantities = {"length": [len(s) for s in SEQUENCES]}
    quantities |= {name: [s.count(o) for s in SEQUENCES] for o, name in enumerate(SHORT)}
    quantities["convolutions"] = [len(s) - s.count(cells.MAXPOOL3X3) for s in SEQUENCES]
    numbers = np.arange(MAX_INNER + 1)
    one_hot = {name: np.equal.outer(values, numbers).astype(np.float32) for name, values in quantities.items()}
    paths_with = {name: counts @ matrix for name, matrix in one_hot.items()}  # [n, numbers]: so many paths have so many
    for name, paths in paths_with.items():
        yield f"most {name} on a path", MAX_INNER - (paths > 0)[:, ::-1].argmax(axis=1)
        yield f"least {name} on a path", (paths > 0).argmax(axis=1)
        yield f"mean {name} on a path", paths @ numbers / paths.sum(axis=1)
    for number in numbers:
        yield f"paths with {number} c3", paths_with["c3"][:, number]


def _edge_features(graphs: Graphs) -> Iterator[tuple[str, np.ndarray]]:
    """Edges: how many, between which kinds of vertices, at which places."""
    n, vertices = graphs.kinds.shape
    yield "edges", graphs.edge.sum(axis=(0, 1))
    pairs = np.zeros((n, len(KINDS) ** 2), np.uint8)
    for x, y in cells.edge_pairs(vertices):
        there = np.flatnonzero(graphs.edge[x, y])
        pairs[there, graphs.kinds[there, x] * len(KINDS) + graphs.kinds[there, y]] += 1
    for (source, target), column in zip(product(KINDS, KINDS), pairs.T):
        if source != "out" and target != "in":
            yield f"edges {source}->{target}", column
    for x, y in cells.edge_pairs(cells.MAX_VERTICES):
        yield f"edge {x}->{y}", graphs.edge[x, y] if y < vertices else np.zeros(n, bool)


def _vertex_features(graphs: Graphs) -> Iterator[tuple[str, np.ndarray]]:
    """Vertices: how many of each operation, what stands at each place, how wide they are."""
    n, vertices = graphs.kinds.shape
    yield "vertices", np.full(n, vertices)
    different, which = np.unique(graphs.edges, return_inverse=True)
    widths = [cells.vertex_channels(e, vertices, 0, FULL_WIDTH)[1:-1] for e in different.tolist()]
    width = np.array(widths, np.float32).reshape(len(different), vertices - 2)[which] / FULL_WIDTH
    depth = _depth(graphs.edge)
    for operation, name in enumerate(SHORT):
        is_it = graphs.kinds[:, 1:-1] == operation
        yield name, is_it.sum(axis=1)
        yield f"width of {name}", (is_it * width).sum(axis=1)
        yield f"squared width of {name}", (is_it * width**2).sum(axis=1)
        yield f"mean depth of {name}", (is_it * depth[:, 1:-1]).sum(axis=1) / np.maximum(is_it.sum(axis=1), 1)
        for place in range(MAX_INNER):
            yield f"{name} at {place + 1}", is_it[:, place] if place < vertices - 2 else np.zeros(n, bool)
    at_depth = [(depth == d).sum(axis=1) for d in range(cells.MAX_VERTICES)]
    yield "most vertices at one depth", np.max(at_depth, axis=0)
    for place in range(MAX_INNER):
        yield f"width at {place + 1}", width[:, place] if place < vertices - 2 else np.zeros(n, np.float32)
    yield "log parameters", np.log(_parameters(graphs))


def _depth(edge: np.ndarray) -> np.ndarray:
    """int [n, v]: edges on the longest way from ``input`` to each vertex."""
    vertices, _, n = edge.shape
    depth = np.zeros((n, vertices), int)
    for x, y in cells.edge_pairs(vertices):
        depth[:, y] = np.maximum(depth[:, y], (depth[:, x] + 1) * edge[x, y])
    return depth


def _parameters(graphs: Graphs) -> np.ndarray:
    """int64 [n]: trainable parameters, see ``cells.trainable_parameters``."""
    n, vertices = graphs.kinds.shape
    different, which = np.unique(graphs.edges, return_inverse=True)
    terms = [cells.parameter_terms(e, vertices) for e in different.tolist()]
    total = np.array([fixed for fixed, _ in terms])[which]
    added = np.array([a for _, a in terms]).reshape(len(different), vertices - 2, len(SHORT))
    for place in range(vertices - 2):
        total += added[which, place, graphs.kinds[:, place + 1]]
    return total


def describe(indices: np.ndarray) -> dict[str, np.ndarray]:
    """All features of the cells at ``indices`` (int [n], see ``cells.index``), by name; each [n]."""
    columns: dict[str, np.ndarray] = {}
    for vertices in cells.CELL_COUNTS:
        first = cells.first_index(vertices)
        here = np.flatnonzero((indices >= first) & (indices < cells.cell_count(vertices)))
        graphs = _graphs(vertices, cells.enumerate_codes(vertices)[indices[here] - first])
        for part in (_vertex_features, _edge_features, _path_features):
            for name, values in part(graphs):
                columns.setdefault(name, np.zeros(len(indices), np.float32))[here] = values
    return columns


def matrix(indices: np.ndarray) -> np.ndarray:
    """float32 [n, number of features]: ``describe`` as a matrix."""
    return np.column_stack(list(describe(indices).values()))
