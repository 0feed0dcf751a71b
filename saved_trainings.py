"""The trainings of a saved search, out of the store in its folder: seconds, outcomes, reasons.

The store may come from anywhere, or a search may be writing to it. So it is copied and the copy is read: the store
itself is never opened by SQLite, which would write beside it. No link is followed, and no other folder is looked at.
"""

import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import saved_run
from nasbench_dataset import InputError
from nasbench_dataset.files import printable
from nasbench_dataset.signals import unfinished
from saved_run import STORE, Run, check_size
from training import TRAINED, Training, fingerprint
from training_store import TrainingStore

LARGEST_STORE = 256 << 20  # bytes of the store, and of its write-ahead log; 400,000 trainings
REASON = 300  # characters that are shown


class Trained(NamedTuple):
    """A training as the page shows it.

    Attributes
    ----------
    place : int
        In the order in which trainings came into the store.
    accuracy, test : float or None
        Validation accuracy, None where it failed; test accuracy, None where there is none.
    seconds : float
    outcome, reason : str
    """

    place: int
    accuracy: float | None
    test: float | None
    seconds: float
    outcome: str
    reason: str

    @property
    def failed(self) -> bool:
        """Whether the training gave no accuracy."""
        return self.outcome != TRAINED


def read_trainings(run: Run, folder: Path) -> dict[int, Trained]:
    """The trainings of the samples and failures of a search, by the index of the cell; those that its store has.

    Empty where the folder has no store.

    Raises
    ------
    InputError
        If the store is damaged, too large, or none.
    """
    wanted = {*run.samples, *run.failed}
    for name in dict.fromkeys((STORE, run.store)):
        path = folder / name
        try:
            is_there = stat.S_ISREG(path.lstat().st_mode)
        except OSError:
            continue
        if is_there and (found := read_store(path, run.fingerprint, wanted)):
            return found
    return {}


def read_store(path: Path, wanted_by: str, wanted: set[int]) -> dict[int, Trained]:
    """The trainings of these cells by the recipe, data and seed of that fingerprint."""
    with unfinished(folder := tempfile.mkdtemp()):
        try:
            copy = copy_store(path, Path(folder))
            with TrainingStore(copy, must_exist=True) as store:
                return {
                    training.cell: shortened(place, training)
                    for place, training in store.in_order()
                    if training.cell in wanted and of(training) == wanted_by
                }
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except InputError as error:
            raise InputError(str(error).replace(str(Path(folder) / path.name), str(path))) from error


def copy_store(path: Path, folder: Path) -> Path:
    """Copy a store and its write-ahead log as they are at one moment; where one is written meanwhile, once more."""
    parts = path, path.with_name(f"{path.name}-wal")
    for wait in saved_run.WAITS:
        time.sleep(wait)
        before = [state(part) for part in parts]
        for part, there in zip(parts, before):
            copy = folder / part.name
            copy.unlink(missing_ok=True)
            if there:
                shutil.copyfile(part, copy, follow_symlinks=False)
        if before == [state(part) for part in parts]:
            return folder / path.name
    raise InputError(f"{path} is being written to all the time; try again later")


def state(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written to; None where there is none. InputError where it is larger than is read."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError(f"{path} is no regular file")
        return check_size(path, LARGEST_STORE), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def of(training: Training) -> str:
    """What tells whose training it is."""
    return fingerprint(training.recipe, training.data, training.seed)


def shortened(place: int, training: Training) -> Trained:
    """What is shown of a training, its text as a short harmless line."""
    reason = printable(training.reason, REASON)
    return Trained(place, training.accuracy, training.test, training.seconds, training.outcome, reason)
