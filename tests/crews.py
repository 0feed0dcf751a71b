"""Crews for tests: trainings with made-up accuracies that end when, and as, a test wants it."""

import random
from concurrent.futures import Future

from cell_layers import parameter_count
from nasbench_dataset import cells
from training import OUT_OF_TIME, TRAINED, Training
from training_data import Data, make
from training_job import Job
from training_recipe import Recipe

import numpy as np

RECIPE = Recipe(channels=4, stacks=1, epochs=2, batch=16)


def made_up_data(seed: int = 0, number: int = 48) -> Data:
    """Random 4 x 4 images of 3 classes, each class a little brighter than the one before."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part in ("train", "valid", "test"):
        labels = np.arange(number) % 3
        images = rng.integers(0, 100, (number, 4, 4, 1)) + 60 * labels[:, None, None, None]
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    return make("made up", arrays)


def accuracy(cell: int) -> float:
    """The made-up validation accuracy of a cell by its index."""
    return random.Random(cell).uniform(0.5, 0.9)


def training_of(job: Job, outcome: str = TRAINED) -> Training:
    """What the training of a job gives, made up."""
    valid = (0.4, accuracy(job.cell)) if outcome == TRAINED else ()
    shape = job.recipe.shape(4, 1, 3)
    reason, losses = "" if valid else "why", (1.0,) * len(valid)
    return Training(
        job.cell, job.recipe, "made up", job.data, job.seed, outcome, reason, valid, losses,
        0.5 if valid else None, 0.01, 0.01, parameter_count(cells.cell(job.cell), shape), "here", "none",
    )  # fmt: skip


class Died(Exception):
    """What a call fails with whose worker has died."""


class MadeUpCrew:
    """Ends one training whenever the search waits, in random order.

    Parameters
    ----------
    at_once : int
    seed : int
        Of the order.
    outcomes : dict of int to what a call with that cell does: an outcome, or an exception
    deaths : dict of int to int
        How often the worker of a cell dies.
    """

    lost, name = (Died,), "made up"

    def __init__(self, at_once=1, seed=0, outcomes=None, deaths=None):
        self.at_once, self.rng = at_once, random.Random(seed)
        self.outcomes, self.deaths = outcomes or {}, deaths or {}
        self.open: list[tuple[Job, Future]] = []
        self.begun: list[int] = []

    def submit(self, function, job: Job) -> Future:
        assert len(self.open) < self.at_once
        self.begun.append(job.cell)
        self.open.append((job, future := Future()))
        return future

    def end_one(self) -> None:
        """End a training that is under way."""
        job, future = self.open.pop(self.rng.randrange(len(self.open)))
        outcome = self.outcomes.get(job.cell, TRAINED)
        if self.deaths.get(job.cell, 0):
            self.deaths[job.cell] -= 1
            future.set_exception(Died("ended"))
        elif isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(training_of(job, outcome))


FAILS = OUT_OF_TIME
