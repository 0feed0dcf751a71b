"""Train many cells and keep the results: ``python measure_cells.py --store FILE [--workers 2]``.

By default all 2,532 cells of up to 5 vertices, three seeds each, by the recipe SMALL on scikit-learn's digits. First all
cells with the first seed, in random order, then all with the second, and so on: at any moment, what is done is a fair
sample. Whatever is in the store already is not trained again, so a run that was ended goes on where it was.
"""

import multiprocessing
import os
import random
import time

import training_store
from nasbench_dataset import cells, command
from nasbench_dataset.files import printable
from recipe import SMALL, Recipe
from training import train
from training_data import Data, load

ORDER_SEED = 0  # of the order of the cells; the same for all workers, so that they share the work evenly
TOLD_EVERY = 60.0  # seconds between two lines of progress


def to_do(store: training_store.TrainingStore, recipe: Recipe, data: Data, vertices: int, seeds: int):
    """The ``(cell index, seed)`` that the store lacks, seed by seed, the cells of each in an order of its own."""
    there = store.trained(recipe, data.digest)
    order = random.Random(ORDER_SEED)
    wanted = []
    for seed in range(seeds):
        wanted += [(cell, seed) for cell in order.sample(range(cells.cell_count(vertices)), cells.cell_count(vertices))]
    return [pair for pair in wanted if pair not in there]


def work(path: str, data_name: str, vertices: int, seeds: int, worker: int, workers: int) -> None:
    """Train every ``workers``-th missing training, beginning with number ``worker``."""
    recipe, data = SMALL, load(data_name)
    with training_store.TrainingStore(path) as store:
        mine = to_do(store, recipe, data, vertices, seeds)[worker::workers]
        began = told = time.monotonic()
        for done, (cell, seed) in enumerate(mine, 1):
            if not multiprocessing.parent_process().is_alive():
                return  # whoever killed it meant the workers, too
            training = train(cells.cell(cell), recipe, data, seed)
            store.put(training)
            if time.monotonic() - told > TOLD_EVERY or done == len(mine):
                told = time.monotonic()
                print(
                    f"worker {worker}: {done:,} of {len(mine):,} trained in {told - began:,.0f} s; seed {seed}, cell {cell}:"
                    f" {training.outcome}, validation {training.accuracy}, {training.cpu_seconds:.2f} CPU s",
                    flush=True,
                )


def main(argv: list[str] | None = None) -> int:
    """Run ``python measure_cells.py``; returns the exit status."""
    parser = command.Parser(prog="python measure_cells.py", description="Train many cells and keep the results.")
    parser.add_argument("--store", required=True, help="the store of trainings to fill")
    parser.add_argument("--data", default="digits", help="digits, cifar10 or an .npz file")
    parser.add_argument("--max-vertices", type=int, choices=range(2, 8), default=5, help="of the cells")
    parser.add_argument("--seeds", type=command.whole_number(1), default=3, help="trainings of each cell")
    parser.add_argument("--workers", type=command.whole_number(1), default=1, help="processes, each of one thread")
    options = parser.parse_args(argv)
    with training_store.TrainingStore(options.store) as store:  # unusable input is told once, before any worker starts
        data = load(options.data)
        missing = len(to_do(store, SMALL, data, options.max_vertices, options.seeds))
    print(f"{missing:,} trainings to do, recipe {SMALL.canonical()}, data {printable(data.name)} {data.digest}", flush=True)
    if not missing:
        return 0
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    context = multiprocessing.get_context("spawn")  # JAX does not live through a fork
    shared = options.store, options.data, options.max_vertices, options.seeds
    processes = [context.Process(target=work, args=(*shared, i, options.workers)) for i in range(options.workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return 0 if all(process.exitcode == 0 for process in processes) else 1


if __name__ == "__main__":
    command.run(main)
