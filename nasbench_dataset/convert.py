"""Make a table from a data set: ``python -m nasbench_dataset.convert SOURCE DEST``.

Supported sources: the JSON file of the original AlphaX repository, one object whose keys are cells,
``json.dumps({"adj_mat": ..., "node_list": ...}, sort_keys=True)``, and whose values are accuracies in 0..1.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, cells, command
from nasbench_dataset.table import METRICS, Table, from_entries, load, save


def read_json(path: str | Path, column: str = "test") -> tuple[Table, Counter]:
    """Read the original's JSON format.

    Parameters
    ----------
    path : path
    column : str
        Which accuracy the values are.

    Returns
    -------
    table : Table
    found : Counter
        ``"cells"`` taken, ``"not stored"`` (a cell that NAS-Bench-101 does not store in that form) and
        ``"not a cell"`` (a key that is no cell at all) left out.

    Raises
    ------
    InputError
        If it cannot be read, is not such a file, has an accuracy that is no number in 0..1 or gives a cell
        twice, or if nothing in it is a NAS-Bench-101 cell.
    """
    entries: dict[int, float] = {}
    found: Counter = Counter()
    for key, accuracy in _json_pairs(path):
        if type(accuracy) not in (int, float) or not 0 <= accuracy <= 1:
            raise InputError(f"{path}: the accuracy of {key[:200]} is {accuracy!r:.50}; accuracies are numbers from 0 to 1")
        index = _index_of_key(key)
        if index is None or index == cells.NOT_A_CELL:
            found["not a cell" if index is None else "not stored"] += 1
        elif index in entries:
            raise InputError(f"{path}: the cell {key[:200]} is given twice; keep one of them")
        else:
            entries[index] = float(accuracy)
            found["cells"] += 1
    if not entries:
        raise InputError(
            f"{path}: none of its {found.total():,} entries is a NAS-Bench-101 cell; keys must be"
            ' json.dumps({"adj_mat": ..., "node_list": ...}, sort_keys=True)'
        )
    return from_entries(column, entries, Path(path).name, measured=True), found


def _json_pairs(path: str | Path) -> list[tuple[str, object]]:
    """The entries of the outermost object, repeated keys included."""
    try:
        with open(path, encoding="utf-8") as file:
            pairs = json.load(file, object_pairs_hook=lambda pairs: pairs)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise InputError(f"{path} is not one JSON object of cells and accuracies")
    return pairs


def _index_of_key(key: str) -> int | None:
    """The index of a cell in JSON; ``NOT_A_CELL`` where it is not a stored form, None for anything else."""
    try:
        cell = json.loads(key)
        if isinstance(cell, dict) and cell.get("node_list", [])[-1:] == ["term"]:  # finished cells of a search
            cell["node_list"].pop()
        return cells.index(*cells.from_dict(cell))
    except (ValueError, TypeError, RecursionError):
        return None


def open_table(path: str | Path) -> Table:
    """The table in a file: one that ``convert`` has made, or a JSON file of the original.

    Raises
    ------
    InputError
        If it is neither, or damaged.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise InputError(f"cannot read the table {path}: {error.strerror}") from error
    return read_json(path)[0] if start[:1] == b"{" else load(path)


def cells_by_vertices(table: Table, column: str) -> str:
    """How many cells of each vertex count a column has, of how many."""
    present = ~np.isnan(table.columns[column])
    counts = {v: int(present[cells.first_index(v) : cells.cell_count(v)].sum()) for v in cells.CELL_COUNTS}
    parts = [f"{v} vertices {count:,} of {cells.CELL_COUNTS[v]:,}" for v, count in counts.items() if count]
    return f"{column}: {sum(counts.values()):,} of {cells.cell_count():,} cells ({'; '.join(parts)})"


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m nasbench_dataset.convert``; returns the exit status."""
    parser = command.Parser(prog="python -m nasbench_dataset.convert", description="Make a table from a data set.")
    parser.add_argument("source", help="the original's JSON file")
    parser.add_argument("dest", help="the table to write")
    parser.add_argument("--metric", choices=METRICS, default="test", help="which accuracy a JSON file holds")
    options = parser.parse_args(argv)
    table, found = read_json(options.source, options.metric)
    save(table, options.dest)
    print(f"{options.source}: the original's JSON format")
    print(cells_by_vertices(table, options.metric))
    for what, meaning in (
        ("not stored", "cells in a form that NAS-Bench-101 does not store"),
        ("not a cell", "keys that are no cell"),
    ):
        if found[what]:
            print(f"left out: {found[what]:,} {meaning}")
    print(f"{options.dest}: {table.describe()}")
    return 0


if __name__ == "__main__":
    command.run(main)
