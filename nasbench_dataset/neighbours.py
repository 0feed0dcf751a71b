"""Which cells are neighbours: those of which graphs differ by one operation or one edge.

A graph with that change may have vertices on no way from input to output; they are cut off, so that a cell has
neighbours with fewer vertices, and more, too.
"""

from functools import lru_cache

import numpy as np

from nasbench_dataset import cells


def neighbour_pairs() -> tuple[np.ndarray, np.ndarray]:
    """All unordered pairs of different neighbouring cells, once each: 4,577,278 of them; takes 15 s.

    Returns
    -------
    lower, higher : int32 [n]
        Indices of cells (``cells.index``), ``lower < higher``; in ascending order of both.
    """
    pairs = [_pairs_of_graphs(vertices, edges) for vertices in cells.CELL_COUNTS for edges in _edge_sets(vertices)]
    one, other = (np.concatenate(side) for side in zip(*(pair for found in pairs for pair in found)))
    lower, higher = np.minimum(one, other), np.maximum(one, other)
    number = (lower * cells.cell_count() + higher)[lower != higher]
    number.sort()  # np.unique takes four times as long: it makes a hash table, and sorts after that
    number = number[np.diff(number, prepend=-1) > 0]
    lower, higher = np.divmod(number, cells.cell_count())
    return lower.astype(np.int32), higher.astype(np.int32)


def _edge_sets(vertices: int) -> list[int]:
    return np.unique(cells.enumerate_codes(vertices) // 3 ** (vertices - 2)).tolist()


def _pairs_of_graphs(vertices: int, edges: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of every cell with these edges, in stored form, and what one change makes of it: a list over changes."""
    labels = cells.operation_table(vertices).astype(np.int64)
    indices, first = np.unique(_indices(vertices, edges), return_index=True)
    labels = labels[first]
    found = []
    for bit in range(vertices * (vertices - 1) // 2):
        pruned = cells.prune(tuple(range(vertices - 2)), edges ^ 1 << bit)  # as operations: which vertices stay
        if pruned is None or pruned[1].bit_count() > cells.MAX_EDGES:
            continue
        stay, left = pruned
        found.append((indices, _indices(len(stay) + 2, left)[_numbers(labels[:, list(stay)])]))
    for place in range(vertices - 2):
        for step in (1, 2):
            changed = labels.copy()
            changed[:, place] = (changed[:, place] + step) % 3
            found.append((indices, _indices(vertices, edges)[_numbers(changed)]))
    return found


def _numbers(labels: np.ndarray) -> np.ndarray:
    """``cells.operation_number`` of each row."""
    return labels @ 3 ** np.arange(labels.shape[1] - 1, -1, -1, dtype=np.int64)


@lru_cache(maxsize=None)
def _indices(vertices: int, edges: int) -> np.ndarray:
    """int64 [3^(v-2)]: the index of the cell for each list of operations; the edges need not be in stored form."""
    smallest, orders = cells.smallest_relabelling(vertices, edges)
    labels, size = cells.operation_table(vertices).astype(np.int64), 3 ** (vertices - 2)
    number = np.min([_numbers(labels[:, list(order)]) for order in orders], axis=0)
    return cells.first_index(vertices) + cells.enumerate_codes(vertices).searchsorted(smallest * size + number)
