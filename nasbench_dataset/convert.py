"""Make a table from a data set: ``python -m nasbench_dataset.convert SOURCE DEST``.

Supported sources, told apart by their content:

- the files of NAS-Bench-101 itself, nasbench_only108.tfrecord and nasbench_full.tfrecord (official.py);
- the pickles that NASLib and NASBenchAPI have made of them (pickled.py);
- a numpy archive (archive.py);
- the JSON file of the original AlphaX repository, one object whose keys are cells,
  ``json.dumps({"adj_mat": ..., "node_list": ...}, sort_keys=True)``, and whose values are accuracies in 0..1.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, cells, command
from nasbench_dataset.archive import read_npz
from nasbench_dataset.fit_surrogate import BEST
from nasbench_dataset.official import SHA256, read_tfrecord
from nasbench_dataset.pickled import is_nasbenchapi, read_pickled
from nasbench_dataset.runs import Runs
from nasbench_dataset.table import FORMAT, METRICS, Table, from_entries, load, load_plain, save
from nasbench_dataset.tfrecord import looks_like_records


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
        with open(path, encoding="utf-8-sig") as file:
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


def format_of(path: str | Path) -> str:
    """``"tfrecord"``, ``"npz"``, ``"json"`` or ``"pickle"`` (whatever is none of the others), by the content.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise OSError(None, "it is no regular file")
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read the table {path}: {error.strerror}; name a file") from error
    if looks_like_records(start):
        return "tfrecord"
    if start.startswith(b"PK"):
        return "npz"
    return "json" if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[") else "pickle"


def open_table(path: str | Path) -> Table:
    """The table in a file: one that ``convert`` has made, or a JSON file of the original.

    Raises
    ------
    InputError
        If it is neither, or damaged.
    """
    kind = format_of(path)
    if kind in ("tfrecord", "npz"):
        raise InputError(f"{path} is no table; make one of it with python -m nasbench_dataset.convert {path} DEST")
    return read_json(path)[0] if kind == "json" else load(path)


# --- every format alike -----------------------------------------------------------------------


def read(path: str | Path, metric: str) -> tuple[Table, list[str]]:
    """Read a data set of any supported format.

    Parameters
    ----------
    path : path
    metric : str
        Which accuracy a JSON file holds.

    Returns
    -------
    table : Table
    lines : list of str
        What the source is and what was found in it.
    """
    readers = {"tfrecord": _from_tfrecord, "npz": _from_npz, "pickle": _from_pickle}
    kind = format_of(path)
    return _from_json(path, metric) if kind == "json" else readers[kind](path)


def _from_json(path: str | Path, metric: str) -> tuple[Table, list[str]]:
    table, found = read_json(path, metric)
    meanings = {
        "not stored": "cells in a form that NAS-Bench-101 does not store",
        "not a cell": "keys that are no cell",
    }
    left_out = [f"left out: {found[what]:,} {meaning}" for what, meaning in meanings.items() if found[what]]
    return table, ["the original's JSON format", *left_out]


def _from_npz(path: str | Path) -> tuple[Table, list[str]]:
    table, findings = read_npz(path)
    return table, ["a numpy archive of cells", *findings.lines()]


def _from_tfrecord(path: str | Path) -> tuple[Table, list[str]]:
    runs, digest = read_tfrecord(path)
    official = SHA256.get(digest)
    verdict = f"the official {official}" if official else "not that of an official file"
    name = f"NAS-Bench-101, {official or Path(path).name}"
    return _mean(path, runs, name), [f"tfrecord of {runs.total:,} runs", f"SHA256 {digest}: {verdict}", *runs.report()]


def _from_pickle(path: str | Path) -> tuple[Table, list[str]]:
    content = load_plain(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no dictionary of cells, so it is no data set that is known here")
    if isinstance(form := content.get("format"), str) and form == FORMAT:
        raise InputError(f"{path} is a table already; use it with python MCTS.py --dataset {path}")
    runs = read_pickled(path, content)
    layout = "NASBenchAPI" if is_nasbenchapi(content) else "NASLib"
    return _mean(path, runs, Path(path).name), [f"{layout}'s pickle of {runs.total:,} runs", *runs.report()]


def _mean(path: str | Path, runs: Runs, source: str) -> Table:
    try:
        return runs.table(source)
    except ValueError as error:
        raise InputError(f"{path}: {error}; convert a file that has them") from error


def best_cell(table: Table, metric: str) -> str:
    """The best cell of a table by a metric, and whether it is the best published one."""
    optimum = {"test": BEST[7], "valid": BEST[6]}[metric]
    values = table.columns[metric]
    best = int(np.nanargmax(values))
    published = getattr(optimum, metric)
    if best != optimum.index:
        verdict = f"not the published optimum, which has {published}"
    elif abs(values[best] - published) > 1e-6:
        verdict = f"the published optimum, but there it has {published}"
    else:
        verdict = "the published optimum"
    return f"best {metric}: {values[best]:.7f}, {verdict}, {json.dumps(cells.to_dict(*cells.cell(best)))}"


def cells_by_vertices(table: Table, column: str) -> str:
    """How many cells of each vertex count a column has, of how many."""
    present = ~np.isnan(table.columns[column])
    counts = {v: int(present[cells.first_index(v) : cells.cell_count(v)].sum()) for v in cells.CELL_COUNTS}
    parts = [f"{v} vertices {count:,} of {cells.CELL_COUNTS[v]:,}" for v, count in counts.items() if count]
    return f"{column}: {sum(counts.values()):,} of {cells.cell_count():,} cells ({'; '.join(parts) or 'none'})"


def main(argv: list[str] | None = None) -> int:
    """Run ``python -m nasbench_dataset.convert``; returns the exit status."""
    parser = command.Parser(prog="python -m nasbench_dataset.convert", description="Make a table from a data set.")
    parser.add_argument("source", help="nasbench_*.tfrecord, NASLib's or NASBenchAPI's pickle, .npz, or the original's JSON")
    parser.add_argument("dest", help="the table to write")
    parser.add_argument("--metric", choices=METRICS, default="test", help="which accuracy a JSON file holds")
    options = parser.parse_args(argv)
    table, lines = read(options.source, options.metric)
    save(table, options.dest)
    table = load(options.dest)  # what is reported is what was written
    print(f"{options.source}: {lines[0]}")
    print(*lines[1:], sep="\n")
    for name in table.columns:
        print(cells_by_vertices(table, name))
    for metric in METRICS:
        if not np.isnan(table.columns.get(metric, np.nan)).all():
            print(best_cell(table, metric))
    print(f"{options.dest}: {table.describe()}")
    return 0


if __name__ == "__main__":
    command.run(main)
