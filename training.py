"""One training: a cell, a recipe, data and a seed become accuracies, or a reason why there are none.

``train`` is a function of these four: on the same machine with the same libraries it gives the same numbers to the last
bit. It raises only for unusable input; a training that diverges, or runs out of memory or time, is a result, too.
"""

import hashlib
import math
import platform
import time
from dataclasses import dataclass
from typing import Callable

import numpy as np

from cell_layers import Cell, Weights, check_channels, parameter_count
from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from training_recipe import Recipe
from training_data import Data

TRAINED, DIVERGED, OUT_OF_MEMORY, OUT_OF_TIME, CRASHED = OUTCOMES = (
    "trained",
    "diverged",
    "out of memory",
    "out of time",
    "crashed",  # whoever runs trainings in processes of their own says so; ``train`` gives the others
)
MOST_SEEDS = 2**31


@dataclass(frozen=True)
class Training:
    """What one training was and gave.

    Attributes
    ----------
    cell : int
        The index (``nasbench_dataset.cells.index``) of the stored form, which is what is trained.
    recipe : Recipe
    data_name, data : str
        The name of the data and their digest.
    seed : int
    outcome, reason : str
        One of ``OUTCOMES``; and, where it is not ``trained``, in words why.
    valid : tuple of float
        Validation accuracy after each epoch, 0..1; shorter than the recipe's epochs if the training failed.
    losses : tuple of float
        Mean training loss of each epoch, with what weight decay adds.
    test : float or None
        Test accuracy after the last epoch; None if the training failed or the data have no test part.
    seconds, cpu_seconds : float
        Of the training; by the clock, and of this process. The engine ``program`` does not count compiling.
    parameters : int
        Trainable ones.
    host, device : str
    """

    cell: int
    recipe: Recipe
    data_name: str
    data: str
    seed: int
    outcome: str
    reason: str
    valid: tuple[float, ...]
    losses: tuple[float, ...]
    test: float | None
    seconds: float
    cpu_seconds: float
    parameters: int
    host: str
    device: str

    @property
    def accuracy(self) -> float | None:
        """The validation accuracy after the last epoch: what a search sees. None if the training failed."""
        return self.valid[-1] if self.outcome == TRAINED else None


def generators(cell: int, seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """The generators of the first weights and of the epochs; other cells and seeds have independent ones."""
    first, epochs = np.random.SeedSequence((seed, cell)).spawn(2)
    return np.random.default_rng(first), np.random.default_rng(epochs)


def fingerprint(recipe: Recipe, data: str, seed: int) -> str:
    """SHA-256 of what decides about the accuracies of all cells: recipe, digest of the data, seed."""
    return hashlib.sha256(f"{recipe.canonical()} {data} {seed}".encode()).hexdigest()


def stored(cell: Cell) -> tuple[int, Cell]:
    """The index and stored form of a cell.

    Raises
    ------
    InputError
        If it is no cell of NAS-Bench-101.
    """
    operations, edges = cell
    known = len(operations) + 2 <= cells.MAX_VERTICES and set(operations) <= set(range(len(cells.OPERATIONS)))
    form = cells.stored_form(operations, edges) if known and edges >= 0 else None
    if form is None:
        raise InputError(
            "that is no cell of NAS-Bench-101 (at most 7 vertices and 9 edges, input connected to output, operations"
            f" of {len(cells.OPERATIONS)}), so it cannot be trained"
        )
    return cells.index(*form), form


def check(cell: Cell, recipe: Recipe, data: Data, seed: int) -> None:
    """Refuse what cannot be trained, before anything is computed.

    Raises
    ------
    InputError
        If the images are too small for the recipe's network, the channels too few for the cell, or anything else is
        unusable.
    """
    shape = recipe.shape(data.size, data.colours, data.classes)
    check_channels(stored(cell)[1], shape)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < MOST_SEEDS:
        raise InputError(f"a seed is a whole number from 0 to {MOST_SEEDS - 1}, not {seed!r:.50}")


def train(
    cell: Cell,
    recipe: Recipe,
    data: Data,
    seed: int,
    limit: float = math.inf,
    tell: Callable[[int, float, float], None] | None = None,
    keep: Callable[[Weights], None] | None = None,
) -> Training:
    """Train the network of a cell.

    Parameters
    ----------
    cell : (operations, edges)
        Any labelled form of a cell of NAS-Bench-101; its stored form is trained.
    recipe : Recipe
    data : Data
    seed : int
        Of the first weights and the order of the images.
    limit : float
        Seconds after which a training is ended as failed. The engine ``program`` looks at them after every epoch and
        does not count compiling, ``keras`` after every step and counts it.
    tell : function
        Called after each epoch with its number from 1 on, training loss and validation accuracy.
    keep : function
        Called with the weights of a finished training, under the names of ``cell_layers``.

    Raises
    ------
    InputError
        If the input is unusable; nothing has been computed then.
    """
    check(cell, recipe, data, seed)
    index, form = stored(cell)
    shape = recipe.shape(data.size, data.colours, data.classes)
    engine = _engine(recipe)
    valid, losses, test, reason, outcome = [], [], None, "", TRAINED
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        run = engine.Run(form, shape, recipe, data, generators(index, seed), limit)
        started, cpu_started = time.perf_counter(), time.process_time()  # compiled by now
        outcome, reason, test = _follow(run, recipe, started + limit, limit, valid, losses, tell)
        if outcome == TRAINED and keep:
            keep(run.weights())
    except TimeoutError:
        outcome, reason = OUT_OF_TIME, f"{limit:g} s were over within epoch {len(valid) + 1} of {recipe.epochs}"
    except Exception as error:
        if not _is_memory(error):
            raise
        outcome, reason, test = OUT_OF_MEMORY, printable(error, 200) or "there was no memory left", None
    return Training(
        index, recipe, data.name, data.digest, seed, outcome, reason, tuple(valid), tuple(losses), test,
        time.perf_counter() - started, time.process_time() - cpu_started, parameter_count(form, shape),
        platform.node(), engine.device(),
    )  # fmt: skip


def crashed(cell: int, recipe: Recipe, data: Data, seed: int, reason: str, seconds: float) -> Training:
    """What a training was, by the index of its cell, that ended together with the process it ran in."""
    parameters = parameter_count(cells.cell(cell), recipe.shape(data.size, data.colours, data.classes))
    return Training(
        cell, recipe, data.name, data.digest, seed, CRASHED, printable(reason, 200), (), (), None,
        seconds, 0.0, parameters, platform.node(), "unknown",
    )  # fmt: skip


def _follow(
    run, recipe: Recipe, end: float, limit: float, valid: list, losses: list, tell: Callable | None
) -> tuple[str, str, float | None]:
    """Train to the last epoch or to a failure, filling ``valid`` and ``losses``: the outcome, why, test accuracy."""
    test = None
    for loss, accuracy, test in run.epochs():
        if not math.isfinite(loss):
            return DIVERGED, f"loss or weights were not finite after epoch {len(valid) + 1}", None
        losses.append(loss)
        valid.append(accuracy)
        if tell:
            tell(len(valid), loss, accuracy)
        if len(valid) < recipe.epochs and time.perf_counter() > end:
            return OUT_OF_TIME, f"{limit:g} s were over after {len(valid)} of {recipe.epochs} epochs", None
    return TRAINED, "", test


def _engine(recipe: Recipe):
    """The module that trains by a recipe; imported here, since both need seconds to load."""
    if recipe.engine == "keras":
        import training_keras

        return training_keras
    import training_program

    return training_program


def _is_memory(error: Exception) -> bool:
    """Whether an exception of Python, JAX or PyTorch says that there was not enough memory."""
    words = "RESOURCE_EXHAUSTED", "out of memory", "Out of memory", "can't allocate memory"
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
