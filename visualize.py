"""Pictures of a search: its tree, an interactive page of it, a single cell.

    python visualize.py results                 results/tree.png and results/tree.svg
    python visualize.py results --html          results/tree.html, too: the tree as it grew, what it found
    python visualize.py comparison --html       comparison/comparison.html: the trials of compare.py
    python visualize.py results --cell best     results/cell.png and results/cell.svg: the best network
    python visualize.py --cell '{"adj_mat": [[0, 1], [0, 0]], "node_list": ["input", "output"]}'

A search that is still running, or was interrupted, can be drawn as well. Every file is written whole or not at all, and
nothing is printed before all are.
"""

import os
import sys

if (here := os.path.dirname(os.path.realpath(__file__))) not in sys.path:  # it is not under PYTHONSAFEPATH
    sys.path.insert(0, here)

from nasbench_dataset.signals import catch_signals

if __name__ == "__main__":
    catch_signals()  # the imports below take a while

import argparse
import json
from pathlib import Path

from arch_generator import State
from nasbench_dataset import InputError, command
from nasbench_dataset.files import printable
from saved_comparison import is_comparison, read_comparison
from saved_run import best_sample, read_run
from saved_trainings import read_trainings
from tree_layout import MAX_DRAWN, MAX_IN_PAGE, arrange


def build_parser() -> command.Parser:
    """The options of ``python visualize.py``."""
    parser = command.Parser(description="Draw the tree of a search, a comparison, or a single cell.")
    add = parser.add_argument
    what = "the --out of a search, or with --html of a comparison"
    add("folder", nargs="?", type=path, default=Path("results"), metavar="DIR", help=what)
    add("--html", action="store_true", help="write an interactive page, too: tree.html, or comparison.html")
    drawn = f"without it {MAX_DRAWN:,} in the picture, {MAX_IN_PAGE:,} in the page"
    most = f"at most so many nodes, those with most visits; {drawn}"
    add("--max-drawn", type=command.whole_number(20), metavar="N", help=most)
    cell = 'draw one cell instead: the best network of the search, or {"adj_mat": ..., "node_list": ...}'
    add("--cell", metavar="best|JSON", help=cell)
    add("--out", type=path, metavar="FOLDER", help="where the pictures go; without it into DIR")
    return parser


def path(text: str) -> Path:
    """An argparse type: a path, which an empty text is not, though it would be taken for the folder one is in."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path; name a folder")
    return Path(text)


def main(argv: list[str] | None = None) -> int:
    """Run ``python visualize.py``; returns the exit status."""
    options = build_parser().parse_args(argv)
    out = options.out or options.folder
    if options.cell is not None:
        lines = draw_one_cell(options.cell, options.folder, out)
    elif is_comparison(options.folder):
        lines = [draw_comparison(options, out)]
    else:
        lines = draw_run(options, out)
    print(*map(printable, lines), sep="\n")
    return 0


# Matplotlib is imported below and not above: where that fails, it is told in one line as any other error.


def draw_run(options: argparse.Namespace, out: Path) -> list[object]:
    """Draw the tree of a search; what to say of it."""
    from tree_page import write_page
    from tree_pictures import caption, draw_tree, drawn_nodes

    run = read_run(options.folder)
    trainings = read_trainings(run, options.folder) if options.html else {}
    make_folder(out)
    drawing = arrange(run, options.max_drawn or MAX_DRAWN)
    lines = [*draw_tree(run, drawing, out), *caption(run, drawing)]
    if options.html:
        drawing = arrange(run, options.max_drawn or MAX_IN_PAGE)
        page = write_page(run, drawing, trainings, out)
        lines += [page, drawn_nodes(run, drawing)]
    return lines


def draw_comparison(options: argparse.Namespace, out: Path) -> Path:
    """Write the page of a comparison; the file."""
    from comparison_page import write_page

    if not options.html:
        raise InputError(f"{options.folder} is a comparison, whose pictures compare.py draws; add --html for a page")
    comparison = read_comparison(options.folder)
    make_folder(out)
    return write_page(comparison, out)


def draw_one_cell(wanted: str, folder: Path, out: Path) -> list[Path]:
    """Draw the best network of a search, or a cell in JSON form; the files."""
    from tree_pictures import draw_cell

    cell, words = best_cell(folder) if wanted == "best" else (read_cell(wanted), "")
    make_folder(out)
    return draw_cell(cell, words, out)


def best_cell(folder: Path) -> tuple[State, str]:
    """The best network of a search, and what it is."""
    run = read_run(folder)
    cell, accuracy = best_sample(run)
    if cell is None:
        raise InputError(f"the search in {folder} has found no network yet")
    found = "Best network" if run.best_is_sure else "Best network that the save tells"
    words = f"{found}: {run.settings['metric']} accuracy {accuracy:.7f}, seed {run.settings['seed']}."
    return cell, printable(f"{words} Table: {run.table}.")


def read_cell(text: str) -> State:
    """The cell in JSON form; an InputError where it is none."""
    try:
        return State.from_dict(json.loads(text))
    except (RecursionError, ValueError) as error:
        raise InputError(f"--cell is neither best nor a cell: {printable(error, 200)}") from error
    except (LookupError, TypeError) as error:
        raise InputError("--cell is neither best nor a cell: no matrix 'adj_mat' and list 'node_list'") from error


def make_folder(folder: Path) -> None:
    """See that the folder of the pictures is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another --out") from error


if __name__ == "__main__":
    command.run(main)
