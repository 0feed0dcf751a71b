"""The published measurements that the embedded table is fitted to; they are no part of this project.

Two numpy archives, see README.md in this folder for their fields.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, cells, noise

SAMPLE_FILE = "nasbench101_measured_20k.npz"  # a uniform sample; the maximum of 3 runs
SMALL_FILE = "nasbench101_measured_small.npz"  # small cells; means of 3 runs, validation and test
EPOCHS = (4, 12, 36)  # of shorter trainings
FAILED = 0.5  # a training that ends below has failed: it tells nothing about the structure


@dataclass(frozen=True)
class Measured:
    """Measured cells, each once.

    Attributes
    ----------
    index : int64 [n]
        As in ``cells.index``.
    valid : float64 [n]
        Mean validation accuracy of 3 runs; where only their maximum is known, ``noise.mean_of`` it.
    test : float64 [n]
        Mean test accuracy of 3 runs. NaN in the uniform sample, which lacks it.
    maximum : float64 [n]
        The largest validation accuracy of 3 runs. NaN where their mean is known.
    """

    index: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    maximum: np.ndarray

    @property
    def in_sample(self) -> np.ndarray:
        """bool [n]: the cells of the uniform sample, as opposed to the small ones."""
        return np.isnan(self.test)

    @property
    def worked(self) -> np.ndarray:
        """bool [n]: the cells of which the training did not fail."""
        return self.valid > FAILED

    def part(self, rows: np.ndarray) -> "Measured":
        return Measured(self.index[rows], self.valid[rows], self.test[rows], self.maximum[rows])


@dataclass(frozen=True)
class Trainings:
    """What is known of the trainings of the uniform sample besides accuracies after 108 epochs.

    Attributes
    ----------
    index : int64 [n]
    columns : dict of float64 [n]
        ``valid_4``, ``valid_12``, ``valid_36`` (maximum of 3 runs) and ``train_seconds``.
    """

    index: np.ndarray
    columns: dict[str, np.ndarray]

    def without(self, indices: np.ndarray) -> "Trainings":
        rows = ~np.isin(self.index, indices)
        return Trainings(self.index[rows], {name: column[rows] for name, column in self.columns.items()})


def _read(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """The indices of the cells in a file, then the columns that are asked for."""
    try:
        with np.load(path) as file:
            vertices, edges, operations = file["vertices"], file["edge_bits"], file["operations"]
            columns = [file[name].astype(np.float64) for name in names]
        if not len(vertices) or {len(edges), len(operations), *map(len, columns)} != {len(vertices)}:
            raise ValueError("its fields are empty or differ in length")
        for name, column in zip(names, columns):
            highest = np.inf if "seconds" in name else 1
            if not ((column >= 0) & (column < highest)).all():
                raise ValueError("an accuracy is outside 0..1" if highest == 1 else "its seconds are no durations")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read the measurements in {path}: {reason}") from error
    rows = zip(vertices.tolist(), operations.tolist(), edges.tolist())
    index = np.array([cells.index(tuple(row[: v - 2]), e) for v, row, e in rows])
    if (index == cells.NOT_A_CELL).any():
        raise InputError(f"{path} has {np.sum(index == cells.NOT_A_CELL)} cells that are not NAS-Bench-101's")
    return index, *columns


def read_measurements(folder: Path) -> Measured:
    """Both files of the folder; a cell in both is taken from the second, which has means.

    Raises
    ------
    InputError
        If a file is missing or damaged or has unknown cells.
    """
    index, maximum = _read(folder / SAMPLE_FILE, ("valid_108_max3",))
    small_index, small_valid, small_test = _read(folder / SMALL_FILE, ("valid_108_mean3", "test_108_mean3"))
    single = ~np.isin(index, small_index)
    return Measured(
        np.concatenate([index[single], small_index]),
        np.concatenate([noise.mean_of(maximum[single]), small_valid]),
        np.concatenate([np.full(single.sum(), np.nan), small_test]),
        np.concatenate([maximum[single], np.full(len(small_index), np.nan)]),
    )


def read_trainings(folder: Path) -> Trainings:
    """Shorter trainings and seconds of the uniform sample; InputError as above."""
    fields = *(f"valid_{epochs}_max3" for epochs in EPOCHS), "train_seconds_108"
    index, *columns = _read(folder / SAMPLE_FILE, fields)
    names = *(f"valid_{epochs}" for epochs in EPOCHS), "train_seconds"
    return Trainings(index, dict(zip(names, columns)))
