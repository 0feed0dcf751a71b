"""Cells as numbers for models that learn: paths, edges, operations. Knows cells only.

The path encoding is that of White et al. (arXiv 1910.11858): a path leads from input to output and is told by the
operations on it. It does not depend on how a cell is labelled, nor on vertices that lie on no such way.
"""

from functools import lru_cache
from typing import Sequence

import numpy as np

from nasbench_dataset import cells

Cell = tuple[cells.Operations, int]

KINDS = 5  # of vertices: three operations, input and output
INPUT, OUTPUT = 3, 4  # kinds


@lru_cache(maxsize=1 << 16)
def paths_and_edges(vertices: int, edges: int) -> tuple[list[tuple[int, ...]], list[tuple[int, int]]]:
    """The inner vertices (from 0) of every path from input to output, and the edges, of a graph."""
    pairs = [pair for bit, pair in enumerate(cells.edge_pairs(vertices)) if edges >> bit & 1]
    paths: list[list[tuple[int, ...]]] = [[()]] + [[] for _ in range(vertices - 1)]
    for x, y in pairs:  # in the order of y, so that all paths to x are known
        paths[y] += [(*path, y - 1) for path in paths[x]]
    return [path[:-1] for path in paths[-1]], pairs


def path_count(longest: int) -> int:
    """How many paths of at most so many inner vertices there are, told by their operations."""
    return (3 ** (longest + 1) - 1) // 2


def path_numbers(operations: cells.Operations, edges: int, longest: int) -> list[int]:
    """The numbers of a graph's paths of at most so many inner vertices, ascending, each once; shorter paths first."""
    numbers = set()
    for path in paths_and_edges(len(operations) + 2, edges)[0]:
        if len(path) <= longest:
            number = 0
            for vertex in path:
                number = 3 * number + operations[vertex]
            numbers.add(path_count(len(path) - 1) + number)
    return sorted(numbers)


def path_encoding(batch: Sequence[Cell], longest: int) -> np.ndarray:
    """float32 [n, path_count(longest)]: which paths each cell has, 0 or 1."""
    rows = np.zeros((len(batch), path_count(longest)), np.float32)
    for row, cell in zip(rows, batch):
        row[path_numbers(*cell, longest)] = 1
    return rows
