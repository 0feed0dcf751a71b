"""Tables as numpy archives (.npz), for whoever has measurements in arrays.

An archive of n cells has ``vertices`` [n], ``edge_bits`` [n] (the edge x -> y is bit x + y(y-1)/2) and
``operations`` [n, 5] (0 conv3x3, 1 conv1x1, 2 maxpool3x3; beyond the cell's own anything), all integers, and one
array [n] of floats for every column, NaN where there is no value: ``test`` or ``valid`` or both, and where
known ``train_seconds`` and the same at fewer epochs, ``valid_4``, ``train_seconds_4`` and so on. With
``trainable_parameters`` [n] those are checked. Other arrays are ignored.
"""

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from nasbench_dataset.runs import BUDGETS, LONGEST_TRAINING, VALID_RUNS, Findings
from nasbench_dataset.sources import open_source
from nasbench_dataset.table import METRICS, Table, length_for

_SHORTER = (f"{name}_{b}" for b in BUDGETS[:-1] for name in ("valid", "train_seconds"))
COLUMNS = (*METRICS, "train_seconds", *_SHORTER, *VALID_RUNS)
LARGEST = 1 << 30  # bytes of an archive; one of all cells and columns has at most 50 million
MOST = 1_000_000  # rows; there are 423,624 cells
CELLS = "vertices", "edge_bits", "operations"  # the arrays that say which cells they are
_LONGEST_READ = 1 << 20  # bytes: arrays are read in smaller pieces, and a list of 10,000 arrays is shorter
_INNER = cells.MAX_VERTICES - 2
UNUSABLE = (  # what numpy and zipfile raise for damaged archives, and encrypted ones
    *(ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError, SyntaxError),
    *(OverflowError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
)


def read_npz(path: str | Path) -> tuple[Table, Findings]:
    """Read an archive.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, lacks a field, has one of a wrong shape or kind or with accuracies
        outside 0..1, or gives a cell twice; or if it has no cell that NAS-Bench-101 stores.
    """
    try:
        arrays = read_arrays(path, (*CELLS, "trainable_parameters", *COLUMNS))
        columns = {name: arrays[name] for name in COLUMNS if name in arrays}
        indices, findings = cells_of(arrays, columns)
        if not set(METRICS) & set(columns):
            raise ValueError(f"it has neither {' nor '.join(METRICS)}")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except UNUSABLE as error:
        raise InputError(
            f"{path} is not a usable .npz of cells: {printable(error, 300)};"
            " nasbench_dataset/README.md lists its fields"
        ) from error
    stored = indices != cells.NOT_A_CELL
    table = {}
    for name, values in columns.items():
        table[name] = np.full(length_for(int(indices.max())), np.nan)
        table[name][indices[stored]] = values[stored]
    return Table(table, Path(path).name, measured=True), findings


class _Pieces(io.BufferedReader):
    """A file of which no large piece is read at once, as zipfile does with a false list of what is in an archive."""

    def __init__(self, file: io.BufferedReader):
        super().__init__(file.detach())

    def read(self, size: int | None = -1) -> bytes:
        wanted = _LONGEST_READ + 1 if size is None or size < 0 else min(size, _LONGEST_READ + 1)
        piece = super().read(wanted)
        if len(piece) > _LONGEST_READ:
            raise ValueError(f"its list of arrays has more than {_LONGEST_READ:,} bytes")
        return piece


def read_arrays(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that an archive has. Sizes are checked first, so that a false one reserves no memory.

    Raises
    ------
    InputError, OSError, *UNUSABLE
        If it is no regular file, is too large, cannot be read or is damaged.
    """
    with _Pieces(open_source(path, LARGEST)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about damaged or old headers
        return _read_arrays(file, names)


def _read_arrays(file: io.BufferedReader, names: Iterable[str]) -> dict[str, np.ndarray]:
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        present = set(archive.namelist())
        for name in names:
            if f"{name}.npy" not in present:
                continue
            if archive.getinfo(f"{name}.npy").compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"its {name} is compressed in another way than numpy does it")
            with archive.open(f"{name}.npy") as member:
                shape, dtype = _declared(member)
            most = (_INNER if name == "operations" else 1) * MOST
            if len(shape) not in (1, 2) or not 0 < math.prod(shape) <= most or dtype.kind not in "iuf":
                raise ValueError(f"its {name} has the shape {shape} of {dtype.name[:20]}")
            with archive.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays


def _declared(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type of an array that is about to be read."""
    version = np.lib.format.read_magic(member)
    if version != (1, 0):  # the others are for headers of more than 64 KB, which may be of any size
        raise ValueError(f"its arrays have version {version} of numpy's format, not (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return shape, dtype


def cells_of(arrays: dict[str, np.ndarray], columns: Iterable[str]) -> tuple[np.ndarray, Findings]:
    """The index of every cell, and what is odd about them.

    Raises
    ------
    ValueError
        With what is wrong, if an array that says what the cells are is missing, if arrays do not fit each other or
        hold what they cannot, if a row is no cell or one that was there before, or if no cell is stored.
    """
    for name in CELLS:
        if name not in arrays:
            raise ValueError(f"it has no {name}")
    n = arrays["vertices"].shape[0]
    for name, values in arrays.items():
        kinds = "f" if name in columns else "iu"
        shape = (n, _INNER) if name == "operations" else (n,)
        if values.shape != shape or values.dtype.kind not in kinds:
            wanted = "float" if kinds == "f" else "integer"
            raise ValueError(f"its {name} is {values.dtype} {values.shape}, not {wanted} {shape}")
    for name in columns:
        highest = LONGEST_TRAINING if name.startswith("train_seconds") else 1
        if not np.all(np.isnan(arrays[name]) | ((arrays[name] >= 0) & (arrays[name] <= highest))):
            raise ValueError(f"its {name} has values outside 0..{highest:g}")
    described = list(zip(*(arrays[name].tolist() for name in CELLS)))
    return _indices(described, arrays.get("trainable_parameters"))


def _indices(described: list[tuple], parameters: np.ndarray | None) -> tuple[np.ndarray, Findings]:
    """The index of every cell; ValueError where one is none or is given twice, or where none is stored."""
    findings, indices, known = Findings(parameters is not None), [], set()
    for row, (vertices, edges, operations) in enumerate(described):
        inner = operations[: max(vertices - 2, 0)]
        if not (
            cells.MIN_VERTICES <= vertices <= cells.MAX_VERTICES
            and 0 <= edges < 1 << vertices * (vertices - 1) // 2
            and all(0 <= operation < 3 for operation in inner)
        ):
            raise ValueError(f"its row {row} is no cell: {vertices} vertices, edge bits {edges}, operations {inner}")
        cell = tuple(inner), edges
        indices.append(cells.index(*cell))
        if indices[-1] == cells.NOT_A_CELL:
            findings.note("not stored", cell, f"row {row}")
        elif indices[-1] in known:
            raise ValueError(f"its row {row} gives a cell again; keep one of them")
        elif parameters is not None and parameters[row] != (ours := cells.trainable_parameters(*cell)):
            findings.note("parameters", cell, f"{parameters[row]}, not {ours:,}")
        known.add(indices[-1])
    if known <= {cells.NOT_A_CELL}:
        raise ValueError("none of its cells is one that NAS-Bench-101 stores")
    return np.array(indices), findings
