"""What a comparison comes to: statistics of the trials of each method, the published figures, and both as text."""

import argparse
import math
from typing import Iterable

import numpy as np

from noisy_trainer import NOISY

# Published for NAS-Bench-101 itself: up to 6 vertices, exact lookup, test accuracy, 114 runs.
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


OVER = "samples", "seconds"


def over_seconds(result: dict) -> dict:
    """A trial's result with the seconds of its trainings in place of its samples."""
    *at_bests, in_all = result["trained"]
    trace = [[seconds, *row[1:]] for seconds, row in zip(at_bests, result["trace"])]
    return {**result, "samples": in_all, "trace": trace}


def by_seconds(options: argparse.Namespace) -> bool:
    """Whether seconds of training are counted, not samples."""
    return getattr(options, "over", OVER[0]) == "seconds"


def counted(options: argparse.Namespace) -> str:
    """What a comparison counts, in words."""
    return "seconds of training" if by_seconds(options) else "unique samples"


def at_samples(trace: list[list[float]], places: np.ndarray) -> np.ndarray:
    """float64 [n]: test accuracy of the best so far after so many samples; NaN before the first, or where unknown."""
    if not trace:
        return np.full(len(places), np.nan)
    costs, _, values = np.array(trace, float).T
    place = np.searchsorted(costs, places, "right") - 1
    return np.where(place < 0, np.nan, values[place])


def places_of(groups: dict[str, list[dict]]) -> np.ndarray:
    """float64 [n]: the numbers of samples, ascending, at which a curve of these trials is drawn on a log scale."""
    lengths = [result["samples"] for results in groups.values() for result in results]
    first = max(1, min(10, *lengths))
    return np.unique(np.geomspace(first, max(first + 1, *lengths), 200).round())


def within_budget(places: np.ndarray, results: list[dict]) -> np.ndarray:
    """Those places up to which all trials of a method went that did not end by themselves; at least the first."""
    budget = min((result["samples"] for result in results if result["outcome"] == "samples"), default=math.inf)
    return places[places <= max(budget, places[0])]


def late_place(places: np.ndarray) -> float:
    """From where on curves are looked at: accuracies before that would make the rest flat."""
    return min(100.0, math.sqrt(places[0] * places[-1]))


def quartiles(results: list[dict]) -> list[float]:
    """Quartiles of the samples to the best cell of all trials; one that did not find it counts as infinitely many."""
    needed = [result["samples"] if result["outcome"] == "found" else math.inf for result in results]
    return np.quantile(needed, (0.25, 0.5, 0.75), method="inverted_cdf").tolist()


def summarise(method: str, results: list[dict], best_test: float, at: list[int]) -> dict:
    """The statistics of one method.

    Returns
    -------
    dict
        ``solved``: share of trials that found the best cell; ``samples_to_best``: ``quartiles`` of all trials, None
        where so many did not find it, and ``mean`` and ``sd``, None unless all did, since a mean of those that did
        would flatter whoever finds it only where it is easy; ``at``: mean test accuracy and mean test regret of the
        best so far after the numbers of samples in ``at``, as far as all trials went that did not end before; None
        where a trial had no sample yet.
    """
    needed = [result["samples"] for result in results if result["outcome"] == "found"]
    all_solved = len(needed) == len(results)
    places = np.array(at, float)
    ran_out = min((r["samples"] for r in results if r["outcome"] == "samples"), default=math.inf)
    means = np.mean([at_samples(result["trace"], places) for result in results], axis=0).tolist()
    return {
        "method": method,
        "trials": len(results),
        "solved": len(needed) / len(results),
        "stalled": sum(result["outcome"] == "stalled" for result in results),
        "samples_to_best": {
            "mean": float(np.mean(needed)) if all_solved else None,
            "sd": float(np.std(needed, ddof=1)) if all_solved and len(needed) > 1 else None,
            "quartiles": [None if math.isinf(q) else q for q in quartiles(results)],
        },
        "at": {
            n: {"test": mean, "regret": best_test - mean} if mean == mean else None
            for n, mean in zip(at, means)
            if n <= ran_out
        },
        "seconds": float(np.mean([result["seconds"] for result in results])),
    }


def domain(options: argparse.Namespace) -> str:
    """What is compared, in words."""
    size = f"Up to {options.max_nodes} vertices and {options.max_edges} edges"
    limit = f", at most {options.samples:,} samples" if options.samples else ""
    count = f"{options.trials} trial{'' if options.trials == 1 else 's'} of each method"
    return f"{size}, {options.lookup} lookup, guided by {options.metric} accuracy; {count}{limit}"


def best_is_known(options: argparse.Namespace) -> bool:
    """Whether a trial can tell that it has found the best cell: not by trainings or single runs."""
    return not hasattr(options, "train") and options.metric != NOISY


def published_at(options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Published mean test regret after so many samples, by method, within the budget; none for other domains."""
    if hasattr(options, "train") or by_seconds(options):
        return {}
    if options.max_nodes == 7:
        regrets = PUBLISHED_REGRET_7
    else:
        best = 0.9423411  # published for the best cell of up to 6 vertices
        published = PUBLISHED_BEST if published_samples(options) else {}
        regrets = {name: {n: best - test for n, test in values.items()} for name, values in published.items()}
    most = options.samples or math.inf
    within = {name: {n: regret for n, regret in values.items() if n <= most} for name, values in regrets.items()}
    return {name: values for name, values in within.items() if values}


def published_samples(options: argparse.Namespace) -> dict:
    """Published samples to the best cell, by method; empty for another domain, lookup or metric."""
    if hasattr(options, "train"):
        return {}
    same = (options.max_nodes, options.max_edges, options.lookup, options.metric) == (6, 9, "exact", "test")
    return PUBLISHED_SAMPLES if same and not by_seconds(options) else {}


def literal(text: str) -> str:
    """Text of a file for Markdown, where it is no HTML, no link and no picture."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\\(")


def markdown(summaries: list[dict], options: argparse.Namespace, heading: list[str]) -> str:
    """The comparison as text: samples to the best cell, then test accuracy and regret on the way."""
    lines = ["# Comparison", "", *heading]
    if best_is_known(options):
        lines += ["", *_samples_table(summaries, options)]
    places = sorted({n for s in summaries for n in s["at"]})
    if places:
        lines += ["", *_accuracy_table(summaries, places, published_at(options), counted(options))]
    return "\n".join(lines) + "\n"


SAMPLES_HEAD = "method", "trials", "solved", "mean ± sd", "Q1 / median / Q3", "seconds a trial"


def samples_rows(summaries: list[dict], more: str) -> list[list[str]]:
    """What each method needed to the best cell, under ``SAMPLES_HEAD``; ``more`` where a trial did not find it."""
    rows = []
    for s in summaries:
        samples = s["samples_to_best"]
        spread = "" if samples["sd"] is None else f" ± {samples['sd']:,.0f}"
        mean = "-" if samples["mean"] is None else f"{samples['mean']:,.0f}{spread}"
        words = " / ".join(more if q is None else f"{q:,.0f}" for q in samples["quartiles"])
        rows.append([s["method"], str(s["trials"]), f"{s['solved']:.0%}", mean, words, f"{s['seconds']:.1f}"])
    return rows


def accuracy_rows(summaries: list[dict], places: list[int]) -> list[list[str]]:
    """Each method, and its mean test accuracy (regret) after so many samples."""
    found = ([s["method"], *(s["at"].get(n) for n in places)] for s in summaries)
    return [[method, *map(_accuracy, at)] for method, *at in found]


def _accuracy(values: dict | None) -> str:
    if values is None:
        return "-"
    return f"{values['test']:.5f} ({round(values['regret'], 5) + 0.0:.5f})"  # a sum of trials can be below 0 by a hair


def _samples_table(summaries: list[dict], options: argparse.Namespace) -> list[str]:
    """Its quartiles are of all trials, so that methods of which not all trials find the best cell can be compared."""
    more = f"> {options.samples:,}" if options.samples and not by_seconds(options) else "not found"
    counting = f'one that did not find it counts as "{more}"'
    what = f"{counted(options).capitalize()} to the best cell"
    lines = [f"{what} (quartiles of all trials, {counting}; mean and sd where all did):", ""]
    lines += [_row(SAMPLES_HEAD), "|-" * len(SAMPLES_HEAD) + "|"]
    lines += map(_row, samples_rows(summaries, more))
    for name, (mean, sd, published, _) in published_samples(options).items():
        words = f"{mean:,} ± {sd:,}", " / ".join(f"{q:,}" for q in published)
        lines.append(_row([f"*{name}, published for NAS-Bench-101 itself*", 114, "100%", *words, ""]))
    return lines


def _accuracy_table(
    summaries: list[dict], places: list[int], published: dict[str, dict[int, float]], counted_as: str
) -> list[str]:
    lines = [f"Mean test accuracy (mean test regret) of the best so far after so many {counted_as}:", ""]
    lines += [_row(["method", *(f"{n:,}" for n in places)]), "|-" * (len(places) + 1) + "|"]
    lines += map(_row, accuracy_rows(summaries, places))
    for name, regrets in published.items():
        words = [f"({regrets[n]:.5f})" if n in regrets else "" for n in places]
        if any(words):
            lines.append(_row([f"*{name}, published for NAS-Bench-101 itself*", *words]))
    return lines


def _row(columns: Iterable) -> str:
    return f"| {' | '.join(map(str, columns))} |"
