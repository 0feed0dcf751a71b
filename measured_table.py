"""Trainings as a table: what ``measure_cells.py`` and ``python -m nasbench_dataset.convert STORE TABLE`` write."""

from collections import Counter
from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from nasbench_dataset.table import Table
from training import TRAINED, Training
from training_recipe import Recipe
from training_store import TrainingStore

Group = tuple[Recipe, str, str]  # what the trainings of a table share: the recipe, the data's name and their digest


def read_store(path: str | Path, wanted: int | None = None) -> tuple[Table, list[str]]:
    """The trainings in a store as a table.

    Parameters
    ----------
    wanted : int, optional
        Which group of trainings, from 1 on, where the store has several; those of a group share recipe and data.

    Returns
    -------
    table : Table
        As long as its largest cell needs; means over seeds, and the single runs.
    lines : list of str
        What the store is and what was found in it.

    Raises
    ------
    InputError
        If the store cannot be read, has no finished training, or has several groups and none is wanted.
    """
    with TrainingStore(path, must_exist=True) as store:
        trainings = list(store)
    groups = Counter((t.recipe, t.data_name, t.data) for t in trainings if t.outcome == TRAINED).most_common()
    if not groups:
        raise InputError(f"{path} has no finished training to make a table of")
    if wanted is None and len(groups) > 1:
        raise InputError(f"{path} has trainings of {len(groups)} kinds, {listed(groups)}; choose one by --group NUMBER")
    if not 1 <= (wanted or 1) <= len(groups):
        raise InputError(f"{path} has no group {wanted} of trainings, only {listed(groups)}")
    (recipe, name, digest), count = groups[(wanted or 1) - 1]
    of_group = [t for t in trainings if (t.recipe, t.data_name, t.data) == (recipe, name, digest)]
    largest = max(t.cell for t in of_group)
    vertices = next(v for v in cells.CELL_COUNTS if largest < cells.cell_count(v))
    failed = len(of_group) - count
    lines = [
        f"a store of {len(trainings):,} trainings",
        f"group {wanted or 1}: {count:,} on {printable(name)}, {recipe.canonical()}",
        *([f"left out: {failed:,} trainings that failed"] if failed else []),
    ]
    return table_of(of_group, vertices), lines


def listed(groups: list[tuple[Group, int]]) -> str:
    """Groups of trainings in words, numbered."""
    return "; ".join(
        f"{number}: {count:,} on {printable(name, 60)} for {recipe.epochs} epochs, {recipe.channels} channels"
        for number, ((recipe, name, _), count) in enumerate(groups, 1)
    )


def table_of(trainings: list[Training], vertices: int) -> Table:
    """Means over the seeds of the trained cells, and the single runs.

    Parameters
    ----------
    trainings : list of Training
        By one recipe on the same data. Failed ones are left out.

    Returns
    -------
    Table
        ``valid``, ``test`` (if the data have a test part) and ``train_seconds`` (CPU seconds of a training);
        ``valid_runN`` and ``test_runN`` of the seed N; ``valid_<epochs>`` after a third and two thirds of the epochs
        of the same trainings. A cell without a successful training is absent.
    """
    good = [t for t in trainings if t.outcome == TRAINED and t.cell < cells.cell_count(vertices)]
    if not good:
        raise InputError(f"there is no finished training of a cell of up to {vertices} vertices to make a table of")
    seeds = sorted({t.seed for t in good})
    epochs = good[0].recipe.epochs
    values = {"valid": lambda t: t.valid[-1], "test": lambda t: np.nan if t.test is None else t.test}
    values |= {"train_seconds": lambda t: t.cpu_seconds}
    values |= {f"valid_{n}": lambda t, n=n: t.valid[n - 1] for n in (epochs // 3, 2 * epochs // 3) if n}
    runs = {name: np.full((len(seeds), cells.cell_count(vertices)), np.nan) for name in values}
    for training in good:
        for name, value in values.items():
            runs[name][seeds.index(training.seed), training.cell] = value(training)
    trained = ~np.isnan(runs["valid"])
    count = trained.sum(axis=0)
    columns = {}
    for name, of_seeds in runs.items():
        total = np.where(trained, of_seeds, 0).sum(axis=0)
        columns[name] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    for name in ("valid", "test"):
        columns |= {f"{name}_run{seed}": row for seed, row in zip(seeds, runs[name])}
    columns["train_seconds"] = columns["train_seconds"].astype(np.float32).astype(np.float64)  # half the size
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    epochs_and_seeds = f"{epochs} epochs, {len(seeds)} seeds" if len(seeds) > 1 else f"{epochs} epochs"
    return Table(columns, f"trained by this project on {printable(good[0].data_name)}, {epochs_and_seeds}", True)
