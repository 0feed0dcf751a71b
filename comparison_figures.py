"""The pictures of a comparison: the best so far against samples, and boxes of the samples to the best cell."""

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from itertools import product
from textwrap import wrap
from typing import NamedTuple

import numpy as np

from comparison_report import at_samples, best_is_known, by_seconds, late_place, places_of, within_budget
from comparison_report import published_at, published_samples, quartiles
from figure_files import save_figure

import matplotlib  # isort: skip (the import above says it in one line where this one fails)
from matplotlib.axes import Axes  # isort: skip
from matplotlib.figure import Figure  # isort: skip


class Style(NamedTuple):
    """How a method is drawn; ``dash`` as Matplotlib has it, ``marker`` of what was published for it."""

    colour: str
    dash: str | tuple
    marker: str


# Okabe and Ito's colours and three of Tol's, told apart by the colour-blind; black is left to what is no method.
BLUE, RED, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, BROWN = "#E69F00", "#56B4E9", "#7F7F7F", "#8C510A"
INDIGO, OLIVE, WINE = "#332288", "#999933", "#882255"
COLOURS = RED, GREEN, ORANGE, SKY, PINK, BROWN, GREY, BLUE, INDIGO, OLIVE, WINE
DASHES = SOLID, DASHED, DOTTED, DASH_DOT, LONG = "-", "--", ":", "-.", (0, (8, 2))
STYLES = {  # of each method the same in every picture
    "mcts": Style(BLUE, SOLID, "o"),
    "mcts-metadnn": Style(SKY, DASHED, "P"),
    "tuned": Style(RED, SOLID, "*"),
    "evolution": Style(GREEN, DASHED, "s"),
    "random": Style(GREY, DOTTED, "X"),
    "local-search": Style(PINK, DASH_DOT, "^"),
    "q-learning": Style(BROWN, DASHED, "v"),
    "predictor": Style(ORANGE, LONG, "D"),
    "predictor-enumerating": Style(ORANGE, DOTTED, "d"),
    "tpe": Style(INDIGO, DOTTED, "<"),
    "smac": Style(OLIVE, DASH_DOT, ">"),
    "hyperband": Style(WINE, LONG, "p"),
    "bohb": Style(INDIGO, DASH_DOT, "h"),
    "bananas": Style(OLIVE, SOLID, "d"),
    "lanas": Style(INDIGO, SOLID, "v"),
    "npenas": Style(WINE, DASHED, "s"),
    "nas-bowl": Style(BROWN, SOLID, "^"),
    "top-k": Style(ORANGE, DASHED, "X"),
}

MOST_INSIDE = 7  # lines of a legend among the curves; a longer one stands beside them


@dataclass
class Box:
    """What one box shows: samples to the best cell; infinite where a trial did not find it."""

    label: str
    colour: str
    quartiles: list[float]
    least: float
    most: float
    mean: float | None
    single: list[float]  # those of single trials
    published: bool = False


def draw(groups: dict[str, list[dict]], options: argparse.Namespace, best_test: float, caption: str) -> None:
    """Write the figures to ``options.out``, as PNG and SVG.

    Parameters
    ----------
    groups : dict of str to list of dict
        The results of each method's trials.
    best_test : float
        The best test accuracy of the domain, or with ``--train`` of all that was found.
    """
    own = {"svg.fonttype": "none", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(own):
        figures = [("best-so-far", draw_best_so_far(groups, options, best_test), "")]
        if best_is_known(options):
            figures.append(("samples-to-best", draw_samples_to_best(groups, options), BOXES))
        for name, figure, words in figures:
            figure.text(0.01, 0.01, words + caption, fontsize=8, va="bottom", parse_math=False)
            save_figure(figure, options.out / name)


def axis_label(options: argparse.Namespace) -> str:
    """What is counted along an axis."""
    return "seconds of training" if by_seconds(options) else "unique valid samples"


def styles(methods: list[str]) -> dict[str, Style]:
    """A style for each method: its own, or for one with options the next that is free, of colours little used here."""
    chosen = {method: STYLES[method] for method in methods if method in STYLES}
    used = Counter(style.colour for style in chosen.values())
    taken = {style[:2] for style in STYLES.values()}
    free = [Style(colour, dash, "o") for dash, colour in product(DASHES, COLOURS) if (colour, dash) not in taken]
    for number, method in enumerate(method for method in methods if method not in chosen):
        if number % len(free) == 0:
            left = list(free)
        chosen[method] = min(left, key=lambda style: used[style.colour])
        left.remove(chosen[method])
        used[chosen[method].colour] += 1
    return chosen


# --- the best so far --------------------------------------------------------------------------


def draw_best_so_far(groups: dict[str, list[dict]], options: argparse.Namespace, best_test: float) -> Figure:
    """Test accuracy of the best so far: median and quartiles; mean test regret, with what was published."""
    places = places_of(groups)
    figure = Figure(figsize=(11, 5.2))
    accuracy, regret = figure.subplots(1, 2)
    look = styles(list(groups))
    for method, results in groups.items():
        shown = within_budget(places, results)
        curves = np.array([at_samples(result["trace"], shown) for result in results])
        line = {"color": look[method].colour, "ls": look[method].dash, "label": method}
        low, median, high = np.quantile(curves, (0.25, 0.5, 0.75), axis=0)
        accuracy.plot(shown, median, **line)
        accuracy.fill_between(shown, low, high, color=look[method].colour, alpha=0.15, lw=0)
        regret.plot(shown, best_test - curves.mean(axis=0), **line)
    _frame_accuracy(accuracy, best_test, places)
    _add_published(regret, list(groups), published_at(options))
    _frame_regret(regret)
    for axes in (accuracy, regret):
        axes.set_xlim(places[0] / 1.1, 1.3 * max(places[-1], axes.dataLim.x1))
        axes.set_xscale("log")
        axes.set_xlabel(axis_label(options))
        axes.grid(alpha=0.25, lw=0.5)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    return figure


def _frame_accuracy(axes: Axes, best_test: float, places: np.ndarray) -> None:
    """Look at what comes after 100 samples, or half of the way: accuracies before that would make the rest flat."""
    late = late_place(places)
    lows = []
    for band in axes.collections:
        x, y = band.get_paths()[0].vertices.T if band.get_paths() else np.zeros((2, 0))
        lows += y[(x >= late) & np.isfinite(y)].tolist()
    low = min([*lows, best_test - 0.001])
    axes.axhline(best_test, color="black", lw=0.8, ls=(0, (2, 2)))
    axes.annotate("best cell", (places[0], best_test), (0, 3), textcoords="offset points", fontsize=8)
    axes.set_ylim(low - 0.05 * (best_test - low), best_test + 0.1 * (best_test - low))
    axes.set_ylabel("test accuracy of the best so far\n(median, band: quartiles)")


def _frame_regret(axes: Axes) -> None:
    """A logarithmic scale, where there is any regret that it can show."""
    axes.set_ylabel("mean test regret of the best so far")
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    if (values > 0).any():
        axes.set_yscale("log", nonpositive="mask")
    else:
        axes.set_ylim(0, 0.001)
        words = "no regret from the start on" if np.isfinite(values).any() else "no samples"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", fontsize=9)
    look = {"fontsize": 8, "frameon": False}
    if len(axes.get_legend_handles_labels()[0]) > MOST_INSIDE:
        axes.legend(**look, loc="center left", bbox_to_anchor=(1.01, 0.5))
    else:
        axes.legend(**look, loc="lower left")


def _add_published(axes: Axes, methods: list[str], published: dict[str, dict[int, float]]) -> None:
    for name in dict.fromkeys(method.partition(":")[0] for method in methods):
        if points := published.get(name):
            colour, _, marker = STYLES[name]
            label = f"{name}, published"
            axes.plot(list(points), list(points.values()), marker, color=colour, mfc="white", ms=7, label=label)


# --- samples to the best cell -----------------------------------------------------------------

BOXES = (
    "Boxes: quartiles and median of all trials; one that did not find the best cell counts as more than any: arrows,"
    " open boxes.\nDiamond: mean, where all found it; whiskers: least and most; dots: single trials; dashed: the most"
    " samples of a trial.\n"
)


def draw_samples_to_best(groups: dict[str, list[dict]], options: argparse.Namespace) -> Figure:
    """Boxes of the unique samples to the best cell; published ones beside ours, hatched."""
    boxes = boxes_of(groups, published_samples(options))
    numbers = [n for box in boxes for n in (*box.single, box.least, box.most) if 0 < n < math.inf]
    tried = max(1, *(result["samples"] for results in groups.values() for result in results))
    end = options.samples if options.samples and not by_seconds(options) else tried
    low, high = min([*numbers, end]), max([*numbers, end])
    figure = Figure(figsize=(max(8.0, 1.35 * len(boxes) + 1), 5.2))
    axes = figure.subplots()
    for place, box in enumerate(boxes):
        _draw_box(axes, place, box, 1.2 * end)
    if options.samples and not by_seconds(options):
        axes.axhline(options.samples, color="black", lw=0.8, ls=(0, (2, 2)))
    axes.set_xticks(range(len(boxes)), [box.label for box in boxes], fontsize=9)
    axes.set_xlim(-0.5, len(boxes) - 0.5)
    axes.set_yscale("log")  # one method can need a hundred times as many as another
    axes.set_ylim(0.7 * low, 1.5 * high)
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.yaxis.set_minor_formatter("{x:,.10g}" if high < 10 * low else "")
    axes.set_ylabel(f"{axis_label(options)} to the best cell")
    axes.grid(axis="y", which="both", alpha=0.25, lw=0.5)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    return figure


def boxes_of(groups: dict[str, list[dict]], published: dict) -> list[Box]:
    """A box for each method, and after it the published one, where there is one."""
    look, boxes = styles(list(groups)), []
    for method, results in groups.items():
        needed = [result["samples"] for result in results if result["outcome"] == "found"]
        all_found = len(needed) == len(results)
        most = max(needed) if all_found else math.inf
        label = f"{_in_lines(method)}\n{len(needed) / len(results):.0%} solved"
        mean = float(np.mean(needed)) if all_found else None
        least = min(needed, default=math.inf)
        boxes.append(Box(label, look[method].colour, quartiles(results), least, most, mean, needed))
        if method in published:
            mean, _, middle, (least, most) = published[method]
            label = f"{_in_lines(method)}\npublished\n100% solved"
            boxes.append(Box(label, look[method].colour, list(middle), least, most, mean, [], published=True))
    return boxes


def _in_lines(method: str) -> str:
    """A method's name with options in several lines, where it is too long for one."""
    return method if len(method) <= 14 else "\n".join(wrap(method.replace(":", ": "), 14)).replace(": ", ":")


def _draw_box(axes: Axes, place: int, box: Box, end: float) -> None:
    """Quartiles, median and whiskers; what is infinite goes up to ``end``, open, with an arrow."""
    left, right = place - 0.3, place + 0.3
    q1, median, q3, most = (n if math.isfinite(n) else end for n in (*box.quartiles, box.most))
    finite_q1, finite_median, finite_q3 = map(math.isfinite, box.quartiles)
    look, line = {"facecolor": box.colour, "alpha": 0.45}, {"color": "black", "lw": 1}
    if box.published:
        look = {"facecolor": "white", "edgecolor": box.colour, "hatch": "///"}
    if finite_q1:
        axes.fill_between([left, right], q1, q3, lw=0, **look)
        axes.plot([left, left, right, right], [q3, q1, q1, q3], **line)
    if finite_median:
        axes.plot([left, right], [median, median], color="black", lw=2)
    if finite_q3:
        axes.plot([left, right], [q3, q3], **line)
        axes.plot([place, place], [q3, most], **line)
    if math.isfinite(box.least):
        axes.plot([place, place], [box.least, q1], **line)
    if math.isinf(box.most):
        axes.plot(place, end, "^", color="black", ms=6)
    spread = place + np.linspace(-0.2, 0.2, len(box.single))
    axes.plot(spread, box.single, ".", color=box.colour, ms=4)
    if box.mean is not None:
        axes.plot(place, box.mean, "D", color="black", ms=5)
