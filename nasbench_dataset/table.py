"""A table: one or more numbers for every NAS-Bench-101 cell, in the order of ``cells.index``.

In memory a column is a float64 array with NaN where a cell has no value ("absent"). Its length is the
number of cells up to some vertex count (1, 7, 91, 2532, 64542 or 423624). On disk a table is a pickle of
plain containers and numpy arrays:

    {"format": "nasbench101-table", "version": 1, "source": str, "measured": bool,
     "columns": {"test": {"values": uint16 array, "denominator": 29952}, "valid": {"values": float array}}}

NAS-Bench-101 accuracies are means of 3 runs, each evaluated on 9,984 images, thus integers over 29,952:
uint16 numerators hold them exactly (65,535: absent). Other numbers are kept as floats (NaN: absent), as float32
where that loses nothing.
"""

import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable, write_atomically
from nasbench_dataset.plain_pickle import load_plain

DENOMINATOR = 3 * 9_984
ABSENT = 65_535
LOSSLESS = 2e-3  # numerators; published values are quoted with 7 digits, which is 1.5e-3 of a numerator
METRICS = ("test", "valid")  # the accuracies that a search can use
FORMAT, VERSION = "nasbench101-table", 1
LARGEST = 64 << 20  # bytes of a table; that of the full data set has 11 million
MOST = 100_000  # instructions of its pickle; each column takes some twenty
EMBEDDED = Path(__file__).with_name("surrogate.pickle")
MEASURED = Path(__file__).with_name("nasbench101.pickle")  # made by convert from the real data set; not shipped


@dataclass
class Table:
    """Columns over the cells of NAS-Bench-101, and where they come from.

    Attributes
    ----------
    columns : mapping of float64 arrays
        ``test`` and ``valid`` (accuracies, 0..1) and whatever else a source has; NaN is absent.
    source : str
        Where the numbers come from, in words.
    measured : bool
        True for measurements; False for a surrogate, fitted to measurements.
    """

    columns: Mapping[str, np.ndarray]
    source: str
    measured: bool

    def complete_to(self, column: str) -> int:
        """The largest vertex count up to which every cell has a value in ``column`` (0: none)."""
        absent = np.flatnonzero(np.isnan(self.columns[column]))
        filled = absent[0] if len(absent) else len(self.columns[column])
        return max((v for v in cells.CELL_COUNTS if cells.cell_count(v) <= filled), default=0)

    def describe(self) -> str:
        """One line: what kind of table, complete up to where, from where."""
        kind = "measured" if self.measured else "SURROGATE fitted to measurements, not NAS-Bench-101 itself"
        alike: dict[str, list[str]] = {}  # the names of the columns of which the same can be said
        for name in (name for name in self.columns if name in METRICS):
            full = self.complete_to(name)
            reach = f"complete up to {full} vertices" if full else "incomplete at every vertex count"
            alike.setdefault(f"{np.count_nonzero(~np.isnan(self.columns[name])):,} cells, {reach}", []).append(name)
        parts = [f"{', '.join(names)}: {reach}" for reach, names in alike.items()]
        if others := [name for name in self.columns if name not in METRICS]:  # not unpacked for that
            parts.append(f"also {', '.join(others)}")
        return printable(f"{printable(self.source, 200)} ({kind}; {'; '.join(parts)})")


def length_for(index: int) -> int:
    """The length of the shortest column that has the cell with that index."""
    return next(count for v in cells.CELL_COUNTS if index < (count := cells.cell_count(v)))


def from_entries(column: str, entries: dict[int, float], source: str, measured: bool) -> Table:
    """A table of one column from ``index -> value``, as long as its largest vertex count needs."""
    values = np.full(length_for(max(entries)), np.nan)
    values[list(entries)] = list(entries.values())
    return Table({column: values}, source, measured)


def default_path() -> Path:
    """The table that is searched when none is named: the measured one where it is in place, else the embedded."""
    return MEASURED if MEASURED.exists() else EMBEDDED


# --- on disk ----------------------------------------------------------------------------------


def _pack(values: np.ndarray) -> dict:
    values = np.asarray(values)  # those of a loaded table are of a class of their own, which could not be read back
    with np.errstate(over="ignore"):  # of numbers that are no accuracies
        numerators = np.rint(values * DENOMINATOR)
    present = ~np.isnan(values)
    fits = (numerators[present] >= 0) & (numerators[present] <= DENOMINATOR)
    if fits.all() and (np.abs(values * DENOMINATOR - numerators)[present] <= LOSSLESS).all():
        return {"values": np.where(present, numerators, ABSENT).astype(np.uint16), "denominator": DENOMINATOR}
    with np.errstate(over="ignore"):  # too large for float32: becomes infinite, thus is not equal
        single = values.astype(np.float32)
    return {"values": single if np.array_equal(single, values, equal_nan=True) else values.astype(np.float64)}


class Columns(Mapping):
    """The columns of a file, each unpacked when it is asked for the first time: a search needs one or two of them.

    Parameters
    ----------
    packed : dict of str to dict
        As in the file, their form already checked.
    where : str
        The file, for messages.
    """

    def __init__(self, packed: dict[str, dict], where: str):
        self._packed, self._where = packed, where
        self._unpacked: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """The column; InputError where its numbers are none that it can have."""
        if name not in self._unpacked:
            column = self._packed[name]
            try:
                self._unpacked[name] = _unpack(name, column)
            except ValueError as error:
                raise _not_a_table(self._where, error) from error
        return self._unpacked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def _not_a_table(path: str | Path, reason: object) -> InputError:
    return InputError(
        f"{path} is not a table of this project: {reason}; make one with python -m nasbench_dataset.convert"
    )


def _check_form(name: str, column: dict) -> None:
    """Raise ValueError where a packed column cannot be one, whatever its numbers."""
    values, denominator = column["values"], column.get("denominator")
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise ValueError(f"column {name!r} is not a one-dimensional array")
    if len(values) not in {cells.cell_count(v) for v in cells.CELL_COUNTS}:
        raise ValueError(f"column {name!r} has {len(values):,} values, which is no number of cells")
    if denominator is not None:
        if values.dtype != np.uint16 or type(denominator) is not int or not 1 <= denominator < ABSENT:
            raise ValueError(f"column {name!r} has a denominator but no uint16 numerators of one")
    elif values.dtype.kind != "f":
        raise ValueError(f"column {name!r} holds {values.dtype}, not floats")


def _unpack(name: str, column: dict) -> np.ndarray:
    """The float64 column of a packed one; raises ValueError with what is wrong with it."""
    values, denominator = column["values"], column.get("denominator")
    if denominator is not None:
        values = np.where(values == ABSENT, np.nan, values / denominator)
    values = values.astype(np.float64)
    highest = 1 if name.startswith(METRICS) else np.finfo(np.float64).max
    if not np.all(np.isnan(values) | ((values >= 0) & (values <= highest))):
        wrong = "accuracies outside 0..1" if highest == 1 else "values that are negative or infinite"
        raise ValueError(f"column {name!r} has {wrong}")
    return values


def check_destination(path: str | Path) -> None:
    """Raise InputError where no table can be written: only a regular file, or none, is replaced by one."""
    if not os.fspath(path):
        raise InputError("no file is named to write the table to: its path is empty")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"cannot write {path}: it is no regular file; name another one")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: {folder} is no folder that can be written to; choose another one")


def save(table: Table, path: str | Path) -> None:
    """Write a table; the file at ``path`` is replaced only when the new one is complete.

    Where ``path`` is a symbolic link, that is the file that it leads to.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    check_destination(path)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source": table.source,
        "measured": table.measured,
        "columns": {name: _pack(values) for name, values in table.columns.items()},
    }
    write_atomically(os.path.realpath(path), pickle.dumps(content, protocol=4))


def load(path: str | Path) -> Table:
    """Read a table that ``save`` has written.

    Raises
    ------
    InputError
        If the file is missing, unreadable, damaged, foreign, or would execute something.
    """
    content = load_plain(path, LARGEST, MOST, "; make a table of a data set with python -m nasbench_dataset.convert")
    try:
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"its format is not {FORMAT}, version {VERSION}")
        source, measured = content["source"], content["measured"]
        if not isinstance(source, str) or not isinstance(measured, bool):
            raise ValueError("its source or kind is not given")
        if not all(isinstance(name, str) for name in content["columns"]):
            raise ValueError("its columns have no names")
        if not set(METRICS) & set(content["columns"]):
            raise ValueError(f"it has neither {' nor '.join(METRICS)}")
        for name, column in content["columns"].items():
            _check_form(name, column)
    except (TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
        raise _not_a_table(path, error if type(error) is ValueError else "it lacks the fields of a table") from error
    columns = Columns(content["columns"], str(path))
    for name in set(METRICS) & set(columns):
        columns[name]  # so that a damaged one is refused at once
    return Table(columns, source, measured)
