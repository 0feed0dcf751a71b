"""The options of a command that can search by training instead of looking up: ``--train`` and what belongs to it."""

import argparse
import json
import math
import multiprocessing
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Callable, Iterator

import training_crew
import training_recipe
from arch_generator import arch_generator
from cell_layers import NetworkShape, check_channels
from cell_trainer import CellTrainer, best_index
from history import History
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.files import printable, write_atomically
from training import MOST_SEEDS, TRAINED
from training_crew import Crew
from training_data import Data, load
from training_job import device, prepare, run_and_keep
from training_recipe import Recipe
from training_store import TrainingStore

PREFIX = "train_"  # of the options of a recipe, since a search has options of such names, too
STORE = "trainings.sqlite"
BEST_MODEL, BEST_ABOUT = "best.keras", "best.json"
RUN_OPTIONS = ("workers", "cluster", "keep_best", "retry_failed")  # of one search


def add_options(parser: argparse.ArgumentParser, one_search: bool = True) -> None:
    """``--train`` and all that belongs to it; without ``one_search`` only what several searches can share."""
    add, hidden = parser.add_argument_group("to train cells instead of looking them up").add_argument, argparse.SUPPRESS
    add(
        "--train", metavar="DATA", default=hidden,
        help="digits, noisy-digits, cifar10 or a file .npz with x_train and y_train: train cells on these images",
    )  # fmt: skip
    add("--store", type=command.path, metavar="PATH", default=hidden, help=f"of trainings; else {STORE} in --out")
    if one_search:
        words = "of a Dask scheduler, whose workers train"
        add("--workers", type=command.whole_number(1), metavar="N", default=hidden, help="trainings at a time; else 1")
        add("--cluster", type=command.address, metavar="ADDRESS", default=hidden, help=words)
        add("--keep-best", action="store_true", default=hidden, help=f"keep the best network: {BEST_MODEL} in --out")
        add("--retry-failed", action="store_true", default=hidden, help="make trainings that failed before once more")
    add("--train-seed", type=command.whole_number(0), metavar="N", default=hidden, help="of all trainings; else 0")
    add("--train-limit", type=command.number(0), metavar="SECONDS", default=hidden, help="after which one has failed")
    group = parser.add_argument_group("how cells are trained", "what is not given is as in --train-recipe, else small")
    training_recipe.add_options(group, PREFIX)


def wanted(options: argparse.Namespace, one_search: bool = True) -> bool:
    """Whether the command, of the options that ``add_options`` gave it, is to train.

    Raises
    ------
    InputError
        If there are options that need ``--train`` without it, or that do not go together with it.
    """
    own = ("store", *(RUN_OPTIONS if one_search else ()))
    names = [name for name in vars(options) if name in own or name.startswith(PREFIX)]
    if not hasattr(options, "train"):
        if names:
            raise InputError(f"--{names[0].replace('_', '-')} needs --train DATA: it says how cells are trained")
        return False
    if options.dataset:
        raise InputError("--dataset is a table, with --train cells are trained instead: leave one of them out")
    if options.noisy:
        raise InputError("--noisy is for tables, trainings are noisy by themselves: leave it out with --train")
    if options.metric == "test":
        raise InputError("--train searches by validation accuracy, test accuracy is for the end: leave --metric out")
    if not options.train.strip():
        raise InputError("--train is empty; name digits, noisy-digits, cifar10 or a file .npz")
    return True


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that the command line asks for."""
    return training_recipe.from_options(options, PREFIX)


def load_for(options: argparse.Namespace, generator: arch_generator) -> Data:
    """The data, seen to fit the recipe and every cell of the domain.

    Raises
    ------
    InputError
        If they do not.
    """
    if getattr(options, "train_seed", 0) >= MOST_SEEDS:
        raise InputError(f"--train-seed is a whole number below {MOST_SEEDS}")
    data, recipe = load(options.train), recipe_of(options)
    check_cells(generator, recipe.shape(data.size, data.colours, data.classes))
    return data


def check_cells(generator: arch_generator, shape: NetworkShape) -> None:
    """See that every cell within the limits can be built so; InputError where not."""
    output = generator.max_nodes - 1
    feeding = range(1, 1 + min(output - 1, generator.max_edges // 2))  # so many can feed it, with two edges each
    edges = sum(cells.edge_bit(0, v) | cells.edge_bit(v, output) for v in feeding)
    check_channels(((0,) * (output - 1), edges), shape)


def open_store(options: argparse.Namespace) -> TrainingStore:
    """The store that the command line names, or that of its folder."""
    return TrainingStore(getattr(options, "store", options.out / STORE))


def trainer_of(
    options: argparse.Namespace,
    data: Data,
    store: TrainingStore,
    crew: Crew,
    generator: arch_generator,
    warn: Callable[[str], None] = lambda line: None,
) -> CellTrainer:
    """Who answers by training, as the command line says."""
    return CellTrainer(
        data, source_of(options.train), recipe_of(options), getattr(options, "train_seed", 0), store, crew, generator,
        options.lookup, getattr(options, "train_limit", math.inf), getattr(options, "retry_failed", False), warn,
    )  # fmt: skip


def source_of(name: str) -> str:
    """Where a worker finds the data, whatever folder it was started in."""
    return str(Path(name).absolute()) if name.endswith(".npz") else name


@dataclass(frozen=True)
class Shared:
    """What several searches that train, each in a process of its own, have in common; those processes load the data."""

    source: str
    recipe: Recipe
    seed: int
    store: str
    limit: float

    def trainer(self, generator: arch_generator, lookup: str) -> CellTrainer:
        """Who answers by training in this process."""
        data, store = _opened(self)
        return CellTrainer(
            data, self.source, self.recipe, self.seed, store, training_crew.Here(), generator, lookup, self.limit
        )


def shared(options: argparse.Namespace) -> Shared:
    """What the searches of a command have in common."""
    store = getattr(options, "store", options.out / STORE)
    limit = getattr(options, "train_limit", math.inf)
    seed = getattr(options, "train_seed", 0)
    return Shared(source_of(options.train), recipe_of(options), seed, str(Path(store).absolute()), limit)


@lru_cache(maxsize=1)
def _opened(shared: Shared) -> tuple[Data, TrainingStore]:
    """The data and the store, for a process with one thread that has loaded no JAX yet."""
    if multiprocessing.parent_process() is not None:
        prepare(1, None)
    device(shared.recipe.engine)  # an error in one line, where it cannot compute
    return load(shared.source), TrainingStore(shared.store)


@contextmanager
def training(
    options: argparse.Namespace, data: Data, generator: arch_generator, warn: Callable[[str], None]
) -> Iterator[CellTrainer]:
    """Who answers by training, its workers started and seen to compute; they have ended after this block."""
    with ExitStack() as stack:
        store = stack.enter_context(open_store(options))
        workers = getattr(options, "workers", None)
        if hasattr(options, "cluster"):
            crew = stack.enter_context(training_crew.cluster(options.cluster, workers))
        else:
            crew = stack.enter_context(training_crew.processes(workers or 1))
        asked = recipe_of(options).engine, getattr(options, "keep_best", False)
        crew.name += f", {training_crew.call(crew, device, *asked)}"
        yield trainer_of(options, data, store, crew, generator, warn)


def keep_best(trainer: CellTrainer, history: History, folder: Path) -> str:
    """Train the best cell once more and keep its network; says in a line what was written.

    The weights of trainings are not kept, since all but one would be for nothing. On the machine that made it the
    training comes out the same.
    """
    if not history.best:
        return "there is no best network to keep"
    training, content = training_crew.call(trainer.crew, run_and_keep, trainer.job(best_index(history)))
    if training.outcome != TRAINED:
        why = f"{training.outcome}: {training.reason}"
        return f"the best network could not be kept: trained once more it failed ({why})"
    about = {
        "cell": history.best.to_dict(),
        "data": training.data_name,
        "data_sha256": training.data,
        "images": "as in the data, [number, size, size, colours]; the model scales them",
        "recipe": json.loads(training.recipe.canonical()),
        "seed": training.seed,
        "valid_accuracy": training.accuracy,
        "valid_accuracy_in_the_search": history.best_accuracy,
        "test_accuracy": training.test,
        "parameters": training.parameters,
        "seconds": training.seconds,
        "host": training.host,
        "device": training.device,
    }
    write_atomically(folder / BEST_MODEL, content)
    write_atomically(folder / BEST_ABOUT, (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())
    test = "" if training.test is None else f", test {training.test:.7f}"
    kept = f"valid {training.accuracy:.7f}{test}"
    return printable(f"the best network, trained once more ({kept}): {folder / BEST_MODEL}, {BEST_ABOUT}")
