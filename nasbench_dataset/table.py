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

import math
import os
import pickle
import pickletools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import write_atomically

DENOMINATOR = 3 * 9_984
ABSENT = 65_535
LOSSLESS = 2e-3  # numerators; published values are quoted with 7 digits, which is 1.5e-3 of a numerator
METRICS = ("test", "valid")  # the accuracies that a search can use
FORMAT, VERSION = "nasbench101-table", 1
EMBEDDED = Path(__file__).with_name("surrogate.pickle")
MEASURED = Path(__file__).with_name("nasbench101.pickle")  # made by convert from the real data set; not shipped


@dataclass
class Table:
    """Columns over the cells of NAS-Bench-101, and where they come from.

    Attributes
    ----------
    columns : dict of float64 arrays
        ``test`` and ``valid`` (accuracies, 0..1) and whatever else a source has; NaN is absent.
    source : str
        Where the numbers come from, in words.
    measured : bool
        True for measurements; False for a surrogate, fitted to measurements.
    """

    columns: dict[str, np.ndarray]
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
        parts = []
        for name, values in self.columns.items():
            full = self.complete_to(name)
            reach = f"complete up to {full} vertices" if full else "incomplete at every vertex count"
            parts.append(f"{name}: {np.count_nonzero(~np.isnan(values)):,} cells, {reach}")
        return f"{self.source} ({kind}; {'; '.join(parts)})"


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
    numerators = np.rint(values * DENOMINATOR)
    present = ~np.isnan(values)
    exact = np.abs(values * DENOMINATOR - numerators)[present] <= LOSSLESS
    if exact.all() and (numerators[present] >= 0).all() and (numerators[present] <= DENOMINATOR).all():
        return {"values": np.where(present, numerators, ABSENT).astype(np.uint16), "denominator": DENOMINATOR}
    with np.errstate(over="ignore"):  # too large for float32: becomes infinite, thus is not equal
        single = values.astype(np.float32)
    return {"values": single if np.array_equal(single, values, equal_nan=True) else values.astype(np.float64)}


def _unpack(name: str, column: dict) -> np.ndarray:
    """The float64 column of a packed one; raises ValueError with what is wrong with it."""
    values, denominator = column["values"], column.get("denominator")
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise ValueError(f"column {name!r} is not a one-dimensional array")
    if len(values) not in {cells.cell_count(v) for v in cells.CELL_COUNTS}:
        raise ValueError(f"column {name!r} has {len(values):,} values, which is no number of cells")
    if denominator is not None:
        if values.dtype != np.uint16 or type(denominator) is not int or denominator < 1:
            raise ValueError(f"column {name!r} has a denominator but no uint16 numerators")
        values = np.where(values == ABSENT, np.nan, values / denominator)
    elif values.dtype.kind != "f":
        raise ValueError(f"column {name!r} holds {values.dtype}, not floats")
    values = values.astype(np.float64)
    if name.startswith(METRICS) and not np.all(np.isnan(values) | ((values >= 0) & (values <= 1))):
        raise ValueError(f"column {name!r} has accuracies outside 0..1")
    return values


def save(table: Table, path: str | Path) -> None:
    """Write a table; the file at ``path`` is replaced only when the new one is complete."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "source": table.source,
        "measured": table.measured,
        "columns": {name: _pack(values) for name, values in table.columns.items()},
    }
    write_atomically(path, pickle.dumps(content, protocol=4))


_NUMBER = re.compile(r"[<>|=]?(u[1248]|i[1248]|f[248]|b1)")


class _PlainDtype:
    """Stands for ``numpy.dtype`` in a pickle: a plain number and its byte order.

    The state of a real one can be forged so that bytes of the file are taken for pointers to objects.
    """

    def __init__(self, code: str, *flags: object):
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError("it has an array of something else than plain numbers")
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        version, order, *rest = state
        if version != 3 or order not in ("<", ">", "|", "=") or rest[:3] != [None, None, None]:
            raise pickle.UnpicklingError("it has an array of structured or extended numbers")
        self.plain = self.plain.newbyteorder(order)


class _PlainArray(np.ndarray):
    """An array that takes its content from a pickle only in the plain form."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, columns_first, content = state
        if not isinstance(dtype, _PlainDtype) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("it has an array of something else than plain numbers")
        _check_shape(shape, len(content) // dtype.plain.itemsize)
        super().__setstate__((version, shape, dtype.plain, bool(columns_first), content))


def _check_shape(shape: tuple[int, ...], count: int) -> None:
    plain = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not plain or math.prod(shape) != count:
        raise pickle.UnpicklingError(f"it has an array whose shape does not fit its {count:,} numbers")


def _reconstruct(kind: object, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What numpy's pickles make first of an array, to be given its content after."""
    if shape != (0,):
        raise pickle.UnpicklingError("it asks for an array without content")
    return np.empty(0, np.int8).view(_PlainArray)


def _frombuffer(content: bytes, dtype: _PlainDtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """How pickle protocol 5 makes an array."""
    values = np.frombuffer(content, dtype.plain)
    _check_shape(shape, len(values))
    return values.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _PlainDtype, content: bytes) -> float | int | bool:
    """A single number of numpy's as one of Python's."""
    return np.frombuffer(content, dtype.plain, 1)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    """How pickle protocols 0 to 2 carry bytes."""
    return text.encode("latin1")


def _named_only(*_: object) -> None:
    raise pickle.UnpicklingError("it makes an array in an unusual way")


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and numpy arrays of numbers; anything else is refused by name.

    Nothing of numpy itself is handed out: every name stands for one of the functions above.
    """

    ADMITTED = {
        "numpy.multiarray._reconstruct": _reconstruct,
        "numpy.multiarray.scalar": _scalar,
        "numpy.numeric._frombuffer": _frombuffer,
        "numpy.ndarray": _named_only,
        "numpy.dtype": _PlainDtype,
        "_codecs.encode": _encode,
    }

    def find_class(self, module: str, name: str):
        full = f"{module}.{name}"
        for private in ("numpy._core.", "numpy.core."):  # as numpy 2 and numpy 1 call it
            full = full.replace(private, "numpy.")
        if full not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not admitted")
        return self.ADMITTED[full]


def _check_memo(file: BinaryIO) -> None:
    """Refuse a pickle that numbers more objects than it has bytes: each number reserves memory up to it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > size:
            raise pickle.UnpicklingError(f"it numbers an object {argument:,}, in {size:,} bytes")
    file.seek(0)


def load_plain(path: str | Path) -> object:
    """Read a pickle that holds plain containers, numbers, strings and numpy arrays, executing nothing.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, or asks for anything else.
    """
    try:
        with open(path, "rb") as file:
            _check_memo(file)
            return _PlainUnpickler(file).load()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is not a usable table: {reason}") from error


def load(path: str | Path) -> Table:
    """Read a table that ``save`` has written.

    Raises
    ------
    InputError
        If the file is missing, unreadable, damaged, foreign, or would execute something.
    """
    content = load_plain(path)
    try:
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"its format is not {FORMAT}, version {VERSION}")
        source, measured = content["source"], content["measured"]
        if not isinstance(source, str) or not isinstance(measured, bool):
            raise ValueError("its source or kind is not given")
        if not all(isinstance(name, str) for name in content["columns"]):
            raise ValueError("its columns have no names")
        columns = {name: _unpack(name, column) for name, column in content["columns"].items()}
    except (TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
        reason = error if type(error) is ValueError else "it lacks the fields of a table"
        raise InputError(
            f"{path} is not a table of this project: {reason}; make one with python -m nasbench_dataset.convert"
        ) from error
    return Table(columns, source, measured)
