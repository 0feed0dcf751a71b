"""Train many cells and keep the results: ``python measure_cells.py --store FILE [--workers 2] [--table FILE]``.

By default all 2,532 cells of up to 5 vertices, three seeds each, by the recipe SMALL on scikit-learn's digits: first
all cells with the first seed, in random order, then all with the second, and so on, so that what is done at any moment
is a fair sample. What is in the store is not trained again: a run that was ended goes on where it was.

In the end the command says how far cells and seeds scatter: ``--sample 30 --seeds 2`` tries out what a recipe can tell
apart. ``--table`` writes the means as a table that the searches take with ``--dataset``.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import time
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nasbench_dataset import InputError, cells, command
from nasbench_dataset.files import printable
from nasbench_dataset.table import Table, save
from training_recipe import Recipe, add_options, from_options
from training import TRAINED, Training, check, train
from training_data import Data, load
from training_store import TrainingStore

ORDER_SEED = 0  # of the order of the cells; the same for all workers, so that they share the work evenly
TOLD_EVERY = 60.0  # seconds between two lines of progress
XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def wanted(vertices: int, seeds: int, sample: int | None = None) -> list[tuple[int, int]]:
    """The ``(cell index, seed)`` of all cells, or of a random sample, seed by seed, each time in another order."""
    order = random.Random(ORDER_SEED)
    count = cells.cell_count(vertices)
    chosen = order.sample(range(count), min(sample or count, count))
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
    alike = [spearmanr(values[i], values[j]).statistic for i, j in combinations(range(len(seeds)), 2)]
    return (
        f"{len(whole):,} cells, {len(seeds)} seeds: mean {values.mean():.4f}, best {values.mean(axis=0).max():.4f},"
        f" deviation between cells {between_cells**0.5:.4f}, between seeds {between_seeds**0.5:.4f},"
        f" rank correlation of two seeds {np.mean(alike):.2f}"
    )


def work(path: str, data_name: str, recipe: Recipe, pairs: list[tuple[int, int]], worker: int) -> None:
    """Train cells with seeds, one after another, into the store; for a process of its own."""
    data = load(data_name)
    began = told = time.monotonic()
    with TrainingStore(path) as store:
        for done, (cell, seed) in enumerate(pairs, 1):
            if not multiprocessing.parent_process().is_alive():
                return  # whoever killed it meant the workers, too
            training = train(cells.cell(cell), recipe, data, seed)
            store.put(training)
            if time.monotonic() - told > TOLD_EVERY or done == len(pairs):
                told = time.monotonic()
                print(
                    f"worker {worker}: {done:,} of {len(pairs):,} in {told - began:,.0f} s; cell {cell}, seed {seed}:"
                    f" {training.outcome}, validation {training.accuracy}, {training.cpu_seconds:.2f} CPU s",
                    flush=True,
                )


def _process(*arguments) -> None:
    """``work``, with errors in one line and no traceback where the user interrupts it."""
    with contextlib.suppress(KeyboardInterrupt):
        try:
            work(*arguments)
        except InputError as error:
            command.fail(error)


def train_all(path: str, data_name: str, recipe: Recipe, pairs: list[tuple[int, int]], workers: int) -> bool:
    """Share the trainings among processes of one thread each; False if one of them failed."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {XLA_ONE_THREAD}"
    context = multiprocessing.get_context("spawn")  # JAX does not live through a fork
    processes = [
        context.Process(target=_process, args=(path, data_name, recipe, pairs[i::workers], i)) for i in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return all(process.exitcode == 0 for process in processes)


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


def main(argv: list[str] | None = None) -> int:
    """Run ``python measure_cells.py``; returns the exit status."""
    parser = command.Parser(prog="python measure_cells.py", description="Train many cells and keep the results.")
    parser.add_argument("--store", required=True, help="the store of trainings to fill")
    parser.add_argument("--data", default="digits", help="digits, noisy-digits, cifar10 or an .npz file")
    parser.add_argument("--max-vertices", type=int, choices=range(2, 8), default=5, help="of the cells")
    parser.add_argument("--sample", type=command.whole_number(1), default=argparse.SUPPRESS, help="so many of them")
    parser.add_argument("--seeds", type=command.whole_number(1), default=3, help="trainings of each cell")
    parser.add_argument("--workers", type=command.whole_number(0), default=1, help="processes; 0 trains nothing")
    parser.add_argument("--table", default=argparse.SUPPRESS, help="write the means of what is there as a table")
    add_options(parser.add_argument_group("training", "how networks are trained; what is not given is as in --recipe"))
    options = parser.parse_args(argv)
    recipe, data, vertices = from_options(options), load(options.data), options.max_vertices
    check(cells.cell(cells.cell_count(vertices) - 1), recipe, data, 0)  # told once, before any worker starts
    pairs = wanted(vertices, options.seeds, getattr(options, "sample", None))
    with TrainingStore(options.store) as store:
        there = store.trained(recipe, data.digest)
    missing = [pair for pair in pairs if pair not in there]
    print(f"{len(missing):,} trainings to do; {printable(data.name)} {data.digest}; {recipe.canonical()}", flush=True)
    if missing and options.workers and not train_all(options.store, options.data, recipe, missing, options.workers):
        return 1
    with TrainingStore(options.store) as store:
        known = set(pairs)
        trainings = [t for t in store if (t.recipe, t.data) == (recipe, data.digest) and (t.cell, t.seed) in known]
    print(scatter(trainings))
    if hasattr(options, "table"):
        save(table := table_of(trainings, vertices), options.table)
        print(f"{options.table}: {Path(options.table).stat().st_size:,} bytes; {table.describe()}")
    return 0


if __name__ == "__main__":
    command.run(main)
