"""Make a table from a data set: ``python -m nasbench_dataset.convert SOURCE DEST``.

Supported sources, told apart by their content:

- the files of NAS-Bench-101 itself, nasbench_only108.tfrecord and nasbench_full.tfrecord (official.py);
- the pickles that NASLib and NASBenchAPI have made of them (pickled.py);
- a numpy archive (archive.py);
- the JSON file of the original AlphaX repository (original.py);
- a store of trainings that a search with --train, or measure_cells.py, has made (measured_table.py, outside of this
  folder: this command is the only one here that knows of it).

Where Python does not look into the current folder for packages (PYTHONSAFEPATH), ``python nasbench_dataset/convert.py
SOURCE DEST`` does the same.
"""

import os
import sys

if not __package__:  # run as a file: ``python nasbench_dataset/convert.py``, which finds the package by itself
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import argparse
import json
from pathlib import Path

import numpy as np

from measured_table import read_store
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.archive import read_npz
from nasbench_dataset.files import printable
from nasbench_dataset.published import BEST
from nasbench_dataset.official import SHA256, read_tfrecord
from nasbench_dataset.original import read_json
from nasbench_dataset.pickled import is_nasbenchapi, read_pickled
from nasbench_dataset.plain_pickle import load_plain
from nasbench_dataset.runs import Runs
from nasbench_dataset.sources import format_of
from nasbench_dataset.table import FORMAT, METRICS, Table, check_destination, load, save


# --- every format alike -----------------------------------------------------------------------


def read(path: str | Path, metric: str, group: int | None = None) -> tuple[Table, list[str]]:
    """Read a data set of any supported format.

    Parameters
    ----------
    path : path
    metric : str
        Which accuracy a JSON file holds.
    group : int, optional
        Which trainings of a store.

    Returns
    -------
    table : Table
    lines : list of str
        What the source is and what was found in it.
    """
    readers = {"tfrecord": _from_tfrecord, "npz": _from_npz, "pickle": _from_pickle}
    kind = format_of(path)
    if group is not None and kind != "sqlite":
        raise InputError(f"--group is for stores of trainings, and {path} is none: leave it out")
    if kind == "sqlite":
        return read_store(path, group)
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
    name = f"NAS-Bench-101, {official}" if official else f"{Path(path).name}, laid out as NAS-Bench-101's files"
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


def best_cell(table: Table, metric: str, published_data: bool = True) -> str:
    """The best cell of a table by a metric, and for published data whether it is the best published one."""
    optimum = {"test": BEST[7], "valid": BEST[6]}[metric]
    values = table.columns[metric]
    best = int(np.nanargmax(values))
    published = getattr(optimum, metric)
    if not published_data:
        verdict = "trained here"
    elif best != optimum.index:
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
    known = "nasbench_*.tfrecord, NASLib's or NASBenchAPI's pickle, .npz, the original's JSON, or a store of trainings"
    parser.add_argument("source", help=known)
    parser.add_argument("dest", help="the table to write")
    parser.add_argument("--metric", choices=METRICS, default="test", help="which accuracy a JSON file holds")
    words = "which trainings of a store that has several kinds"
    parser.add_argument("--group", type=command.whole_number(1), default=argparse.SUPPRESS, metavar="N", help=words)
    options = parser.parse_args(argv)
    check_destination(options.dest)  # before reading, which takes minutes
    if all(map(os.path.exists, (options.source, options.dest))) and os.path.samefile(options.source, options.dest):
        raise InputError(f"{options.dest} is the source itself, which the table would replace; name another file")
    table, lines = read(options.source, options.metric, getattr(options, "group", None))
    published_data = format_of(options.source) != "sqlite"
    save(table, options.dest)
    table = load(options.dest)  # what is reported is what was written
    found = summary(table, published_data)
    for line in (f"{options.source}: {lines[0]}", *lines[1:], *found, f"{options.dest}: {table.describe()}"):
        print(printable(line))
    return 0


def summary(table: Table, published_data: bool = True) -> list[str]:
    """How many cells each column has, and the best of them."""
    bests = [metric for metric in METRICS if not np.isnan(table.columns.get(metric, np.nan)).all()]
    return [cells_by_vertices(table, name) for name in table.columns] + [
        best_cell(table, metric, published_data) for metric in bests
    ]


if __name__ == "__main__":
    command.run(main)
