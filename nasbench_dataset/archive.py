"""Tables as numpy archives (.npz), for whoever has measurements in arrays.

An archive of n cells has ``vertices`` [n], ``edge_bits`` [n] (the edge x -> y is bit x + y(y-1)/2) and
``operations`` [n, 5] (0 conv3x3, 1 conv1x1, 2 maxpool3x3; beyond the cell's own anything), all integers, and one
array [n] of floats for every column, NaN where there is no value: ``test`` or ``valid`` or both, and where
known ``train_seconds`` and the same at fewer epochs, ``valid_4``, ``train_seconds_4`` and so on. With
``trainable_parameters`` [n] those are checked. Other arrays are ignored.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from nasbench_dataset import InputError, cells
from nasbench_dataset.runs import BUDGETS, Findings
from nasbench_dataset.table import METRICS, Table, length_for

COLUMNS = (*METRICS, "train_seconds", *(f"{name}_{b}" for b in BUDGETS[:-1] for name in ("valid", "train_seconds")))
_INNER = cells.MAX_VERTICES - 2
_UNUSABLE = (  # what numpy and zipfile raise for damaged archives, and encrypted ones
    *(ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error),
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
        arrays = _read_arrays(path)
        described, columns = _checked(arrays)
        indices, findings = _indices(described, arrays.get("trainable_parameters"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except _UNUSABLE as error:
        raise InputError(
            f"{path} is not a usable .npz of cells: {' '.join(str(error).split())};"
            " nasbench_dataset/README.md lists its fields"
        ) from error
    stored = indices != cells.NOT_A_CELL
    table = {}
    for name, values in columns.items():
        table[name] = np.full(length_for(int(indices.max())), np.nan)
        table[name][indices[stored]] = values[stored]
    return Table(table, Path(path).name, measured=True), findings


def _read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays that a table is made of. Sizes are checked first, so that a false one reserves no memory."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name in ("vertices", "edge_bits", "operations", "trainable_parameters", *COLUMNS):
            if f"{name}.npy" not in archive.namelist():
                continue
            with archive.open(f"{name}.npy") as member:
                shape, dtype = _declared(member)
            fits = len(shape) in (1, 2) and 0 < math.prod(shape) <= _INNER * cells.cell_count()
            if not fits or dtype.kind not in "iuf":
                raise ValueError(f"its {name} has the shape {shape} of {dtype.name[:20]}")
            with archive.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays


def _declared(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type of an array that is about to be read."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(member)
    if version not in readers:
        raise ValueError(f"its arrays have version {version} of numpy's format")
    shape, _, dtype = readers[version](member)
    return shape, dtype


def _checked(arrays: dict[str, np.ndarray]) -> tuple[list[tuple], dict[str, np.ndarray]]:
    """The vertices, edges and operations of every cell, and the columns; ValueError with what is wrong."""
    for name in ("vertices", "edge_bits", "operations"):
        if name not in arrays:
            raise ValueError(f"it has no {name}")
    columns = {name: arrays[name] for name in COLUMNS if name in arrays}
    if not set(METRICS) & set(columns):
        raise ValueError(f"it has neither {' nor '.join(METRICS)}")
    n = arrays["vertices"].shape[0]
    for name, values in arrays.items():
        kinds = "f" if name in columns else "iu"
        shape = (n, _INNER) if name == "operations" else (n,)
        if values.shape != shape or values.dtype.kind not in kinds:
            wanted = "float" if kinds == "f" else "integer"
            raise ValueError(f"its {name} is {values.dtype} {values.shape}, not {wanted} {shape}")
    for name, values in columns.items():
        highest = np.inf if name.startswith("train_seconds") else 1
        if not np.all(np.isnan(values) | ((values >= 0) & (values <= highest) & np.isfinite(values))):
            raise ValueError(f"its {name} has values outside 0..{'' if highest == np.inf else highest}")
    return list(zip(*(arrays[name].tolist() for name in ("vertices", "edge_bits", "operations")))), columns


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
