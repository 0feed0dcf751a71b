"""Methods side by side on one table: ``python compare.py --methods mcts,evolution,random --trials 30``.

All trials have the same table, domain, look-up and metric, and count samples in the same way: *unique valid samples*,
that is, different cells of the table that were asked for. A trial ends when it has the best cell, or with its budget.
The search sees one metric only (--metric); what it found is judged by test accuracy.

Under --out: ``comparison.md`` (the table), ``comparison.json`` (the same as numbers), ``best-so-far`` and
``samples-to-best`` (figures, PNG and SVG), and ``trials/``, one file for each finished trial. A trial that is there
already is not run again, so that a comparison that was interrupted goes on where it was, and one with more trials or
methods costs only what is new. Every file is written whole or not at all, and before anything is printed about it.
"""

import os
import sys

if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:  # it is not under PYTHONSAFEPATH
    sys.path.insert(0, here)

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import argparse
import importlib
import json
import math
import random
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

import baselines
import comparison_protocol
import training_options
import workers
from arch_generator import arch_generator
from comparison_report import OVER, best_is_known, domain, literal, markdown, over_seconds, published_at, summarise
from driver import Driver
from MCTS import MCTS
from method import GeneratorMethod, Method
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.opening import open_table, path_of
from nasbench_dataset.files import printable, read_regular, write_atomically
from nasbench_dataset.table import METRICS, Table, default_path
from net_training import NetTrainer
from noisy_trainer import metric_of, trainer_by
from options import MetaDNNOptions, SearchOptions, from_parts
from saved_trials import LARGEST_FILE, MOST_TRIALS, Trial, check_result
from search import SearchTrainer
from space import LOOKUPS, Space
from training_crew import Here
from training_options import Shared
from training_time import TimedTrainer

PATIENCE = 1_000_000  # proposals without a new sample after which a trial has stalled
AT, AT_FEW = "1000,5000,10000,20000,40000", "10,20,50,100,150,200,300,500"
AT_SECONDS = "100000,1000000,10000000,100000000"  # a training takes about half an hour
TREE_SEARCHES = {"mcts": SearchOptions, "mcts-metadnn": MetaDNNOptions}
METHODS = {**baselines.METHODS, **comparison_protocol.METHODS}


# --- one trial --------------------------------------------------------------------------------


def run_trial(trial: Trial, source: str | None | Shared) -> dict:
    """Run a trial in this process; the dict that its file holds.

    Parameters
    ----------
    trial : Trial
    source : str or Shared, optional
        Where the table is; without it the table that is searched when none is named. Or how cells are trained.

    Returns
    -------
    dict
        ``trial``, ``outcome``, ``samples`` (in all), ``lookups``, ``seconds``, and ``trace``: for each new best
        ``[unique samples, accuracy that guides, test accuracy]``, the last None where it is not known; with a
        table also ``trained``: the seconds of training at each of these, and in all (0 where it has none).
    """
    generator = arch_generator(trial.max_nodes, trial.max_edges)
    if isinstance(source, Shared):
        trainer = source.trainer(generator, trial.lookup)
    else:
        trainer = trainer_by(_table(source), generator, trial.metric, trial.lookup, trial.seed)
    if trainer.fingerprint() != trial.table:
        where = f"the data {source.source}" if isinstance(source, Shared) else f"the table {source or default_path()}"
        raise InputError(f"{where} are others here than where the comparison was started")
    method = new_method(trial.method, trainer.space, trial.seed, trial.samples)
    timed = None if isinstance(source, Shared) else TimedTrainer(trainer, _table(source))
    driver = Driver(method, timed or trainer, trainer.target_accuracy, len(trainer.space.all_cells()))
    started = time.perf_counter()
    outcome = driver.run(trial.samples, trial.patience)
    seconds = time.perf_counter() - started
    history = driver.history
    sampled = list(history.training_trace)
    tests = [trainer.test_accuracy(sampled[place - 1]) for _, place in history.best_trace]
    trace = [[cost, accuracy, test] for cost, (accuracy, _), test in zip(history.costs, history.best_trace, tests)]
    result = {
        "trial": asdict(trial),
        "outcome": outcome.value,
        "samples": history.cost,
        "lookups": history.counter,
        "seconds": round(seconds, 2),
        "trace": trace,
    }
    if timed:
        result["trained"] = [timed.at_sample[place - 1] for _, place in history.best_trace] + [timed.seconds]
    return result


@lru_cache(maxsize=1)
def _table(dataset: str | None) -> Table:
    return open_table(dataset or str(default_path()))


def new_method(method: str, space: Space, seed: int, samples: int | None = None) -> Method:
    """A new search by the method, for a driver that will give it so many samples."""
    name, given = parse_method(method)
    if name == "mcts":
        return MCTS(space, seed, SearchOptions(**given))
    if name == "mcts-metadnn":
        from MCTS_metaDNN import MCTS_metaDNN

        return MCTS_metaDNN(space, seed, MetaDNNOptions(**given))
    proposals = METHODS[name](space, random.Random(seed))
    if samples and name in comparison_protocol.REPEATS_COUNT:
        proposals = comparison_protocol.limited(proposals, samples)
    return GeneratorMethod(proposals, space)


def parse_method(method: str) -> tuple[str, dict[str, Any]]:
    """``"mcts:cp=0.5"`` -> ``("mcts", {"cp": 0.5})``; InputError where there is no such method or option."""
    name, *parts = ALIASES.get(method, method).split(":")
    known = (*TREE_SEARCHES, *ALIASES, *METHODS)
    if name not in known:
        raise InputError(f"unknown method {name!r} in --methods; choose of {', '.join(known)}")
    if parts and name not in TREE_SEARCHES:
        raise InputError(f"{parts[0]!r}: {name} has no options in --methods; the tree searches have, as in mcts:cp=0.5")
    return name, from_parts(TREE_SEARCHES[name], parts, name) if parts else {}


ALIASES = {"tuned": "mcts:preset=tuned"}
NEED_KERAS = ("mcts-metadnn", "predictor", "predictor-enumerating", "top-k")


# --- all trials -------------------------------------------------------------------------------


def run_missing(trials: list[Trial], options: argparse.Namespace, target: float = math.inf) -> list[dict]:
    """The results of all trials: read where they are there, else run, each written as soon as it has ended.

    Parameters
    ----------
    target : float
        The accuracy, of those that guide, with which a trial has found the best cell.
    """
    folder = options.out / "trials"
    results = read_results(folder, trials, target)
    missing = [trial for trial in trials if trial not in results]
    with tqdm(total=len(trials), initial=len(results), unit=" trials", disable=options.quiet) as progress:

        def keep(result: dict) -> None:
            trial = Trial(**result["trial"])
            results[trial] = result
            write_atomically(folder / trial.file_name, (json.dumps(result, allow_nan=False) + "\n").encode())
            progress.set_postfix_str(f"last: {trial.method}, seed {trial.seed}, {result['outcome']}", refresh=False)
            progress.update()

        if missing:
            calls = [(trial, source_of(options)) for trial in missing]
            workers.run_all(run_trial, calls, keep, options.backend, options.jobs, options.cluster)
    return [results[trial] for trial in trials]


def source_of(options: argparse.Namespace) -> str | None | Shared:
    """Where the answers come from, for ``run_trial``."""
    if hasattr(options, "train"):
        return training_options.shared(options)
    # On another machine the project can lie elsewhere, and the table with it; a named one has to be at its place.
    return None if options.dataset == str(default_path()) else str(Path(path_of(options.dataset)).resolve())


def read_results(folder: Path, trials: list[Trial], target: float) -> dict[Trial, dict]:
    """The results of the trials that were run before; it says how many files hold none, and one reason."""
    results, unusable = {}, []
    for trial in trials:
        path = folder / trial.file_name
        try:
            results[trial] = json.loads(read_regular(path, LARGEST_FILE))
            check_result(results[trial], trial, target)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            results.pop(trial, None)
            reason = str(error) if type(error) is ValueError else getattr(error, "strerror", None)
            unusable.append(f"{path.name}: {reason or 'it is damaged'}")
    if unusable:
        count = f"{len(unusable)} trial{'s' if len(unusable) > 1 else ''}"
        print(printable(f"{count} in {folder} cannot be used and will be run again ({unusable[0]})"), file=sys.stderr)
    return results


# --- the command ------------------------------------------------------------------------------


def build_parser() -> command.Parser:
    """The options of the command."""
    parser = command.Parser(description="Compare search methods on one table of NAS-Bench-101 cells.")
    add, number = parser.add_argument, command.whole_number
    known = ", ".join((*TREE_SEARCHES, *ALIASES, *METHODS))
    words = {
        "methods": f"separated by commas, of {known}; a tree search can have options, as in mcts:cp=0.5",
        "samples": "end a trial after so many unique samples; without it when it has the best cell",
        "patience": "end a trial as stalled after so many proposals (tree search: episodes) without a new sample",
        "at": "numbers of samples (--over seconds: seconds) at which the best so far is reported",
        "over": "what tables and figures count: unique samples, or seconds of their trainings (half an hour each)",
        "metric": "that guides the searches, else test, with --train valid; what they find is judged by test accuracy",
        "backend": "processes: on this machine; dask, ray: a cluster",
        "protocol": "the protocol of White et al. with so many queries: 7 vertices, isomorphic lookup, guided by valid,"
        " 200 trials of its own random search, evolution and local search; options that are given change that",
        "cluster": "of a running cluster; without it one is started on this machine",
        "out": "where results go; trials that are there are not run again",
    }
    add("--methods", type=method_list, default="mcts,evolution,random", help=words["methods"])
    add("--trials", type=number(1), default=30, help="of each method, with the seeds 0, 1, 2, ...")
    add("--samples", type=number(1), help=words["samples"])
    add("--patience", type=number(1), default=PATIENCE, metavar="PROPOSALS", help=words["patience"])
    add("--protocol", type=number(1), metavar="QUERIES", help=words["protocol"])
    add("--at", type=sample_numbers, metavar="N,N,...", help=f"{words['at']}; else {AT}, of few samples {AT_FEW}")
    add("--over", choices=OVER, default=OVER[0], help=words["over"])
    add("--max-nodes", type=int, default=arch_generator.MAX_NODES, help="vertices of a cell, 3..7")
    add("--max-edges", type=int, default=arch_generator.MAX_EDGES, help="edges of a cell, 1..9")
    add("--dataset", type=command.path, metavar="PATH", help="the table, as for MCTS.py")
    add("--metric", choices=METRICS, help=words["metric"])
    add("--noisy", action="store_true", help="answer with one of a cell's three runs, drawn by the trial's seed")
    add("--lookup", choices=LOOKUPS, help="as for MCTS.py; the same for all methods")
    add("--jobs", type=number(1), help="trials at a time; without it as many as there are processors")
    add("--backend", choices=workers.BACKENDS, default=workers.BACKENDS[0], type=backend, help=words["backend"])
    add("--cluster", type=command.address, metavar="ADDRESS", help=words["cluster"])
    add("--out", type=command.path, default=Path("comparison"), metavar="DIR", help=words["out"])
    add("--quiet", action="store_true", help="no progress line")
    training_options.add_options(parser, one_search=False)
    return parser


def sample_numbers(text: str) -> tuple[int, ...]:
    """An argparse type: whole numbers separated by commas, ascending."""
    return tuple(sorted(map(command.whole_number(1), text.split(","))))


def method_list(text: str) -> list[str]:
    """An argparse type: methods separated by commas, each once; spaces do not count."""
    methods = list(dict.fromkeys("".join(text.split()).split(",")))
    try:
        for method in methods:
            parse_method(method)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return methods


def backend(text: str) -> str:
    """An argparse type: where trials run; ``loky`` was the name of this machine's processes before."""
    return {"loky": workers.BACKENDS[0]}.get(text, text)


def main(argv: list[str] | None = None) -> int:
    """Run ``python compare.py``; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.protocol:
        defaults = {"methods": [*comparison_protocol.METHODS], "trials": comparison_protocol.TRIALS}
        parser.set_defaults(samples=options.protocol, **defaults, **comparison_protocol.SETTINGS)
        options = parser.parse_args(argv)
    if options.cluster and options.backend == workers.BACKENDS[0]:
        raise InputError("--cluster needs --backend dask or ray")
    if options.trials * len(options.methods) > MOST_TRIALS:
        raise InputError(f"more than {MOST_TRIALS:,} trials in all; choose a smaller --trials")
    check_packages(options.methods)
    few = options.samples is not None and options.samples < sample_numbers(AT)[0]
    options.at = options.at or sample_numbers(AT_SECONDS if options.over == "seconds" else AT_FEW if few else AT)
    if training_options.wanted(options, one_search=False):
        return compare_by_training(options)
    options.metric, options.lookup = metric_of(options), options.lookup or "exact"
    if options.noisy and not options.samples:
        raise InputError("--noisy needs --samples: with noise nobody knows when the best cell is found")
    options.dataset = str(options.dataset or default_path())
    table = open_table(options.dataset)
    if "test" not in table.columns:
        raise InputError(f"the table {options.dataset} has no test accuracies, by which methods are judged")
    if options.over == "seconds" and "train_seconds" not in table.columns:
        raise InputError(f"the table {options.dataset} has no seconds of training, which --over seconds needs")
    trainer = trainer_by(table, arch_generator(options.max_nodes, options.max_edges), options.metric, options.lookup)
    target = math.inf if trainer.target_accuracy is None else trainer.target_accuracy
    results = run_missing(all_trials(options, trainer), options, target)
    best_test = NetTrainer(table, trainer.generator, "test", options.lookup).target_accuracy
    surrogate = "surrogate table, fitted to published measurements, not NAS-Bench-101 itself"
    kind = "measured table" if table.measured else surrogate
    report(results, options, best_test, printable(table.describe()), kind)
    return 0


def compare_by_training(options: argparse.Namespace) -> int:
    """Compare methods that train cells, each trial in a process of its own; what one has trained, others need not."""
    if options.over == "seconds":
        raise InputError("--over seconds is for tables; leave it out with --train")
    if options.backend != workers.BACKENDS[0]:
        raise InputError("--train compares on this machine only: leave --backend out")
    if not options.samples:
        raise InputError("--train needs --samples, the number of trainings after which a trial ends")
    options.metric, options.lookup = "valid", options.lookup or "isomorphic"
    generator = arch_generator(options.max_nodes, options.max_edges)
    data = training_options.load_for(options, generator)
    if data.test is None:
        raise InputError(f"{options.train} has no test part (x_test, y_test), by which methods are judged")
    prepare_folder(options.out)
    with training_options.open_store(options) as store:
        trainer = training_options.trainer_of(options, data, store, Here(), generator)
        trials = all_trials(options, trainer)
        source = trainer.describe()
    results = run_missing(trials, options)
    best_test = max((test for result in results for *_, test in result["trace"]), default=0.0)
    words = "Regret is against the best test accuracy that any of these trials has found"
    report(results, options, best_test, f"{source}\n\n{words}", f"cells trained on {printable(data.name)}")
    return 0


def all_trials(options: argparse.Namespace, trainer: SearchTrainer) -> list[Trial]:
    """The trials that the command line wants, all methods seen to work here, and a folder to receive them."""
    check_methods(options.methods, trainer)
    prepare_folder(options.out)
    table = trainer.fingerprint()
    return [new_trial(method, seed, options, table) for method in options.methods for seed in range(options.trials)]


def check_packages(methods: list[str]) -> None:
    """See that what is needed besides the searches can be imported, before hours are spent."""
    importlib.import_module("comparison_figures")
    names = {parse_method(method)[0] for method in methods}
    if names & set(NEED_KERAS):
        import keras_backend

        keras_backend.check()
    if "mcts-metadnn" in names:
        workers.import_needed("scipy", "-r requirements.txt")


def prepare_folder(out: Path) -> None:
    """Create the folder of results, and see that it can be written to, before hours are spent."""
    try:
        for folder in (out, out / "trials"):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise InputError(f"cannot write to --out {out}: {error.strerror}; choose another folder") from error


def new_trial(method: str, seed: int, options, table: str) -> Trial:
    """A trial as the command line wants it."""
    names = "max_nodes", "max_edges", "metric", "lookup", "samples", "patience"
    own = json.dumps(parse_method(method)[1], sort_keys=True)
    return Trial(method, own, seed, *(getattr(options, name) for name in names), table)


def check_methods(methods: list[str], trainer: SearchTrainer) -> None:
    """Let a method that cannot work here say so before hours are spent on others."""
    for method in methods:
        name, _ = parse_method(method)
        if name in METHODS:
            next(METHODS[name](trainer.space, random.Random(0)), None)


def report(results: list[dict], options: argparse.Namespace, best_test: float, source: str, kind: str) -> None:
    """Write the files of the comparison, then print it.

    Parameters
    ----------
    best_test : float
        The test accuracy that regret is measured against.
    source, kind : str
        Where the accuracies come from, in words; and shortly.
    """
    from comparison_figures import draw

    groups = defaultdict(list)
    for result in results:
        groups[result["trial"]["method"]].append(over_seconds(result) if options.over == "seconds" else result)
    most = min(options.samples or math.inf, cells.cell_count(options.max_nodes))
    most = math.inf if options.over == "seconds" else most
    at = [n for n in options.at if n <= most]
    summaries = [summarise(method, of_method, best_test, at) for method, of_method in groups.items()]
    text = markdown(summaries, options, [literal(source), "", f"{domain(options)}."])
    if options.protocol:
        text += "\n".join(["", *comparison_protocol.errors_table(groups), ""])
    settings = {k: v for k, v in results[0]["trial"].items() if k not in ("method", "options", "seed")}
    numbers = {"settings": {**settings, "trials": options.trials}, "best_test": best_test, "methods": summaries}
    write_atomically(options.out / "comparison.md", text.encode())
    write_atomically(options.out / "comparison.json", (json.dumps(numbers, indent=1, allow_nan=False) + "\n").encode())
    caption = f"{domain(options)}.\nHere: {kind}."
    if published_at(options):
        caption += " Published: on NAS-Bench-101 itself."
    draw(groups, options, best_test, caption)
    figures = "best-so-far and samples-to-best" if best_is_known(options) else "best-so-far"
    files = f"comparison.md, comparison.json, {figures} (.png, .svg)"
    print(f"{text}\nwritten to {printable(options.out)}/: {files}")


if __name__ == "__main__":
    import compare  # not as __main__, which other processes could not import

    command.run(compare.main)
