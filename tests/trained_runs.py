"""A search as if it had trained its cells, for tests of what its page shows."""

import shutil
from pathlib import Path

from drawn_runs import save_again

import saved_run
from nasbench_dataset import cells
from sampled_cells import known_accuracies
from training import OUT_OF_TIME, TRAINED, Training, fingerprint
from training_recipe import Recipe
from training_store import TrainingStore

RECIPE = Recipe(epochs=2)


def made_up(cell: int, accuracy: float | None, reason: str = "", seconds: float = 2.0) -> Training:
    """A training with a validation accuracy, or one that failed."""
    values = dict(
        recipe=RECIPE, data_name="made up", data="abc", seed=0, reason=reason, seconds=seconds, cpu_seconds=1.0,
        parameters=100, host="here", device="none",
    )  # fmt: skip
    if accuracy is None:
        return Training(cell, outcome=OUT_OF_TIME, valid=(), losses=(), test=None, **values)
    return Training(cell, outcome=TRAINED, valid=(0.1, accuracy), losses=(2.0, 1.0), test=accuracy / 2, **values)


def as_trained(source: Path, folder: Path, reasons: list[str]) -> saved_run.Run:
    """Copy a search without a guide, with a store that has its samples, and failures before the last of them.

    Each training took 2 seconds; each that failed, for one of the reasons, half a second.
    """
    shutil.copytree(source, folder)
    run = saved_run.read_run(folder)
    accuracies = {cells.index(operations, edges): x for x, operations, edges in known_accuracies(run, {})}
    failed = [index for index in range(91, 91 + len(reasons))]  # of 5 vertices, which this search has not
    with TrainingStore(folder / "trainings.sqlite") as store:
        for index in run.samples[:-1]:
            store.put(made_up(index, accuracies[index]))
        for index, reason in zip(failed, reasons):
            store.put(made_up(index, None, reason, 0.5))
        store.put(made_up(run.samples[-1], accuracies[run.samples[-1]]))
    table = fingerprint(RECIPE, "abc", 0)
    save_again(folder, lambda main, nodes: (main.update(failed=failed), main["settings"].update(table=table)))
    return saved_run.read_run(folder)
