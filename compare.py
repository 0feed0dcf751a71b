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
import math
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
from MCTS import BACKUPS, CP_RANGE, PRESETS, MCTS
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.convert import open_table
from nasbench_dataset.files import write_atomically
from nasbench_dataset.table import METRICS, Table, default_path
from net_training import LOOKUPS, NetTrainer

PATIENCE = 1_000_000  # proposals without a new sample after which a trial has stalled
AT = "1000,5000,10000,20000,40000"
ENGINES = ("loky", "dask", "ray")  # joblib's processes on this machine; a cluster
TREE_SEARCHES = ("mcts", "mcts-metadnn")

# Published for NAS-Bench-101 itself (SPEC.md, section 6): up to 6 vertices, exact lookup, test accuracy, 114 runs.
PUBLISHED_SAMPLES = {  # mean, standard deviation, quartiles, least and most unique samples to the best cell
    "mcts": (10_367, 4_320, (7_713, 10_977, 13_298), (321, 21_259)),
    "evolution": (29_648, 14_564, (18_780, 30_439, 40_957), (819, 60_562)),
    "random": (32_244, 19_159, (14_843, 31_710, 48_340), (272, 64_225)),
}
PUBLISHED_BEST = {  # mean best test accuracy after so many samples
    "mcts": {5_000: 0.94220, 10_000: 0.94225, 20_000: 0.94233},
    "evolution": {5_000: 0.94212, 10_000: 0.94222, 20_000: 0.94224},
    "random": {5_000: 0.94120, 10_000: 0.94164, 20_000: 0.94201},
}
PUBLISHED_REGRET_7 = {  # mean test regret, all 423,624 cells
    "mcts": {1_000: 0.00353, 10_000: 0.00088, 40_000: 0.00077},
    "bohb": {1_000: 0.00369, 10_000: 0.00158, 40_000: 0.00118},
    "smac": {1_000: 0.00370, 10_000: 0.00201, 40_000: 0.00142},
    "evolution": {1_000: 0.00439, 10_000: 0.00255, 40_000: 0.00148},
    "hyperband": {1_000: 0.00480, 10_000: 0.00284, 40_000: 0.00165},
    "tpe": {1_000: 0.00529, 10_000: 0.00346, 40_000: 0.00238},
    "random": {1_000: 0.00508, 10_000: 0.00272, 40_000: 0.00173},
}


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
        raise InputError(f"the table {dataset or default_path()} is another one here than where the comparison was started")
    search = new_search(trial.method, trainer, trial.seed)
    started = time.perf_counter()
    outcome = search.search(trial.samples, trial.patience)
    seconds = time.perf_counter() - started
    sampled = list(trainer.training_trace)
    test = table.columns["test"]
    costs = getattr(search, "costs", [samples for _, samples in trainer.best_trace])
    trace = [
        [cost, accuracy, float(test[sampled[place - 1]])] for cost, (accuracy, place) in zip(costs, trainer.best_trace)
    ]
    return {
        "trial": asdict(trial),
        "outcome": outcome,
        "samples": getattr(search, "cost", trainer.unique_samples),
        "lookups": trainer.counter,
        "seconds": round(seconds, 2),
        "trace": trace,
    }


@lru_cache(maxsize=1)
def _table(dataset: str | None) -> Table:
    return open_table(dataset or str(default_path()))


def new_search(method: str, trainer: NetTrainer, seed: int) -> "MCTS | baselines.Search":
    """A new search by the method, to be started by ``.search(samples, patience)``."""
    name, options = parse_method(method)
    if name == "mcts":
        return MCTS(trainer, seed, **options)
    if name == "mcts-metadnn":
        from MCTS_metaDNN import MCTS_metaDNN

        return MCTS_metaDNN(trainer, seed, **options)
    return baselines.Search(name, trainer, seed)


def parse_method(method: str) -> tuple[str, dict[str, Any]]:
    """``"mcts:cp=0.5"`` -> ``("mcts", {"cp": 0.5})``; InputError where there is no such method or option."""
    name, *parts = ALIASES.get(method, method).split(":")
    known = (*TREE_SEARCHES, *ALIASES, *baselines.METHODS)
    if name not in known:
        raise InputError(f"unknown method {name!r} in --methods; choose of {', '.join(known)}")
    kinds = {"mcts": OPTIONS | {"guide": command.whole_number(0)}, "mcts-metadnn": OPTIONS | META_DNN_OPTIONS}.get(name, {})
    options: dict[str, Any] = {}
    for part in parts:
        key, _, value = part.partition("=")
        try:
            given = kinds[key](value)
        except (KeyError, argparse.ArgumentTypeError) as error:
            raise InputError(
                f"{part!r} is no option of {name} in --methods; its options: {', '.join(kinds) or 'none'}, as in mcts:cp=0.5"
            ) from error
        options |= given if key == "preset" else {key: given}
    return name, options


ALIASES = {"tuned": "mcts:preset=tuned"}
NEED_KERAS = ("mcts-metadnn", "predictor", "predictor-enumerating")
OPTIONS: dict[str, Callable[[str], Any]] = {
    "preset": PRESETS.__getitem__,
    "cp": CP_RANGE,
    "backup": {name: name for name in BACKUPS}.__getitem__,
    "close_exhausted": {"yes": True, "no": False}.__getitem__,
}
META_DNN_OPTIONS: dict[str, Callable[[str], Any]] = {
    "rollouts": command.whole_number(0),
    "fit_every": command.whole_number(2),
    "epochs": command.whole_number(1),
}


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
        ray.init(options.cluster, num_cpus=None if options.cluster else options.jobs, runtime_env=here, log_to_driver=False, logging_level="ERROR")
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
        raise InputError(f"{name} is needed for this and cannot be imported ({error}); pip install {install}") from error


# --- figures of the whole ---------------------------------------------------------------------


def at_samples(trace: list[list[float]], places: np.ndarray) -> np.ndarray:
    """Test accuracy of the best so far after so many samples; NaN before the first."""
    if not trace:
        return np.full(len(places), np.nan)
    costs, _, values = np.array(trace).T
    place = np.searchsorted(costs, places, "right") - 1
    return np.where(place < 0, np.nan, values[place])


def summarise(method: str, results: list[dict], best_test: float, at: list[int]) -> dict:
    """The statistics of one method.

    Returns
    -------
    dict
        ``solved``: share of trials that found the best cell; ``samples_to_best``: mean and sd of those, and
        quartiles of all trials, where one that did not find it counts as more than any (None); ``at``: mean test
        accuracy and mean test regret of the best so far after the numbers of samples in ``at``, as far as all trials
        went that did not end before.
    """
    needed = [result["samples"] for result in results if result["outcome"] == "found"]
    censored = np.array(needed + [math.inf] * (len(results) - len(needed)))
    quartiles = np.quantile(censored, (0.25, 0.5, 0.75), method="inverted_cdf").tolist()
    places = np.array(at, int)
    ran_out = [r["samples"] for r in results if r["outcome"] == "samples"]
    accuracies = np.array([at_samples(result["trace"], places) for result in results])
    reached = [n for n in places.tolist() if not ran_out or n <= min(ran_out)]
    return {
        "method": method,
        "trials": len(results),
        "solved": len(needed) / len(results),
        "stalled": sum(result["outcome"] == "stalled" for result in results),
        "samples_to_best": {
            "mean": float(np.mean(needed)) if needed else None,
            "sd": float(np.std(needed, ddof=1)) if len(needed) > 1 else None,
            "quartiles": [None if math.isinf(q) else q for q in quartiles],
        },
        "at": {
            n: {"test": float(np.mean(found)), "regret": float(np.mean(best_test - found))}
            for n, found in zip(places.tolist(), accuracies.T)
            if n in reached
        },
        "seconds": float(np.mean([result["seconds"] for result in results])),
    }


def published_at(options) -> dict[str, dict[int, float]]:
    """Published mean test regret after so many samples, by method; empty for other domains than the published ones."""
    if options.max_nodes == 7:
        return PUBLISHED_REGRET_7
    best = 0.9423411  # of up to 6 vertices (SPEC.md, section 2)
    published = PUBLISHED_BEST if published_samples(options) else {}
    return {name: {n: best - test for n, test in values.items()} for name, values in published.items()}


def published_samples(options) -> dict:
    """Published samples to the best cell, by method; empty for another domain, lookup or metric."""
    same = (options.max_nodes, options.max_edges, options.lookup, options.metric) == (6, 9, "exact", "test")
    return PUBLISHED_SAMPLES if same else {}


def markdown(summaries: list[dict], options, heading: list[str]) -> str:
    """The comparison as text: samples to the best cell, then test accuracy and regret on the way."""
    lines = ["# Comparison", "", *heading, ""]
    lines += ["Unique samples to the best cell (mean and sd of the trials that found it; quartiles of all):", ""]
    lines += ["| method | trials | solved | mean ± sd | Q1 / median / Q3 | seconds a trial |", "|-|-|-|-|-|-|"]
    for s in summaries:
        samples = s["samples_to_best"]
        spread = f" ± {samples['sd']:,.0f}" if samples["sd"] is not None else ""
        mean = "-" if samples["mean"] is None else f"{samples['mean']:,.0f}{spread}"
        quartiles = " / ".join("more" if q is None else f"{q:,.0f}" for q in samples["quartiles"])
        lines.append(f"| {s['method']} | {s['trials']} | {s['solved']:.0%} | {mean} | {quartiles} | {s['seconds']:.1f} |")
    for name, (mean, sd, quartiles, _) in published_samples(options).items():
        words = " / ".join(f"{q:,}" for q in quartiles)
        lines.append(f"| *{name}, published for NAS-Bench-101 itself* | 114 | 100% | {mean:,} ± {sd:,} | {words} | |")
    places = sorted({n for s in summaries for n in s["at"]})
    if places:
        lines += ["", "Mean test accuracy (mean test regret) of the best so far after so many unique samples:", ""]
        lines += ["| method | " + " | ".join(f"{n:,}" for n in places) + " |", "|-" * (len(places) + 1) + "|"]
        for s in summaries:
            here = [s["at"].get(n) for n in places]
            words = [f"{v['test']:.5f} ({v['regret']:.5f})" if v else "-" for v in here]
            lines.append(f"| {s['method']} | " + " | ".join(words) + " |")
        for name, regrets in published_at(options).items():
            words = [f"({regrets[n]:.5f})" if n in regrets else "" for n in places]
            lines.append(f"| *{name}, published for NAS-Bench-101 itself* | " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


# --- pictures ---------------------------------------------------------------------------------

# Okabe and Ito's colours, told apart by the colour-blind, with a line style each.
COLOURS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C"
DASHES = "-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))
MARKERS = "o", "s", "^", "D", "v", "P", "X", "*"


def draw(groups: dict[str, list[dict]], options, best_test: float, caption: str) -> None:
    """Both figures, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "compare", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    styles = {m: (COLOURS[i % 8], DASHES[(i + i // 8) % 8], MARKERS[i % 8]) for i, m in enumerate(groups)}
    boxes = "Boxes: quartiles and median of the trials that found it; diamond: mean; whiskers: least and most.\n"
    for name, figure, more in (
        ("best-so-far", draw_best_so_far(groups, options, best_test, styles), ""),
        ("samples-to-best", draw_samples_to_best(groups, options, styles), boxes),
    ):
        figure.text(0.01, 0.01, more + caption, fontsize=8, va="bottom")
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            figure.savefig(options.out / f"{name}.{kind}", dpi=150, metadata=metadata)


def draw_best_so_far(groups: dict[str, list[dict]], options, best_test: float, styles: dict):
    """Test accuracy of the best so far: median and quartiles; mean test regret, with what was published."""
    from matplotlib.figure import Figure

    lengths = [result["samples"] for results in groups.values() for result in results]
    first = max(1, min(10, *lengths))
    places = np.unique(np.geomspace(first, max(first + 1, *lengths), 200).round())
    figure = Figure(figsize=(11, 5.2))
    left, right = figure.subplots(1, 2)
    lows, published = [], published_at(options)
    for method, results in groups.items():
        colour, dash, marker = styles[method]
        curves = np.array([at_samples(result["trace"], places) for result in results])
        budget = min((r["samples"] for r in results if r["outcome"] == "samples"), default=math.inf)
        shown = places <= budget
        low, median, high = np.quantile(curves[:, shown], (0.25, 0.5, 0.75), axis=0)
        lows.append(low[places[shown] >= min(100, places[shown][-1])])
        left.plot(places[shown], median, color=colour, ls=dash, label=method)
        left.fill_between(places[shown], low, high, color=colour, alpha=0.15, lw=0)
        regret = (best_test - curves[:, shown]).mean(axis=0)
        right.plot(places[shown], np.where(regret > 0, regret, np.nan), color=colour, ls=dash, label=method)
        points = published.get(method.partition(":")[0], {})
        if points:
            label = f"{method.partition(':')[0]}, published"
            right.plot(list(points), list(points.values()), marker, color=colour, mfc="white", ms=7, label=label)
    left.axhline(best_test, color="black", lw=0.8, ls=(0, (2, 2)))
    left.annotate("best cell of the domain", (places[0], best_test), (0, 3), textcoords="offset points", fontsize=8)
    left.set_ylim(min(map(np.min, lows)) - 0.0005, best_test + 0.0008)
    left.set_ylabel("test accuracy of the best so far\n(median, band: quartiles)")
    right.set_ylabel("mean test regret of the best so far")
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("unique valid samples")
        axes.grid(alpha=0.25, lw=0.5)
    right.legend(*_unique_legend(right), fontsize=8, frameon=False, loc="lower left")
    figure.tight_layout(rect=(0, 0.11, 1, 1))
    return figure


def _unique_legend(axes) -> tuple[list, list]:
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    return list(handles.values()), list(handles)


def draw_samples_to_best(groups: dict[str, list[dict]], options, styles: dict):
    """Boxes of the unique samples to the best cell; published ones beside ours, hatched."""
    from matplotlib.figure import Figure

    boxes, published = [], published_samples(options)
    for method, results in groups.items():
        needed = [result["samples"] for result in results if result["outcome"] == "found"]
        label = method if len(needed) == len(results) else f"{method}\n{len(needed)} of {len(results)} solved"
        boxes.append((label, styles[method][0], needed, None))
        if method in published:
            boxes.append((f"{method}\npublished", styles[method][0], None, published[method]))
    figure = Figure(figsize=(max(8.0, 1.3 * len(boxes) + 1), 5.2))
    axes = figure.subplots()
    for place, (_, colour, needed, given) in enumerate(boxes):
        look = {"facecolor": colour, "alpha": 0.45} if given is None else {"facecolor": "white", "edgecolor": colour, "hatch": "///"}
        common = {"patch_artist": True, "widths": 0.6, "boxprops": look, "medianprops": {"color": "black"}, "showmeans": True}
        common["meanprops"] = {"marker": "D", "mfc": "black", "mec": "black", "ms": 5}
        if given is not None:
            mean, _, (q1, median, q3), (least, most) = given
            box = {"med": median, "q1": q1, "q3": q3, "whislo": least, "whishi": most, "mean": mean}
            axes.bxp([box], positions=[place], showfliers=False, **common)
        elif needed:
            axes.boxplot([needed], positions=[place], whis=(0, 100), **common)
            axes.plot(np.full(len(needed), place) + np.linspace(-0.2, 0.2, len(needed)), needed, ".", color=colour, ms=4)
    axes.set_xticks(range(len(boxes)), [box[0] for box in boxes])
    axes.set_xlim(-0.5, len(boxes) - 0.5)
    axes.set_yscale("log")  # one method can need a hundred times as many as another
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("unique valid samples to the best cell")
    axes.grid(axis="y", which="both", alpha=0.25, lw=0.5)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    return figure


# --- the command ------------------------------------------------------------------------------


def build_parser() -> command.Parser:
    """The options of the command."""
    parser = command.Parser(description="Compare search methods on one table of NAS-Bench-101 cells.")
    add, number = parser.add_argument, command.whole_number
    known = ", ".join((*TREE_SEARCHES, *ALIASES, *baselines.METHODS))
    add("--methods", default="mcts,evolution,random", help=f"separated by commas, of {known}; a tree search can have options, as in mcts:cp=0.5")
    add("--trials", type=number(1), default=30, help="of each method, with the seeds 0, 1, 2, ...")
    add("--samples", type=number(1), help="end a trial after so many unique samples; without it when it has the best cell")
    add("--patience", type=number(1), default=PATIENCE, metavar="PROPOSALS", help="end a trial as stalled after so many proposals (tree search: episodes) without a new sample")
    add("--at", type=sample_numbers, default=AT, metavar="N,N,...", help="numbers of samples at which the best so far is reported")
    add("--max-nodes", type=int, default=arch_generator.MAX_NODES, help="vertices of a cell, 3..7")
    add("--max-edges", type=int, default=arch_generator.MAX_EDGES, help="edges of a cell, 1..9")
    add("--dataset", metavar="PATH", help="the table, as for MCTS.py")
    add("--metric", choices=METRICS, default="test", help="the accuracy that guides the searches; what they find is judged by test accuracy")
    add("--lookup", choices=LOOKUPS, default="exact", help="as for MCTS.py; the same for all methods")
    add("--jobs", type=number(1), help="trials at a time; without it as many as there are processors")
    add("--backend", choices=ENGINES, default="loky", help="loky: processes on this machine; dask, ray: a cluster")
    add("--cluster", metavar="ADDRESS", help="of a running cluster; without it one is started on this machine")
    add("--out", type=Path, default=Path("comparison"), metavar="DIR", help="where results go; trials that are there are not run again")
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
            next(baselines.METHODS[name](baselines.Space(trainer), random.Random(0)))


def report(results: list[dict], options, table: Table, trainer: NetTrainer) -> None:
    """Print the comparison and write its files."""
    groups = defaultdict(list)
    for result in results:
        groups[result["trial"]["method"]].append(result)
    best_test = NetTrainer(table, trainer.generator, "test", options.lookup).target_accuracy
    most = options.samples or cells.cell_count(options.max_nodes)
    summaries = [summarise(method, of_method, best_test, [n for n in options.at if n <= most]) for method, of_method in groups.items()]
    domain = f"up to {options.max_nodes} vertices and {options.max_edges} edges, {options.lookup} lookup, guided by {options.metric} accuracy"
    kind = "measured table" if table.measured else "surrogate table, fitted to published measurements, not NAS-Bench-101 itself"
    limit = f", at most {options.samples:,} samples" if options.samples else ""
    text = markdown(summaries, options, [f"{table.describe()}", "", f"{domain}; {options.trials} trials of each method{limit}."])
    settings = {k: v for k, v in results[0]["trial"].items() if k not in ("method", "options", "seed")}
    numbers = {"settings": {**settings, "trials": options.trials}, "best_test": best_test, "methods": summaries}
    write_atomically(options.out / "comparison.md", text.encode())
    write_atomically(options.out / "comparison.json", (json.dumps(numbers, indent=1) + "\n").encode())
    caption = f"{domain}{limit};\nn = {options.trials} trials a method. Here: {kind}."
    if published_at(options):
        caption += "\nPublished: on NAS-Bench-101 itself."
    draw(groups, options, best_test, caption)
    print(text + f"\nwritten to {options.out}/: comparison.md, comparison.json, best-so-far and samples-to-best (.png, .svg)")


if __name__ == "__main__":
    import compare  # not as __main__, which other processes could not import

    command.run(compare.main)
