"""Methods side by side on one table: ``python compare.py --methods mcts,evolution,random --trials 30``.

All trials have the same table, domain, look-up and metric, and count samples in the same way: *unique valid samples*,
that is, different cells of the table that were asked for. A trial ends when it has the best cell, or with its budget.
The search sees one metric only (--metric); what it found is judged by test accuracy.

Under --out: ``comparison.md`` (the table), ``comparison.json`` (the same as numbers), ``best-so-far`` and
``samples-to-best`` (figures, PNG and SVG), and ``trials/``, one file for each finished trial. A trial that is there
already is not run again, so that a comparison that was interrupted goes on where it was, and one with more trials or
methods costs only what is new.
"""

import argparse
import hashlib
import importlib
import json
import random
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
from tqdm import tqdm

import baselines
from arch_generator import arch_generator
from comparison_figures import draw
from comparison_report import markdown, published_at, summarise
from driver import Driver
from MCTS import MCTS
from method import GeneratorMethod, Method
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.convert import open_table
from nasbench_dataset.files import write_atomically
from nasbench_dataset.table import METRICS, Table, default_path
from net_training import NetTrainer
from options import MetaDNNOptions, SearchOptions, from_parts
from space import LOOKUPS, Space

PATIENCE = 1_000_000  # proposals without a new sample after which a trial has stalled
AT = "1000,5000,10000,20000,40000"
ENGINES = ("loky", "dask", "ray")  # joblib's processes on this machine; a cluster
TREE_SEARCHES = {"mcts": SearchOptions, "mcts-metadnn": MetaDNNOptions}


# --- one trial --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """Everything that decides what one trial finds.

    Attributes
    ----------
    method : str
        A name that ``parse_method`` knows; a tree search can have options after it, as in ``mcts:cp=0.5``.
    options : str
        The options of the method, as JSON: what an alias or a preset stands for may change.
    table : str
        SHA-256 of the accuracies.
    """

    method: str
    options: str
    seed: int
    max_nodes: int
    max_edges: int
    metric: str
    lookup: str
    samples: int | None
    patience: int
    table: str

    @property
    def file_name(self) -> str:
        """Another one for each other trial."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.method.replace(':', '_')}-{self.seed}-{digest[:16]}.json"


def run_trial(trial: Trial, dataset: str | None) -> dict:
    """Run a trial in this process; the dict that its file holds.

    Parameters
    ----------
    trial : Trial
    dataset : str, optional
        Where the table is; by default the table that is searched when none is named.

    Returns
    -------
    dict
        ``trial``, ``outcome``, ``samples`` (in all), ``lookups``, ``seconds``, and ``trace``: for each new best
        ``[unique samples, accuracy that guides, test accuracy]``.
    """
    table = _table(dataset)
    trainer = NetTrainer(table, arch_generator(trial.max_nodes, trial.max_edges), trial.metric, trial.lookup)
    if trainer.fingerprint() != trial.table:
        where = dataset or default_path()
        raise InputError(f"the table {where} is another one here than where the comparison was started")
    method = new_method(trial.method, trainer.space, trial.seed)
    driver = Driver(method, trainer, trainer.target_accuracy, len(trainer.space.all_cells()))
    started = time.perf_counter()
    outcome = driver.run(trial.samples, trial.patience)
    seconds = time.perf_counter() - started
    history, test = driver.history, table.columns["test"]
    sampled = list(history.training_trace)
    trace = [
        [cost, accuracy, float(test[sampled[place - 1]])]
        for cost, (accuracy, place) in zip(history.costs, history.best_trace)
    ]
    return {
        "trial": asdict(trial),
        "outcome": outcome.value,
        "samples": history.cost,
        "lookups": history.counter,
        "seconds": round(seconds, 2),
        "trace": trace,
    }


@lru_cache(maxsize=1)
def _table(dataset: str | None) -> Table:
    return open_table(dataset or str(default_path()))


def new_method(method: str, space: Space, seed: int) -> Method:
    """A new search by the method, for a driver."""
    name, given = parse_method(method)
    if name == "mcts":
        return MCTS(space, seed, SearchOptions(**given))
    if name == "mcts-metadnn":
        from MCTS_metaDNN import MCTS_metaDNN

        return MCTS_metaDNN(space, seed, MetaDNNOptions(**given))
    return GeneratorMethod(baselines.METHODS[name](space, random.Random(seed)), space)


def parse_method(method: str) -> tuple[str, dict[str, Any]]:
    """``"mcts:cp=0.5"`` -> ``("mcts", {"cp": 0.5})``; InputError where there is no such method or option."""
    name, *parts = ALIASES.get(method, method).split(":")
    known = (*TREE_SEARCHES, *ALIASES, *baselines.METHODS)
    if name not in known:
        raise InputError(f"unknown method {name!r} in --methods; choose of {', '.join(known)}")
    if parts and name not in TREE_SEARCHES:
        raise InputError(f"{parts[0]!r}: {name} has no options in --methods; only the tree searches have, as in mcts:cp=0.5")
    return name, from_parts(TREE_SEARCHES[name], parts, name) if parts else {}


ALIASES = {"tuned": "mcts:preset=tuned"}
NEED_KERAS = ("mcts-metadnn", "predictor", "predictor-enumerating")


# --- all trials -------------------------------------------------------------------------------


def run_missing(trials: list[Trial], options) -> list[dict]:
    """The results of all trials: read where they are there, else run, each written as soon as it has ended."""
    folder = options.out / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    results = {trial: read_result(folder / trial.file_name, trial) for trial in trials}
    missing = [trial for trial in trials if results[trial] is None]
    progress = tqdm(total=len(trials), initial=len(trials) - len(missing), unit=" trials", disable=options.quiet)
    with progress:
        for result in run_parallel(missing, options):
            trial = Trial(**result["trial"])
            results[trial] = result
            write_atomically(folder / trial.file_name, (json.dumps(result) + "\n").encode())
            progress.set_postfix_str(f"last: {trial.method}, seed {trial.seed}, {result['outcome']}", refresh=False)
            progress.update()
    return [results[trial] for trial in trials]


def read_result(path: Path, trial: Trial) -> dict | None:
    """The result of a trial that was run before; None where there is none, or where it is damaged."""
    try:
        result = json.loads(path.read_bytes())
        complete = result["trial"] == asdict(trial) and {"outcome", "samples", "lookups", "seconds"} <= result.keys()
        np.array(result["trace"], float).reshape(-1, 3)
        return result if complete else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def run_parallel(trials: list[Trial], options) -> Iterator[dict]:
    """Run trials in parallel; their results, in the order in which they end."""
    from joblib import Parallel, delayed

    if not trials:
        return
    # On another machine the project can lie elsewhere, and the table with it; a named one has to be at its place.
    dataset = None if options.dataset == str(default_path()) else str(Path(options.dataset).resolve())
    with engine(options):
        # Ray cannot hand results over one by one: there, they come whenever so many have ended.
        at_once = len(trials) if options.backend != "ray" else 4 * (options.jobs or 16)
        returned = "generator_unordered" if options.backend != "ray" else "list"
        with Parallel(options.jobs or -1, batch_size=1, pre_dispatch="2*n_jobs", return_as=returned) as parallel:
            for start in range(0, len(trials), at_once):
                yield from parallel(delayed(run_trial)(trial, dataset) for trial in trials[start : start + at_once])


@contextmanager
def engine(options) -> Iterator[None]:
    """Joblib computes with the wanted engine within."""
    import joblib

    if options.backend == "loky":
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            yield
    elif options.backend == "dask":
        distributed = _import("distributed", "dask distributed")
        local = {} if options.cluster else {"n_workers": options.jobs, "threads_per_worker": 1}
        with distributed.Client(options.cluster, **local), joblib.parallel_config("dask"):
            yield
    else:
        ray = _import("ray", "ray")
        from ray.util.joblib import register_ray

        here = {"working_dir": str(Path(__file__).parent), "excludes": [".git", "results*", "comparison*"]}
        processors = None if options.cluster else options.jobs
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(options.cluster, num_cpus=processors, runtime_env=here, **quiet)
        register_ray()
        try:
            with joblib.parallel_config("ray"):
                yield
        finally:
            ray.shutdown()


def _import(name: str, install: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{name} is needed for this and cannot be imported ({error}); pip install {install}"
        raise InputError(message) from error


# --- the command ------------------------------------------------------------------------------


def build_parser() -> command.Parser:
    """The options of the command."""
    parser = command.Parser(description="Compare search methods on one table of NAS-Bench-101 cells.")
    add, number = parser.add_argument, command.whole_number
    known = ", ".join((*TREE_SEARCHES, *ALIASES, *baselines.METHODS))
    words = {
        "methods": f"separated by commas, of {known}; a tree search can have options, as in mcts:cp=0.5",
        "samples": "end a trial after so many unique samples; without it when it has the best cell",
        "patience": "end a trial as stalled after so many proposals (tree search: episodes) without a new sample",
        "at": "numbers of samples at which the best so far is reported",
        "metric": "the accuracy that guides the searches; what they find is judged by test accuracy",
        "out": "where results go; trials that are there are not run again",
    }
    add("--methods", default="mcts,evolution,random", help=words["methods"])
    add("--trials", type=number(1), default=30, help="of each method, with the seeds 0, 1, 2, ...")
    add("--samples", type=number(1), help=words["samples"])
    add("--patience", type=number(1), default=PATIENCE, metavar="PROPOSALS", help=words["patience"])
    add("--at", type=sample_numbers, default=AT, metavar="N,N,...", help=words["at"])
    add("--max-nodes", type=int, default=arch_generator.MAX_NODES, help="vertices of a cell, 3..7")
    add("--max-edges", type=int, default=arch_generator.MAX_EDGES, help="edges of a cell, 1..9")
    add("--dataset", metavar="PATH", help="the table, as for MCTS.py")
    add("--metric", choices=METRICS, default="test", help=words["metric"])
    add("--lookup", choices=LOOKUPS, default="exact", help="as for MCTS.py; the same for all methods")
    add("--jobs", type=number(1), help="trials at a time; without it as many as there are processors")
    add("--backend", choices=ENGINES, default="loky", help="loky: processes on this machine; dask, ray: a cluster")
    add("--cluster", metavar="ADDRESS", help="of a running cluster; without it one is started on this machine")
    add("--out", type=Path, default=Path("comparison"), metavar="DIR", help=words["out"])
    add("--quiet", action="store_true", help="no progress line")
    return parser


def sample_numbers(text: str) -> tuple[int, ...]:
    """An argparse type: whole numbers separated by commas, ascending."""
    return tuple(sorted(map(command.whole_number(1), text.split(","))))


def main(argv: list[str] | None = None) -> int:
    """Run ``python compare.py``; returns the exit status."""
    options = build_parser().parse_args(argv)
    methods = list(dict.fromkeys(options.methods.split(",")))
    needed = ["joblib", "matplotlib"]
    if any(parse_method(method)[0] in NEED_KERAS for method in methods):
        needed.append("meta_dnn")  # which chooses the backend before it imports Keras
    for package in needed:  # before hours are spent
        _import(package, "-r requirements-compare.txt")
    if options.cluster and options.backend == "loky":
        raise InputError("--cluster needs --backend dask or ray")
    options.dataset = str(options.dataset or default_path())
    table = open_table(options.dataset)
    if "test" not in table.columns:
        raise InputError(f"the table {options.dataset} has no test accuracies, by which methods are judged")
    trainer = NetTrainer(table, arch_generator(options.max_nodes, options.max_edges), options.metric, options.lookup)
    check_methods(methods, trainer)
    table_is = trainer.fingerprint()
    trials = [new_trial(method, seed, options, table_is) for method in methods for seed in range(options.trials)]
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        results = run_missing(trials, options)
        report(results, options, table, trainer)
    except OSError as error:
        raise InputError(f"cannot write to --out {options.out}: {error.strerror}; choose another folder") from error
    return 0


def new_trial(method: str, seed: int, options, table: str) -> Trial:
    """A trial as the command line wants it."""
    names = "max_nodes", "max_edges", "metric", "lookup", "samples", "patience"
    own = json.dumps(parse_method(method)[1], sort_keys=True)
    return Trial(method, own, seed, *(getattr(options, name) for name in names), table)


def check_methods(methods: list[str], trainer: NetTrainer) -> None:
    """Let a method that cannot work here say so before hours are spent on others."""
    for method in methods:
        name, _ = parse_method(method)
        if name in baselines.METHODS:
            next(baselines.METHODS[name](trainer.space, random.Random(0)))


def report(results: list[dict], options, table: Table, trainer: NetTrainer) -> None:
    """Print the comparison and write its files."""
    groups = defaultdict(list)
    for result in results:
        groups[result["trial"]["method"]].append(result)
    best_test = NetTrainer(table, trainer.generator, "test", options.lookup).target_accuracy
    most = options.samples or cells.cell_count(options.max_nodes)
    at = [n for n in options.at if n <= most]
    summaries = [summarise(method, of_method, best_test, at) for method, of_method in groups.items()]
    size = f"up to {options.max_nodes} vertices and {options.max_edges} edges"
    domain = f"{size}, {options.lookup} lookup, guided by {options.metric} accuracy"
    limit = f", at most {options.samples:,} samples" if options.samples else ""
    heading = [f"{table.describe()}", "", f"{domain}; {options.trials} trials of each method{limit}."]
    text = markdown(summaries, options, heading)
    settings = {k: v for k, v in results[0]["trial"].items() if k not in ("method", "options", "seed")}
    numbers = {"settings": {**settings, "trials": options.trials}, "best_test": best_test, "methods": summaries}
    write_atomically(options.out / "comparison.md", text.encode())
    write_atomically(options.out / "comparison.json", (json.dumps(numbers, indent=1) + "\n").encode())
    surrogate = "surrogate table, fitted to published measurements, not NAS-Bench-101 itself"
    kind = "measured table" if table.measured else surrogate
    caption = f"{domain}{limit};\nn = {options.trials} trials a method. Here: {kind}."
    if published_at(options):
        caption += "\nPublished: on NAS-Bench-101 itself."
    draw(groups, options, best_test, caption)
    files = "comparison.md, comparison.json, best-so-far and samples-to-best (.png, .svg)"
    print(f"{text}\nwritten to {options.out}/: {files}")


if __name__ == "__main__":
    import compare  # not as __main__, which other processes could not import

    command.run(compare.main)
