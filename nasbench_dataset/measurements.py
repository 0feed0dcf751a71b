"""The published measurements that the embedded table is fitted to; they are no part of this project.

Two numpy archives, see README.md in this folder for their fields.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, archive, cells, noise
from nasbench_dataset.files import printable

SAMPLE_FILE = "nasbench101_measured_20k.npz"  # a uniform sample; the maximum of 3 runs
SMALL_FILE = "nasbench101_measured_small.npz"  # small cells; means of 3 runs, validation and test
EPOCHS = (4, 12, 36)  # of shorter trainings
FAILED = 0.5  # a training that ends below has failed: it tells nothing about the structure
FEWEST = 100  # different values of a kind that a fit needs


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
        arrays = archive.read_arrays(path, (*archive.CELLS, *names))
        for name in (*archive.CELLS, *names):
            if name not in arrays:
                raise ValueError(f"it has no {name}")
        index, _ = archive.cells_of(arrays, names)
        for name in names:
            values = arrays[name]
            if not np.all(values > 0 if "seconds" in name else (values >= 0) & (values < 1)):
                raise ValueError(f"its {name} has a value that cannot be")
            if (different := len(np.unique(values[values > FAILED]))) < FEWEST:
                raise ValueError(f"its {name} has {different} different values of trainings that worked, not {FEWEST}")
    except OSError as error:
        raise InputError(f"cannot read the measurements in {path}: {error.strerror or error}") from error
    except archive.UNUSABLE as error:
        raise InputError(f"cannot read the measurements in {path}: {printable(error, 300)}") from error
    if (index == cells.NOT_A_CELL).any():
        raise InputError(f"{path} has {np.sum(index == cells.NOT_A_CELL)} cells that are not NAS-Bench-101's")
    return index, *(arrays[name].astype(np.float64) for name in names)


def read_measurements(folder: Path) -> Measured:
    """Both files of the folder; a cell in both is taken from the second, which has means.

    Raises
    ------
    InputError
        If a file is missing or damaged, has unknown cells, or too few for a fit.
    """
    index, maximum = _read(folder / SAMPLE_FILE, ("valid_108_max3",))
    small_index, small_valid, small_test = _read(folder / SMALL_FILE, ("valid_108_mean3", "test_108_mean3"))
    single = ~np.isin(index, small_index)
    if single.sum() < FEWEST:
        raise InputError(f"{folder / SAMPLE_FILE} has {single.sum()} cells that {SMALL_FILE} lacks, not {FEWEST}")
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
