"""Pictures of a search: its tree, an interactive page of it, a single cell.

    python visualize.py results                 results/tree.png and results/tree.svg
    python visualize.py results --html          results/tree.html, too: zoom, hover, step through the search
    python visualize.py results --cell best     results/cell.png and results/cell.svg: the best network
    python visualize.py --cell '{"adj_mat": [[0, 1], [0, 0]], "node_list": ["input", "output"]}'

Only files of the run are read (``search``, ``nodes``, ``dangling_nodes``, ``summary.json``), and nothing in them is
executed or changed; so a search that is still running, or was interrupted, can be drawn as well.

The parent of a node is the one from which it was first created or, in a search with ``--backup path``, the one from
which it was last reached. The root is in the middle, and each ring is one action further from it.
"""

import contextlib
import hashlib
import html
import io
import json
import math
import re
import textwrap
import time
import warnings
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import checkpoint
from arch_generator import ROOT, State, arch_generator
from nasbench_dataset import InputError, cells, command
from nasbench_dataset.files import printable

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize, to_hex
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve
    from PIL import Image
except ImportError as error:
    if __name__ != "__main__":
        raise
    command.fail(f"Matplotlib cannot be used ({error}); pip install -r requirements-compare.txt")

MAX_DRAWN, MAX_IN_PAGE = 1_200, 5_000  # nodes; more of them run into each other
COLOURS = "viridis"  # perceptually uniform, and readable for the colour-blind
QUANTILES = 0.05, 0.95  # of the values: the limits of the colours, as a few values are far below the others
BEST, HIGH, LOW = "#000000", "#d55e00", "#d81b9c"  # paths; told apart by dashes, too
DASHES = {BEST: "-", HIGH: (0, (5, 1.2)), LOW: (0, (1.4, 1.2))}
BOXES = ("#a6cee3", "#fdd49e", "#d9c5e8")  # of the operations, in the order of cells.OPERATIONS
PLAIN = "#eeeeee"  # of input and output
TEMPLATE = Path(__file__).with_name("visualize.html")
WAITS = 0.0, 0.1, 0.4  # seconds between attempts to read a folder in which a search is saving


# --- the files of a run -----------------------------------------------------------------------


@dataclass
class Run:
    """A search as its files tell it.

    Attributes
    ----------
    states : list of State
        The tree, in the order of creation; the root is the first.
    parent : int [N]
        The number of each node's parent, the state before its last action; -1 for the root. With back-up along the
        path it can be younger than the node, and have fewer visits.
    visits, value, closed : int [N], float [N], bool [N]
        ``n``, ``x_bar`` and ``closed`` of each node.
    dangling : dict of State to float
        Finished cells that rollouts sampled and the tree has not reached, with their accuracy.
    settings : dict
        ``method``, ``seed``, ``max_nodes``, ``max_edges``, ``metric``, ``lookup``, ``cp``, ``backup``,
        ``close_exhausted``, ``guide``.
    outcome : str
        What ended the search, or that nothing did.
    samples : int
        Unique samples.
    table : str
        What the accuracies come from, in words.
    """

    states: list[State]
    parent: np.ndarray
    visits: np.ndarray
    value: np.ndarray
    closed: np.ndarray
    dangling: dict[State, float]
    settings: dict
    outcome: str
    samples: int
    table: str


def read_run(folder: Path) -> Run:
    """The search saved in a folder.

    Raises
    ------
    InputError
        If there is none, or its files are damaged or cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the --out of a search")
    try:
        if not any((folder / (checkpoint.MAIN + suffix)).exists() for suffix in ("", checkpoint.NEW)):
            raise InputError(f"no search is saved in {folder}; give the --out of a search")
        main, files = read_save(folder)
        summary = (folder / "summary.json").read_bytes() if (folder / "summary.json").exists() else None
    except OSError as error:
        raise InputError(f"cannot read the search saved in {folder}: {error.strerror}") from error
    try:
        return parse_run(main, files, summary)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"the search saved in {folder} is damaged ({error!s:.200})") from error


def read_save(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """The content of ``search`` and of the files it lists, all from one save.

    A search may be saving meanwhile, or have been killed in it: then some files are still named ``NAME.new``.
    """
    for wait in WAITS:
        time.sleep(wait)
        for suffix in ("", checkpoint.NEW):
            with contextlib.suppress(FileNotFoundError):
                if found := checkpoint.find(folder, suffix):
                    return found[:2]
    raise InputError(f"the search saved in {folder} is damaged ('search', or a file that it lists)")


def parse_run(main: dict, files: dict[str, bytes], summary: bytes | None) -> Run:
    """The run in these files; a LookupError, TypeError or ValueError where they are not as a search writes them."""
    settings = parse_settings(main["settings"])
    generator = arch_generator(settings["max_nodes"], settings["max_edges"])
    names = "operations", "edges", "finished", "parent", "n", "x_bar", "closed", "children"
    operations, edges, finished, parent, visits, value, closed, _ = checkpoint.columns(files["nodes"], *names)
    states = checkpoint.states(operations, edges, finished, generator)
    checkpoint.numbers(visits, int, 1, 2**53, "n")
    checkpoint.numbers(value, float, 0, 1, "x_bar")
    checkpoint.numbers(closed, bool, False, True, "closed")
    closing = settings["close_exhausted"]
    if any(c != closing if state.finished else c > closing for c, state in zip(closed, states)):
        raise ValueError("nodes: closed, or not, against the settings")
    check_parents(states, parent, visits, settings["backup"])
    operations, edges, accuracies = checkpoint.columns(files["dangling_nodes"], "operations", "edges", "value")
    ends = checkpoint.states(operations, edges, [True] * len(edges), generator)
    dangling = dict(zip(ends, checkpoint.numbers(accuracies, float, 0, 1, "value")))
    table = describe_table(summary, main, len(states))
    outcome = str(main["outcome"]) if main["outcome"] else "not ended"
    arrays = np.array([-1, *parent[1:]]), np.array(visits), np.array(value), np.array(closed)
    return Run(states, *arrays, dangling, settings, outcome, len(main["samples"]), table)


def parse_settings(saved: dict) -> dict:
    """What a caption needs of the settings."""
    settings = {name: saved[name] for name in ("method", "metric", "lookup", "backup")}
    if not all(type(word) is str and re.fullmatch(r"[\w-]{1,40}", word) for word in settings.values()):
        raise ValueError("settings")
    if settings["backup"] not in ("first-parent", "path"):
        raise ValueError("settings: backup")
    for name in ("seed", "max_nodes", "max_edges", "guide"):
        settings[name] = checkpoint.numbers([saved[name]], int, 0, math.inf, name)[0]
    settings["cp"] = checkpoint.numbers([saved["cp"]], float, 0, math.inf, "cp")[0]
    name = "close_exhausted"
    settings[name] = checkpoint.numbers([saved[name]], bool, False, True, name)[0]
    return settings


def check_parents(states: list[State], parent: list, visits: list[int], backup: str) -> None:
    """A ValueError where these are not the parents of a tree that grew from the root.

    That each parent is one action before the node leaves no room for a cycle.
    """
    if not states or states[0] != ROOT or parent[0] is not None or len(set(states)) < len(states):
        raise ValueError("nodes: not a tree that grew from the root")
    checkpoint.numbers(parent[1:], int, 0, len(states) - 1, "parent")
    if not all(one_action(states[p], state) for p, state in zip(parent[1:], states[1:])):
        raise ValueError("nodes: more than one action away from the parent")
    if backup == "first-parent" and any(i <= p or visits[i] > visits[p] for i, p in enumerate(parent[1:], 1)):
        raise ValueError("nodes: older, or with more visits, than the parent")


def one_action(before: State, after: State) -> bool:
    """Whether some action leads from one state to the other; adding a vertex wipes the edges."""
    if before.finished:
        return False
    if before.operations != after.operations:
        return before.operations == after.operations[:-1] and after.edges == 0 and not after.finished
    added = after.edges & ~before.edges
    return not before.edges & ~after.edges and added.bit_count() == (0 if after.finished else 1)


def describe_table(summary: bytes | None, main: dict, nodes: int) -> str:
    """Where the accuracies come from; only summary.json has it, and it may be of an earlier search."""
    try:
        content = {} if summary is None else json.loads(summary)
    except (RecursionError, ValueError) as error:
        raise ValueError("summary.json") from error
    if type(content) is not dict:
        raise ValueError("summary.json")
    here = nodes, main["episodes"], main["settings"]["seed"]
    if tuple(content.get(name) for name in ("tree_nodes", "episodes", "seed")) != here:
        return "not known (no summary.json of this search)"
    if content["dataset"] == "embedded surrogate":
        return "embedded surrogate, fitted to published measurements; not NAS-Bench-101 itself"
    return plain(content["dataset"])


def plain(text: object) -> str:
    """Text of a file as one short printable line."""
    return printable(text, 80)


# --- what is drawn, and where -----------------------------------------------------------------


@dataclass
class Drawing:
    """The part of a tree that is drawn; all numbers of nodes are positions in ``drawn``.

    Attributes
    ----------
    drawn : int [D]
        The nodes, in the order in which they and all their ancestors were there; the parent of each is among them.
    appears : int [D]
        The number of the node with whose creation each was there with all its ancestors, itself mostly.
    parent : int [D]
        -1 for the root.
    least : int
        All nodes with at least so many visits are drawn; others only where they lead to these, or on the best path.
    x, y : float [D]
        In a circle of radius 1.
    best, high, low : list of int
        Paths from the root.
    best_cell : State or None
        The best network of the search.
    best_accuracy : float
    best_is : str
        What the node at the end of the best path is.
    """

    drawn: np.ndarray
    appears: np.ndarray
    parent: np.ndarray
    least: int
    x: np.ndarray
    y: np.ndarray
    best: list[int]
    high: list[int]
    low: list[int]
    best_cell: State | None
    best_accuracy: float
    best_is: str


def best_network(run: Run) -> tuple[State | None, float, int, str]:
    """The best network, its accuracy, the node to mark, and what that node is."""
    finished = [i for i, state in enumerate(run.states) if state.finished]
    node = max(finished, key=lambda i: run.value[i], default=0)
    in_tree = float(run.value[node]) if finished else 0.0  # 0 for cells that are not in the table
    cell, accuracy = max(run.dangling.items(), key=lambda item: item[1], default=(None, 0.0))
    if in_tree > 0 and in_tree >= accuracy:
        return run.states[node], in_tree, node, "the best network"
    if cell is None:
        return None, 0.0, 0, "no network found yet"
    # A rollout found it. From where is not saved, but the value of a node is at first that of its rollout.
    towards = [i for i, state in enumerate(run.states) if leads_to(state, cell)]
    found = [i for i in towards if run.value[i] == accuracy]
    if run.outcome == "found":  # the target ends a search; with the Meta-DNN a value is no single accuracy
        found += [i for i in towards[-1:] if i == len(run.states) - 1]
    if found:
        return cell, accuracy, found[0], "where a rollout found the best network"
    nearest = max(towards, key=lambda i: (run.states[i].vertices, run.states[i].edges.bit_count()))
    return cell, accuracy, nearest, "the state nearest to the best network"


def leads_to(state: State, cell: State) -> bool:
    """Whether actions can lead from a state to a finished cell; adding a vertex wipes the edges."""
    if state.finished or cell.operations[: len(state.operations)] != state.operations:
        return False
    return len(state.operations) < len(cell.operations) or not state.edges & ~cell.edges


def ancestry(parent: np.ndarray, node: int) -> list[int]:
    """The path from the root to a node."""
    path = [node]
    while parent[path[-1]] >= 0:
        path.append(int(parent[path[-1]]))
    return path[::-1]


def along_parents(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What depends on the parents of parents.

    Returns
    -------
    order : int [N]
        The nodes sorted so that every parent comes before its children.
    appears : int [N]
        The number of the youngest node among each and its ancestors.
    busiest : int [N]
        The most visits among each node and its descendants.
    """
    steps = [(state.vertices * 32 + state.edges.bit_count()) * 2 + state.finished for state in run.states]
    order = np.argsort(steps, kind="stable")
    parent, appears, busiest = run.parent.tolist(), list(range(len(steps))), run.visits.tolist()
    there, back = order[1:].tolist(), order[:0:-1].tolist()
    for i in there:
        appears[i] = max(i, appears[parent[i]])
    for i in back:
        busiest[parent[i]] = max(busiest[parent[i]], busiest[i])
    return order, np.array(appears), np.array(busiest)


def prune(busiest: np.ndarray, most: int, keep: list[int]) -> tuple[np.ndarray, int]:
    """The nodes to draw, ascending, and the least number of visits.

    No node has a larger number in ``busiest`` than its parent, so that a limit leaves a connected tree: the nodes
    with so many visits, and their ancestors. It is the smallest for which at most ``most`` nodes are left, those
    of ``keep`` (a path) included.
    """
    kept = np.zeros(len(busiest), bool)
    kept[keep] = True
    limits, counts = np.unique(busiest[~kept], return_counts=True)
    left = np.cumsum(counts[::-1])[::-1] + len(keep)
    fitting = limits[left <= most]
    least = int(fitting[0]) if len(fitting) else int(busiest.max()) + 1
    return np.flatnonzero(kept | (busiest >= least)), least


def extreme(run: Run, drawn: np.ndarray, least: int, sign: int) -> int:
    """Where in ``drawn`` the unfinished state of highest (sign 1) or lowest (-1) value is, the root apart.

    Finished cells are left aside, as most are worth 0: they are not in the table.
    """
    nodes = enumerate(drawn.tolist())
    states = [i for i, node in nodes if node > 0 and run.visits[node] >= least and not run.states[node].finished]
    return max(states, key=lambda i: (sign * run.value[drawn[i]], run.visits[drawn[i]]), default=0)


def radial_layout(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in a circle of radius 1: each ring one action further out, each subtree in a sector as wide as its leaves.

    Parents come before their children.
    """
    number, up = len(parent), parent.tolist()
    depth, leaves, children = [0] * number, [0] * number, [[] for _ in range(number)]
    for i in range(1, number):
        depth[i] = depth[up[i]] + 1
        children[up[i]].append(i)
    for i in range(number - 1, 0, -1):
        leaves[i] = leaves[i] or depth[i]
        leaves[up[i]] += leaves[i]
    start, width = [0.0] * number, [0.0] * number
    width[0] = 2 * math.pi
    for i in range(number):
        angle = start[i]
        for child in children[i]:
            start[child], width[child] = angle, width[i] * leaves[child] / leaves[i]
            angle += width[child]
    crowd = np.bincount(depth)
    gap = 1 + 5 * crowd / crowd.max()  # crowded rings are further out
    gap[0] = 0
    gap[1:2] += 1  # room for the mark of the root
    ring = np.cumsum(gap)
    radius = (ring / max(ring[-1], 1))[depth]
    angle = np.array(start) + np.array(width) / 2
    return radius * np.cos(angle), radius * np.sin(angle)


def arrange(run: Run, most: int) -> Drawing:
    """Choose at most ``most`` nodes and place them."""
    cell, accuracy, marked, what = best_network(run)
    order, appears, busiest = along_parents(run)
    drawn, least = prune(busiest, most, ancestry(run.parent, marked))
    drawn = drawn[np.lexsort((np.argsort(order)[drawn], appears[drawn]))]
    place = {node: i for i, node in enumerate(drawn.tolist())}
    parent = np.array([place.get(p, -1) for p in run.parent[drawn].tolist()])
    high, low = (ancestry(parent, extreme(run, drawn, least, sign)) for sign in (1, -1))
    best = ancestry(parent, place[marked])
    return Drawing(drawn, appears[drawn], parent, least, *radial_layout(parent), best, high, low, cell, accuracy, what)


def colour_limits(run: Run) -> tuple[float, float]:
    """Quantiles of the values of much visited nodes, so that a few low ones do not take up all colours."""
    most_visited = run.value[np.argsort(-run.visits, kind="stable")[:MAX_DRAWN]]
    in_table = most_visited[most_visited > 0]  # a finished cell outside the table is worth 0
    low, high = np.quantile(in_table, QUANTILES).tolist() if len(in_table) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def caption(run: Run, drawing: Drawing) -> list[str]:
    """What the picture shows, in sentences."""
    s, (low, high), (q, r) = run.settings, colour_limits(run), QUANTILES
    parents = "first parents" if s["backup"] == "first-parent" else "the parents last walked from"
    extras = [", back-up along the path"] * (s["backup"] == "path")
    extras += [", exhausted states closed"] * s["close_exhausted"]
    extras += [f", every {s['guide']} episodes a linear model chooses a cell"] * (s["guide"] > 0)
    predicted = " Values may be partly predicted." * (s["guide"] > 0 or s["method"] == "mcts-metadnn")
    closed = f" Closed: {run.closed.sum():,} of {len(run.states):,} nodes." * s["close_exhausted"]
    return [
        f"Table: {run.table}.",
        f"Cells of up to {s['max_nodes']} vertices and {s['max_edges']} edges; {s['metric']} accuracy,"
        f" {s['lookup']} lookup, {s['method']}, Cp {s['cp']:g}{''.join(extras)}, seed {s['seed']}.",
        f"Outcome: {plain(run.outcome)}, at {run.samples:,} unique samples; best accuracy {drawing.best_accuracy:.7f}.",
        f"{drawn_nodes(run, drawing)} Lines lead to {parents}.{closed}",
        f"Colours from {low:.4f} to {high:.4f}, the {q:.0%} and {r:.0%} quantiles of the values above 0 of the"
        f" {min(MAX_DRAWN, len(run.states)):,} nodes with most visits; values beyond have the colour of the end.{predicted}",
    ]


def drawn_nodes(run: Run, drawing: Drawing) -> str:
    """How much of the tree is drawn, and which part."""
    total, number = len(run.states), len(drawing.drawn)
    lead = ", what leads to them," if run.settings["backup"] == "path" else ","  # else visits shrink towards the leaves
    which = f"those with at least {drawing.least:,} visits{lead} and the best path" if number < total else "all of them"
    return f"Drawn: {number:,} of {total:,} nodes: {which}."


# --- the picture ------------------------------------------------------------------------------


def draw_tree(run: Run, drawing: Drawing, folder: Path) -> list[Path]:
    """Write tree.png and tree.svg."""
    figure = plt.figure(figsize=(13, 9))
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
    return save(figure, folder, "tree")


def areas(visits: np.ndarray | int, drawn: int) -> np.ndarray:
    """Square points for numbers of visits, which span five orders of magnitude; where few are drawn, they are larger."""
    return 4 * np.asarray(visits, float) ** 0.3 * min(8, max(1, MAX_DRAWN / drawn) ** 0.7)


def decorate(figure: plt.Figure, dots, run: Run, drawing: Drawing) -> None:
    """Title, colour bar, legend and caption, in a column on the right."""
    left, text = 0.705, {"parse_math": False, "color": "#222222"}  # a $ in the name of a table is a $
    figure.text(left, 0.935, "Where the search has been", size=16, weight="bold", **text)
    place = figure.add_axes((left, 0.875, 0.27, 0.018))
    bar = figure.colorbar(dots, cax=place, orientation="horizontal", extend="both")
    bar.set_label(f"value: mean {run.settings['metric']} accuracy found from there (x_bar)", size=9)
    look = {"fontsize": 9.5, "frameon": False, "labelspacing": 0.75}
    figure.legend(handles=legend(run, drawing), loc="upper left", bbox_to_anchor=(left - 0.01, 0.80), **look)
    lines = [textwrap.fill(sentence, 50, break_on_hyphens=False) for sentence in caption(run, drawing)]
    figure.text(left, 0.03, "\n\n".join(lines), size=9.5, va="bottom", linespacing=1.25, **text)


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


def save(figure: plt.Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg, the same bytes for the same picture."""
    paths, pixels = [folder / f"{name}.png", folder / f"{name}.svg"], io.BytesIO()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": name}):
            warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
            figure.savefig(pixels, dpi=120)
            figure.savefig(paths[1], dpi=200, metadata={"Date": None})
        fewer_colours(Image.open(pixels).convert("RGB")).save(paths[0], optimize=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    plt.close(figure)
    return paths


def fewer_colours(image: Image.Image) -> Image.Image:
    """With 256 colours, half of them those of the colour bar: a third of the size in a file."""
    found = image.quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).getpalette()[: 3 * 128]
    shades = np.round(255 * matplotlib.colormaps[COLOURS](np.linspace(0, 1, 126))[:, :3]).astype(int)
    palette = Image.new("P", (1, 1))
    palette.putpalette([*found, *shades.ravel().tolist(), 0, 0, 0, 255, 255, 255])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


# --- a cell -----------------------------------------------------------------------------------


def read_cell(text: str) -> State:
    """The cell in JSON form; an InputError where it is none."""
    try:
        return State.from_dict(json.loads(text))
    except (RecursionError, ValueError) as error:
        raise InputError(f"--cell is neither best nor a cell: {error!s:.200}") from error


def arcs(state: State) -> list[tuple[int, int, int]]:
    """The edges (x, y, side) of a cell whose vertices stand in a row.

    Side 0 is straight to the next vertex; 1 and -1 are arcs above and below, which touch no vertex. Each takes
    the side where it crosses fewer others. (visualize.html does the same.)
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
    edges, step, wide, high = arcs(state), 2.3, 1.5, 0.8
    tops = [(side, edge_curve(x * step, y * step, side, wide, high).get_extents()) for x, y, side in edges]
    reach = [max([high / 2, *(max(abs(box.y0), abs(box.y1)) for s, box in tops if s == side)]) for side in (0, 1, -1)]
    size = step * (state.vertices - 1) + wide + 0.4, reach[1] + reach[-1] + 1.1
    figure = plt.figure(figsize=(size[0] * 0.75, size[1] * 0.75))
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
    words = textwrap.fill(title, max(24, int(size[0] * 8)))
    axes.text(-wide / 2, size[1] - reach[-1] - 0.35, words, va="top", size=10, color="#222222", parse_math=False)
    return save(figure, folder, "cell")


def edge_curve(start: float, end: float, side: int, wide: float, high: float) -> Curve:
    """From the box at ``start`` to that at ``end``: straight, or in an arc that is higher the further it goes."""
    if side == 0:
        return Curve([(start + wide / 2, 0), (end - wide / 2, 0)])
    first, last, foot = start + wide / 4, end - wide / 4, side * high / 2
    top = foot + side * (end - start) * 0.28
    return Curve([(first, foot), (first, top), (last, top), (last, foot)], [Curve.MOVETO] + [Curve.CURVE4] * 3)


# --- the page ---------------------------------------------------------------------------------


def write_page(run: Run, drawing: Drawing, folder: Path) -> Path:
    """Write tree.html, with everything that it needs in it.

    Text of files reaches the page as escaped JSON and escaped HTML only, and the page allows no script but its own.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)
    data = json.dumps(page_data(run, drawing), separators=(",", ":"))
    for letter in "<>&":  # </script> in a string would end the data; in JSON only strings can have these
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    content = {
        "DATA": data,
        "CAPTION": "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in caption(run, drawing)),
        "HASH": b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    page = re.sub("@@([A-Z]+)@@", lambda match: content[match[1]], template)
    path = folder / "tree.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error
    return path


def page_data(run: Run, drawing: Drawing) -> dict:
    """What the page draws; lists have one entry for each drawn node."""
    states = [run.states[i] for i in drawing.drawn.tolist()]
    paths = [
        {"label": "best path", "nodes": drawing.best, "colour": BEST, "dashes": []},
        {"label": "low-value path", "nodes": drawing.low, "colour": LOW, "dashes": [3, 3]},
        {"label": "high-value path", "nodes": drawing.high, "colour": HIGH, "dashes": [11, 3]},
    ]
    return {
        "total": len(run.states),
        "number": drawing.drawn.tolist(),
        "appears": drawing.appears.tolist(),
        "parent": drawing.parent.tolist(),
        "operations": ["".join(map(str, state.operations)) for state in states],
        "edges": [state.edges for state in states],
        "finished": [int(state.finished) for state in states],
        "closed": run.closed[drawing.drawn].astype(int).tolist(),
        "visits": run.visits[drawing.drawn].tolist(),
        "value": run.value[drawing.drawn].round(7).tolist(),
        "x": drawing.x.round(5).tolist(),
        "y": drawing.y.round(5).tolist(),
        "records": records(run),
        "best": drawing.best[-1],
        "best_is": drawing.best_is,
        "paths": paths,
        "value_is": f"value: mean {run.settings['metric']} accuracy",
        "limits": colour_limits(run),
        "colours": [to_hex(colour) for colour in matplotlib.colormaps[COLOURS](np.linspace(0, 1, 48))],
        "operations_by_number": cells.OPERATIONS,
        "boxes": BOXES,
        "plain": PLAIN,
    }


def records(run: Run) -> list[tuple[int, float]]:
    """The finished cells of the tree that were better than all before: number of the node, accuracy."""
    result: list[tuple[int, float]] = []
    for i, state in enumerate(run.states):
        if state.finished and run.value[i] > (result[-1][1] if result else 0):
            result.append((i, round(float(run.value[i]), 7)))
    return result


# --- the command ------------------------------------------------------------------------------


def build_parser() -> command.Parser:
    """The options of ``python visualize.py``."""
    parser = command.Parser(description="Draw the tree of a search, or a single cell.")
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=Path("results"), metavar="DIR", help="the --out of a search")
    add("--html", action="store_true", help="write tree.html, too: an interactive page")
    add("--max-drawn", type=command.whole_number(20), help=f"at most so many nodes, those with most visits; without it {MAX_DRAWN:,} in the picture, {MAX_IN_PAGE:,} in the page")
    add("--cell", metavar="best|JSON", help='draw one cell instead: the best network of the search, or {"adj_mat": ..., "node_list": ...}')
    add("--out", type=Path, metavar="FOLDER", help="where the pictures go; without it into DIR")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run ``python visualize.py``; returns the exit status."""
    options = build_parser().parse_args(argv)
    out = options.out or options.folder
    if options.cell is not None:
        print(*show_cell(options.cell, options.folder, out), sep="\n")
        return 0
    run = read_run(options.folder)
    drawing = arrange(run, options.max_drawn or MAX_DRAWN)
    print(*draw_tree(run, drawing, out), *caption(run, drawing), sep="\n")
    if options.html:
        drawing = arrange(run, options.max_drawn or MAX_IN_PAGE)
        print(write_page(run, drawing, out), drawn_nodes(run, drawing), sep="\n")
    return 0


def show_cell(wanted: str, folder: Path, out: Path) -> list[Path]:
    """Draw the best network of a search, or a cell in JSON form."""
    if wanted != "best":
        return draw_cell(read_cell(wanted), "", out)
    run = read_run(folder)
    cell, accuracy, *_ = best_network(run)
    if cell is None:
        raise InputError(f"the search in {folder} has found no network yet")
    words = f"Best network: {run.settings['metric']} accuracy {accuracy:.7f}, seed {run.settings['seed']}."
    return draw_cell(cell, f"{words} Table: {run.table}.", out)


if __name__ == "__main__":
    command.run(main)
