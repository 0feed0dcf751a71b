"""The tree of a search and single cells as PNG and SVG, and what the picture of a tree shows, in words."""

import io
import math
import textwrap
import warnings
from pathlib import Path

import figure_files  # first: says what to install where nothing can be drawn
import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from PIL import Image

from arch_generator import State
from nasbench_dataset import cells
from nasbench_dataset.files import printable
from options import MetaDNNOptions, SearchOptions
from saved_run import Run
from tree_layout import MAX_DRAWN, MAX_IN_PAGE, Drawing

COLOURS = "viridis"  # perceptually uniform, and readable for the colour-blind
QUANTILES = 0.05, 0.95  # of the values: the limits of the colours, as a few values are far below the others
BEST, HIGH, LOW = "#000000", "#d55e00", "#d81b9c"  # paths; told apart by dashes, too
DASHES = {BEST: "-", HIGH: (0, (5, 1.2)), LOW: (0, (1.4, 1.2))}
BOXES = ("#a6cee3", "#fdd49e", "#d9c5e8")  # of the operations, in the order of cells.OPERATIONS
PLAIN = "#eeeeee"  # of input and output


def draw_tree(run: Run, drawing: Drawing, folder: Path) -> list[Path]:
    """Write tree.png and tree.svg."""
    figure = Figure(figsize=(13, 9))
    axes = figure.add_axes((0.005, 0.01, 0.985 * 9 / 13, 0.98))
    axes.set_aspect("equal")
    axes.set_axis_off()
    value, visits = run.value[drawing.drawn], run.visits[drawing.drawn]
    finished = np.array([run.states[i].finished for i in drawing.drawn])
    xy = np.column_stack((drawing.x, drawing.y))
    (left, bottom), (right, top) = xy.min(axis=0) - 0.04, xy.max(axis=0) + 0.04
    axes.set(xlim=(left, right), ylim=(bottom, top))
    style = {"cmap": COLOURS, "norm": Normalize(*colour_limits(run)), "rasterized": len(xy) > MAX_IN_PAGE}  # else 27 MB
    order = np.argsort(visits, kind="stable")  # what is visited most comes on top
    lines = order[drawing.parent[order] >= 0]
    rays = np.stack((xy[drawing.parent[lines]], xy[lines]), axis=1)
    axes.add_collection(LineCollection(rays, array=value[lines], lw=0.5, alpha=0.45, **style))
    for path, colour in ((drawing.best, BEST), (drawing.low, LOW), (drawing.high, HIGH)):  # dashes on what is solid
        axes.plot(*xy[path].T, color="#ffffff", lw=4.5, zorder=2)  # an outline, to stand out from the lines below
        axes.plot(*xy[path].T, color=colour, lw=2.4, ls=DASHES[colour], zorder=2.5)
    for marker, chosen, zorder in (("s", order[finished[order]], 3), ("o", order[~finished[order]], 4)):
        look = {"marker": marker, "lw": 0.3, "ec": "#333333", "zorder": zorder, **style}
        dots = axes.scatter(*xy[chosen].T, s=areas(visits[chosen], len(xy)), c=value[chosen], **look)
    axes.scatter(*xy[0], s=170, marker="D", fc="none", ec=BEST, lw=1.6, zorder=5)
    axes.scatter(*xy[drawing.best[-1]], s=260, marker="*", fc="#ffffff", ec=BEST, lw=1.3, zorder=6)
    decorate(figure, dots, run, drawing)
    return figure_files.save_figure(figure, folder / "tree", png_dpi=120, svg_dpi=200, finish=fewer_colours)


def areas(visits: np.ndarray | int, drawn: int) -> np.ndarray:
    """Square points for numbers of visits, which span five orders of magnitude; larger where few are drawn."""
    return 4 * np.asarray(visits, float) ** 0.3 * min(8, max(1, MAX_DRAWN / drawn) ** 0.7)


def decorate(figure: Figure, dots, run: Run, drawing: Drawing) -> None:
    """Title, colour bar, legend and caption, in a column on the right."""
    left, text = 0.705, {"parse_math": False, "color": "#222222"}  # a $ in the name of a table is a $
    figure.text(left, 0.935, "Where the search has been", size=16, weight="bold", **text)
    place = figure.add_axes((left, 0.875, 0.27, 0.018))
    bar = figure.colorbar(dots, cax=place, orientation="horizontal", extend="both")
    bar.set_label(f"value: mean {run.settings['metric']} accuracy found from there (x_bar)", size=9)
    look = {"fontsize": 9.5, "frameon": False, "labelspacing": 0.75}
    figure.legend(handles=legend(run, drawing), loc="upper left", bbox_to_anchor=(left - 0.01, 0.80), **look)
    room = (0.99 - left) * figure.get_figwidth()
    lines = [wrapped(sentence, 50, room, size=9.5) for sentence in caption(run, drawing)]
    figure.text(left, 0.03, "\n\n".join(lines), size=9.5, va="bottom", linespacing=1.25, **text)


def wrapped(words: str, letters: int, room: float, size: float) -> str:
    """Words in lines of at most so many letters, and of fewer where letters are so wide that they need more room.

    Parameters
    ----------
    room : float
        In inches.
    size : float
        Of the letters, in points.
    """
    figure, lines = Figure(), ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks has the width of a box
        for most in range(letters, 4, -1):
            lines = textwrap.fill(words, most, break_on_hyphens=False)
            extent = figure.text(0, 0, lines, size=size, parse_math=False).get_window_extent()
            if extent.width <= room * figure.dpi:
                break
    return lines


def legend(run: Run, drawing: Drawing) -> list[Line2D]:
    """One line for everything that can be told apart."""

    def dot(label: str, area: float, marker: str = "o") -> Line2D:
        look = {"ls": "", "mfc": "#aaaaaa", "mec": "#333333", "mew": 0.3}
        return Line2D([], [], marker=marker, ms=math.sqrt(area), label=label, **look)

    def path(colour: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, lw=2.2, ls=DASHES[colour], label=label)

    return [
        Line2D([], [], ls="", marker="D", ms=9, mfc="none", mec=BEST, mew=1.6, label="root: input and output, no edge"),
        Line2D([], [], ls="", marker="*", ms=15, mfc="white", mec=BEST, label=drawing.best_is),
        path(BEST, "best path: the way there"),
        path(HIGH, "high-value path: to the state of highest value"),
        path(LOW, "low-value path: to the state of lowest value"),
        dot("finished cell (0 where it is not in the table)", 30, "s"),
        dot("state under construction", 30),
        *(dot(f"{n:,} visits", areas(n, len(drawing.drawn))) for n in (10, 1_000, 100_000) if n <= run.visits.max()),
    ]


def colour_scale(number: int) -> list[str]:
    """So many colours of values, from low to high, as #rrggbb."""
    return [to_hex(colour) for colour in matplotlib.colormaps[COLOURS](np.linspace(0, 1, number))]


def fewer_colours(png: bytes) -> bytes:
    """With 256 colours, half of them those of the colour bar: a third of the size."""
    image, content = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    found = image.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).getpalette()[: 3 * 128]
    shades = np.round(255 * matplotlib.colormaps[COLOURS](np.linspace(0, 1, 126))[:, :3]).astype(int)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*found, *shades.ravel().tolist(), 0, 0, 0, 255, 255, 255])
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(content, "png", optimize=True)
    return content.getvalue()


def arcs(state: State) -> list[tuple[int, int, int]]:
    """The edges (x, y, side) of a cell whose vertices stand in a row.

    Side 0 is straight to the next vertex; 1 and -1 are arcs above and below, which touch no vertex. Each takes
    the side where it crosses fewer others. (pages/tree.js does the same.)
    """
    result: list[tuple[int, int, int]] = []
    pairs = [(x, y) for x, y in cells.edge_pairs(state.vertices) if state.edges & cells.edge_bit(x, y)]
    for x, y in sorted(pairs, key=lambda pair: (pair[0] - pair[1], pair)):  # the longest first
        cost = {side: sum(s == side and (a < x < b < y or x < a < y < b) for a, b, s in result) for side in (1, -1)}
        balance = sum(s for _, _, s in result)
        side = min((1, -1), key=lambda side: (cost[side], side * balance))
        result.append((x, y, side if y > x + 1 else 0))
    return result


def draw_cell(state: State, title: str, folder: Path) -> list[Path]:
    """Write cell.png and cell.svg."""
    names = state.to_dict()["node_list"]
    edges, step, wide, high, inch = arcs(state), 2.3, 1.5, 0.8, 0.75
    tops = [(side, edge_curve(x * step, y * step, side, wide, high).get_extents()) for x, y, side in edges]
    reach = [max([high / 2, *(max(abs(box.y0), abs(box.y1)) for s, box in tops if s == side)]) for side in (0, 1, -1)]
    width = step * (state.vertices - 1) + wide + 0.4
    words = wrapped(title, max(24, int(width * 8)), (width - 0.4) * inch, size=10)
    size = width, reach[1] + reach[-1] + 1.1 + 0.23 * max(0, words.count("\n") - 2)  # room for three lines, or more
    figure = Figure(figsize=(size[0] * inch, size[1] * inch))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-wide / 2 - 0.2, size[0] - wide / 2 - 0.2), ylim=(-reach[-1] - 0.2, size[1] - reach[-1] - 0.2))
    axes.set_axis_off()
    for x, y, side in edges:
        curve = edge_curve(x * step, y * step, side, wide, high)
        axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=13, lw=1.4, color="#444444"))
    for i, name in enumerate(names[: state.vertices]):
        colour = BOXES[cells.OPERATIONS.index(name)] if name in cells.OPERATIONS else PLAIN
        look = {"boxstyle": "round,pad=0,rounding_size=0.15", "fc": colour, "ec": "#333333", "lw": 1}
        axes.add_patch(FancyBboxPatch((i * step - wide / 2, -high / 2), wide, high, **look))
        axes.text(i * step, 0, name.replace("-bn", "\nbn", 1), ha="center", va="center", size=10)
    axes.text(-wide / 2, size[1] - reach[-1] - 0.35, words, va="top", size=10, color="#222222", parse_math=False)
    return figure_files.save_figure(figure, folder / "cell", png_dpi=120, svg_dpi=200, finish=fewer_colours)


def edge_curve(start: float, end: float, side: int, wide: float, high: float) -> Curve:
    """From the box at ``start`` to that at ``end``: straight, or in an arc that is higher the further it goes."""
    if side == 0:
        return Curve([(start + wide / 2, 0), (end - wide / 2, 0)])
    first, last, foot = start + wide / 4, end - wide / 4, side * high / 2
    top = foot + side * (end - start) * 0.28
    return Curve([(first, foot), (first, top), (last, top), (last, foot)], [Curve.MOVETO] + [Curve.CURVE4] * 3)


def colour_limits(run: Run) -> tuple[float, float]:
    """Quantiles of the values of much visited nodes, so that a few low ones do not take up all colours."""
    most_visited = run.value[np.argsort(-run.visits, kind="stable")[:MAX_DRAWN]]
    in_table = most_visited[most_visited > 0]  # a finished cell outside the table is worth 0
    low, high = np.quantile(in_table, QUANTILES).tolist() if len(in_table) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def caption(run: Run, drawing: Drawing) -> list[str]:
    """What the picture shows, in sentences."""
    s, (low, high), (q, r) = run.settings, colour_limits(run), QUANTILES
    best = f"{'' if run.best_is_sure else 'at least '}{drawing.best_accuracy:.7f}"
    parents = "first parents" if s["backup"] == "first-parent" else "the parents last walked from"
    closed = f" Closed: {run.closed.sum():,} of {len(run.states):,} nodes." if s["close_exhausted"] else ""
    predicted = " Values may be partly predicted." if run.predicted else ""
    sentences = [
        f"Table: {run.table}.",
        f"Cells of up to {s['max_nodes']} vertices and {s['max_edges']} edges; {s['metric']} accuracy,"
        f" {s['lookup']} lookup, {', '.join(search_words(run))}, seed {s['seed']}.",
        f"Outcome: {run.outcome}, at {len(run.samples):,} unique samples; best accuracy {best}.",
        f"{drawn_nodes(run, drawing)} Lines lead to {parents}.{closed}",
        f"Colours from {low:.4f} to {high:.4f}, the {q:.0%} and {r:.0%} quantiles of the values above 0 of the"
        f" {min(MAX_DRAWN, len(run.states)):,} nodes with most visits; values beyond have the colour of the end."
        f"{predicted}",
    ]
    return [printable(sentence) for sentence in sentences]


def search_words(run: Run) -> list[str]:
    """What kind of search it was."""
    words = [run.settings["method"], f"Cp {run.settings['cp']:g}"]
    if run.settings["backup"] == "path":
        words.append("back-up along the path")
    if run.settings["close_exhausted"]:
        words.append("exhausted states closed")
    if run.guided:
        options = MetaDNNOptions if run.settings["method"] == "mcts-metadnn" else SearchOptions
        words.append(f"every {run.settings['guide']} episodes {options.model} chooses a cell")
    return words


def drawn_nodes(run: Run, drawing: Drawing) -> str:
    """How much of the tree is drawn, and which part."""
    total, number = len(run.states), len(drawing.drawn)
    lead = ", what leads to them," if run.settings["backup"] == "path" else ","  # else visits shrink towards the leaves
    which = f"those with at least {drawing.least:,} visits{lead} and the best path" if number < total else "all of them"
    return f"Drawn: {number:,} of {total:,} nodes: {which}."
