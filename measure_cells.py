"""Train many cells and keep the results: ``python measure_cells.py --store FILE [--workers 2] [--table FILE]``.

By default all 2,532 cells of up to 5 vertices, three seeds each, by the recipe SMALL on scikit-learn's digits: first
all cells with the first seed, in random order, then all with the second, and so on, so that what is done at any moment
is a fair sample. What is in the store is not trained again: a run that was ended goes on where it was.

In the end the command says how far cells and seeds scatter: ``--sample 30 --seeds 2`` tries out what a recipe can tell
apart. ``--table`` writes the means as a table that the searches take with ``--dataset``.
"""

import os
import sys

if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:  # it is not under PYTHONSAFEPATH
    sys.path.insert(0, here)

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import argparse
import math
import random
import time
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Callable

import numpy as np
import scipy  # its parts when they are asked for: scipy.stats takes longer than most of a start

import training_job
import workers
from measured_table import table_of
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.files import printable
from nasbench_dataset.table import check_destination, save
from training import TRAINED, Training, check
from training_data import load
from training_recipe import add_options, from_options
from training_store import TrainingStore

ORDER_SEED = 0  # of the order of the cells
TOLD_EVERY = 60.0  # seconds between two lines of progress
MOST = 3_000_000  # trainings, all of which are listed: seven of each of the 423,624 cells


def wanted(vertices: int, seeds: int, sample: int | None = None) -> list[tuple[int, int]]:
    """The ``(cell index, seed)`` of all cells, or of a random sample, seed by seed, each time in another order.

    Raises InputError if they are more than ``MOST``.
    """
    order = random.Random(ORDER_SEED)
    count = cells.cell_count(vertices)
    chosen = order.sample(range(count), min(sample or count, count))
    if seeds * len(chosen) > MOST:
        raise InputError(f"--seeds {seeds} of {len(chosen):,} cells are more than {MOST:,} trainings; name fewer")
    return [(cell, seed) for seed in range(seeds) for cell in order.sample(chosen, len(chosen))]


def scatter(trainings: list[Training]) -> str:
    """How far validation accuracies scatter between cells and between the seeds of a cell, in one line.

    Cells count that have been trained with every seed. The scatter between cells is that of their means, less what the
    seeds bring into it; the rank correlation is the mean of those of two seeds each.
    """
    runs = {(t.cell, t.seed): t.accuracy for t in trainings if t.outcome == TRAINED}
    seeds = sorted({seed for _, seed in runs})
    whole = [cell for cell, seed in runs if seed == seeds[0] and all((cell, other) in runs for other in seeds)]
    if len(seeds) < 2 or len(whole) < 3:
        return "too few trainings to say how far seeds scatter"
    values = np.array([[runs[cell, seed] for cell in whole] for seed in seeds])
    between_seeds = values.var(axis=0, ddof=1).mean()
    between_cells = max(values.mean(axis=0).var(ddof=1) - between_seeds / len(seeds), 0)
    alike = [scipy.stats.spearmanr(values[i], values[j]).statistic for i, j in combinations(range(len(seeds)), 2)]
    return (
        f"{len(whole):,} cells, {len(seeds)} seeds: mean {values.mean():.4f}, best {values.mean(axis=0).max():.4f},"
        f" deviation between cells {between_cells**0.5:.4f}, between seeds {between_seeds**0.5:.4f},"
        f" rank correlation of two seeds {np.mean(alike):.2f}"
    )


def measured(job: training_job.Job) -> Training:
    """Make a training, in a worker; an InputError where nothing can be trained there."""
    _check_device(job.recipe.engine)
    return training_job.run(job)


@lru_cache(maxsize=1)
def _check_device(engine: str) -> None:
    training_job.device(engine)


def train_all(jobs: list[training_job.Job], store: TrainingStore, processes: int) -> None:
    """Make trainings in processes of one thread each, and keep them.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, SIGTERM or SIGHUP, when no process computes any more; what has ended is kept.
    InputError
        If one cannot be made or kept.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    training_job.prepare(threads=1, gpu=None)  # they inherit it
    workers.run_all(measured, [(job,) for job in jobs], keeper(store, len(jobs)), jobs=processes)


def keeper(store: TrainingStore, number: int) -> Callable[[Training], None]:
    """What keeps each training, and says now and then how many of that number there are."""
    began = told = time.monotonic()
    done = 0

    def keep(training: Training) -> None:
        nonlocal told, done
        store.put(training)
        done += 1
        if time.monotonic() - told > TOLD_EVERY or done == number:
            told = time.monotonic()
            print(
                f"{done:,} of {number:,} in {told - began:,.0f} s; cell {training.cell}, seed {training.seed}:"
                f" {training.outcome}, validation {training.accuracy}, {training.cpu_seconds:.2f} CPU s",
                flush=True,
            )

    return keep


def main(argv: list[str] | None = None) -> int:
    """Run ``python measure_cells.py``; returns the exit status."""
    parser = command.Parser(prog="python measure_cells.py", description="Train many cells and keep the results.")
    parser.add_argument("--store", type=command.path, required=True, help="the store of trainings to fill")
    parser.add_argument("--data", default="digits", help="digits, noisy-digits, cifar10 or an .npz file")
    parser.add_argument("--max-vertices", type=int, choices=range(2, 8), default=5, help="of the cells")
    parser.add_argument("--sample", type=command.whole_number(1), default=argparse.SUPPRESS, help="so many of them")
    parser.add_argument("--seeds", type=command.whole_number(1), default=3, help="trainings of each cell")
    parser.add_argument("--workers", type=command.whole_number(0), default=1, help="processes; 0 trains nothing")
    parser.add_argument(
        "--table", type=command.path, default=argparse.SUPPRESS, help="write the means of what is there as a table"
    )
    add_options(parser.add_argument_group("training", "how networks are trained; what is not given is as in --recipe"))
    options = parser.parse_args(argv)
    if hasattr(options, "table"):
        check_destination(options.table)  # before training, which can take hours
    recipe, data, vertices = from_options(options), load(options.data), options.max_vertices
    check(cells.cell(cells.cell_count(vertices) - 1), recipe, data, 0)  # told once, before any worker starts
    pairs = wanted(vertices, options.seeds, getattr(options, "sample", None))
    with TrainingStore(options.store) as store:
        there = store.trained(recipe, data.digest)
        missing = [pair for pair in pairs if pair not in there]
        what = f"{printable(data.name)} {data.digest}; {recipe.canonical()}"
        print(f"{len(missing):,} trainings to do; {what}", flush=True)
        if missing and options.workers:
            same = recipe, options.data, data.digest
            jobs = [training_job.Job(cell, *same, seed, math.inf) for cell, seed in missing]
            train_all(jobs, store, options.workers)
        known = set(pairs)
        trainings = [t for t in store if (t.recipe, t.data) == (recipe, data.digest) and (t.cell, t.seed) in known]
    print(scatter(trainings))
    if hasattr(options, "table"):
        save(table := table_of(trainings, vertices), options.table)
        print(f"{printable(options.table)}: {Path(options.table).stat().st_size:,} bytes; {table.describe()}")
    return 0


if __name__ == "__main__":
    command.run(main)
