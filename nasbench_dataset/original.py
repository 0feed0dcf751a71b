"""The JSON file of the original AlphaX repository: one object, a cell -> its accuracy.

The keys are cells in JSON themselves, ``json.dumps({"adj_mat": ..., "node_list": ...}, sort_keys=True)``; the values
are accuracies in 0..1. The file of all cells has some 160 MB. It is read entry by entry, so that neither it nor
something else of that size takes more memory than the table that comes of it.
"""

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Iterator, TextIO

from nasbench_dataset import InputError, cells
from nasbench_dataset.runs import NUMBERS
from nasbench_dataset.sources import open_source
from nasbench_dataset.table import Table, from_entries

LARGEST = 2 << 30  # bytes
MOST = 1_000_000  # entries; there are 423,624 cells
LONGEST = 4_096  # characters of an entry; they have about 400
TRIED = 10_000  # entries, of which one should have been a cell
_CHUNK = 1 << 20  # characters read at a time
_SPACE = " \t\n\r"  # JSON knows no other
_OPENED = re.compile(rf"[{_SPACE}]*\{{[{_SPACE}]*(\}}?)")
_KEY, _VALUE = r'"[^"\\]*(?:\\.[^"\\]*)*"', rf'"[^"\\]*"|[^{_SPACE},{{}}\[\]"]+'
_ENTRY = re.compile(rf"[{_SPACE}]*({_KEY})[{_SPACE}]*:[{_SPACE}]*({_VALUE})[{_SPACE}]*([,}}])", re.DOTALL)


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
        If it cannot be read, is not such a file, is larger than any can be, has an accuracy that is no number
        in 0..1 or gives a cell twice, or if nothing in it is a NAS-Bench-101 cell.
    """
    try:
        with open_source(path, LARGEST) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as file:
            entries, found = _collect(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return from_entries(column, entries, Path(path).name, measured=True), found


def _collect(file: TextIO) -> tuple[dict[int, float], Counter]:
    """The accuracies by index, and what the keys were; ValueError where it is no such file."""
    entries: dict[int, float] = {}
    found: Counter = Counter()
    for key, accuracy in _pairs(file):
        found[_take(key, accuracy, entries)] += 1
        if found["not a cell"] == found.total() == TRIED:
            break
        if found.total() == MOST:
            raise ValueError(f"it has {MOST:,} entries or more; NAS-Bench-101 has {cells.cell_count():,} cells")
    if not entries:
        first = "first " if found.total() == TRIED else ""
        raise ValueError(
            f"none of its {first}{found.total():,} entries is a NAS-Bench-101 cell; keys must be"
            ' json.dumps({"adj_mat": ..., "node_list": ...}, sort_keys=True)'
        )
    return entries, found


def _take(key: str, accuracy: object, entries: dict[int, float]) -> str:
    """Enter an accuracy; returns what the key is. ValueError where there is none, or the cell again."""
    if type(accuracy) not in NUMBERS or not 0 <= accuracy <= 1:
        raise ValueError(f"the accuracy of {key[:200]} is {accuracy!r:.50}; accuracies are numbers from 0 to 1")
    index = _index_of_key(key)
    if index is None or index == cells.NOT_A_CELL:
        return "not a cell" if index is None else "not stored"
    if index in entries:
        raise ValueError(f"the cell {key[:200]} is given twice; keep one of them")
    entries[index] = float(accuracy)
    return "cells"


def _index_of_key(key: str) -> int | None:
    """The index of a cell in JSON; ``NOT_A_CELL`` where it is not a stored form, None for anything else."""
    try:
        cell = json.loads(key)
        if isinstance(cell, dict) and cell.get("node_list", [])[-1:] == ["term"]:  # finished cells of a search
            cell["node_list"].pop()
        return cells.index(*cells.from_dict(cell))
    except (ValueError, TypeError, RecursionError):
        return None


def _pairs(file: TextIO) -> Iterator[tuple[str, object]]:
    """The entries of the outermost object, repeated keys included; ValueError where it is none of such entries."""
    text, number = file.read(_CHUNK), 0
    opened = _OPENED.match(text, 0, LONGEST)
    if not opened:
        raise ValueError("it is not one JSON object of cells and accuracies")
    at, last = opened.end(), opened[1] == "}"
    while not last:
        number += 1
        if len(text) - at < LONGEST:
            text, at = text[at:] + file.read(_CHUNK), 0
        entry = _ENTRY.match(text, at, at + LONGEST)
        if not entry:
            shown = repr(text[at : at + 80])
            raise ValueError(f"it is not valid JSON of cells and accuracies: its entry {number:,} is {shown}")
        try:
            yield json.loads(f"[{entry[1]}, {entry[2]}]")
        except json.JSONDecodeError as error:
            raise ValueError(f"it is not valid JSON: its entry {number:,}: {error}") from error
        at, last = entry.end(), entry[3] == "}"
    rest = text[at:]
    while rest:
        if rest.strip(_SPACE):
            raise ValueError(f"it is not valid JSON: after its object it goes on with {rest.strip(_SPACE)[:80]!r}")
        rest = file.read(_CHUNK)
