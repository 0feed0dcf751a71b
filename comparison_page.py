"""The page of a comparison: the best so far of all trials by method, with their means, and the table of it."""

import math
from pathlib import Path

import numpy as np

import page_template
from comparison_figures import DASH_DOT, DASHED, DOTTED, LONG, SOLID, styles
from comparison_report import SAMPLES_HEAD, accuracy_rows, at_samples, late_place, places_of, samples_rows
from comparison_report import summarise, within_budget
from nasbench_dataset.files import printable
from saved_comparison import Comparison

SCRIPTS = ["parts.js", "comparison.js"]
MOST_LINES, MOST_POINTS = 100, 300  # single trials of a method that are drawn, and steps of each
DASHES = {SOLID: [], DASHED: [7, 4], DOTTED: [2, 3], DASH_DOT: [9, 3, 2, 3], LONG: [14, 4]}  # as SVG has them


def write_page(comparison: Comparison, folder: Path) -> Path:
    """Write comparison.html, with everything that it needs in it."""
    data = page_data(comparison)
    return page_template.write_page(folder / "comparison.html", "comparison.html", SCRIPTS, data, caption(comparison))


def page_data(comparison: Comparison) -> dict:
    """What the page draws."""
    groups, best = comparison.groups, comparison.best_test
    look, places = styles(list(groups)), places_of(groups)
    methods = []
    for method, results in groups.items():
        line = {"colour": look[method].colour, "dashes": DASHES[look[method].dash]}
        lines = [trial_line(result, places) for result in results[:MOST_LINES]]
        methods.append({"method": named(method), **line, "mean": mean_line(results, places), "trials": lines})
    late = [y for method in methods for x, y in method["mean"] if y is not None and x >= late_place(places)]
    ends = [y for method in methods for _, y in method["mean"] if y is not None]
    return {
        "methods": methods,
        "best_test": best,
        "x": [places[0], places[-1]],
        "y": [min(late or ends, default=0.0), max([*ends, best or 0.0])],
        "tables": tables(comparison),
    }


def named(method: str) -> str:
    """A method's name as a short harmless line."""
    return printable(method, 100)


def known(value: float) -> float | None:
    """A number for JSON; None where it is not known."""
    return None if math.isnan(value) else round(value, 7)


def trial_line(result: dict, places: np.ndarray) -> dict:
    """Unique samples and test accuracy at each new best; of very many bests, those at some places."""
    points = [[cost, known(test)] for cost, _, test in result["trace"]]
    if len(points) > MOST_POINTS:
        tests = at_samples(result["trace"], places).tolist()
        points = [[x, known(y)] for x, y in zip(places.tolist(), tests) if x <= result["samples"]]
    return {"points": points, "end": result["samples"]}


def mean_line(results: list[dict], places: np.ndarray) -> list[list]:
    """The mean of all trials at places; None while some trial has no sample yet."""
    shown = within_budget(places, results)
    means = np.mean([at_samples(result["trace"], shown) for result in results], axis=0)
    return [[x, known(y)] for x, y in zip(shown.tolist(), means.tolist())]


# --- in words ---------------------------------------------------------------------------------


def caption(comparison: Comparison) -> list[str]:
    """What the page shows, in sentences."""
    s, left_out = comparison.settings, comparison.left_out
    limit = f", at most {s['samples']:,} samples a trial" if s["samples"] else ""
    sentences = [
        f"Cells of up to {s['max_nodes']} vertices and {s['max_edges']} edges, {s['lookup']} lookup, guided by"
        f" {s['metric']} accuracy{limit}. Thick: means of all trials; thin: single trials, at most {MOST_LINES} of a"
        " method.",
        "This comparison has not come to its end (there is no comparison.json)."
        if comparison.best_test is None
        else "The level line is the test accuracy that regret is measured against.",
    ]
    if left_out:
        count = "1 file" if len(left_out) == 1 else f"{len(left_out):,} files"
        sentences.append(f"{count} of trials cannot be used and were left out ({left_out[0]}).")
    if comparison.others:
        sentences.append(f"{comparison.others:,} more in the folder are of other comparisons.")
    return [printable(sentence) for sentence in sentences]


def tables(comparison: Comparison) -> list[dict]:
    """The tables below the chart: label, head, rows of texts."""
    found = [{"label": "Methods", "head": OVERVIEW, "rows": [overview(*group) for group in comparison.groups.items()]}]
    best, samples = comparison.best_test, comparison.settings["samples"]
    if best is None:
        return found
    summaries = [summarise(named(method), of, best, comparison.at) for method, of in comparison.groups.items()]
    if any(summary["solved"] for summary in summaries):  # else the best cell may not be known at all
        more = f"> {samples:,}" if samples else "not found"
        rows = samples_rows(summaries, more)
        found.append({"label": "Unique samples to the best cell", "head": SAMPLES_HEAD, "rows": rows})
    if places := sorted({place for summary in summaries for place in summary["at"]}):
        head, rows = ["method", *(f"{place:,}" for place in places)], accuracy_rows(summaries, places)
        label = "Mean test accuracy (regret) of the best so far after so many unique samples"
        found.append({"label": label, "head": head, "rows": rows})
    return found


OVERVIEW = "method", "trials", "mean test accuracy at the end", "sd", "mean samples"


def overview(method: str, results: list[dict]) -> list[str]:
    """A row about one method; trials that found nothing, or whose test accuracy is not known, have no part in means."""
    ends = [result["trace"][-1][2] for result in results if result["trace"]]
    ends = [test for test in ends if not math.isnan(test)]
    mean = f"{np.mean(ends):.7f}" if ends else "-"
    spread = f"{np.std(ends, ddof=1):.7f}" if len(ends) > 1 else "-"
    samples = np.mean([result["samples"] for result in results])
    return [named(method), f"{len(results):,}", mean, spread, f"{samples:,.1f}"]
