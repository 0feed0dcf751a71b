"""A search as the files in its folder tell it, for whoever shows it.

Only files of the run are read (``search``, what it lists, and ``summary.json``), and nothing in them is executed or
changed; so a search that is still running, or was interrupted, can be read as well. The files may come from anywhere:
what no search writes is refused, and so is what would take too much memory.
"""

import contextlib
import json
import math
import re
import stat
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

import checkpoint
from arch_generator import ROOT, State, arch_generator
from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable

SUMMARY = "summary.json"
STORE = "trainings.sqlite"  # the store of trainings that none was named for
WAITS = 0.0, 0.1, 0.4  # seconds between attempts to read a folder in which a search is saving
LARGEST_MAIN = 16 << 20  # bytes of ``search`` and summary.json, which at most hold every cell of the table
LARGEST_FILE = 256 << 20  # of another file; a tree of a million nodes has 90 MB, and reading it takes ten times that
LARGEST_SAVE = 2 * LARGEST_FILE  # of all of them
LARGEST_CP = 1e6  # that a search takes


class Best(NamedTuple):
    """A sample that was better than all before.

    Attributes
    ----------
    accuracy : float
    sample : int
        Its number among the unique samples, from 1.
    nodes : int or None
        How many nodes the tree had then, the one included for which it was taken; None where that was not saved.
    """

    accuracy: float
    sample: int
    nodes: int | None = None


@dataclass
class Run:
    """A search as its files tell it.

    Attributes
    ----------
    states : list of State
        The tree, in the order of creation; the root is the first.
    parent : int [N]
        The number of each node's parent, the state before its last action; -1 for the root. It is the node from which
        this one was first created or, with back-up along the path, last reached: then it can be younger, and have
        fewer visits.
    visits, value, closed : int [N], float [N], bool [N]
        ``n``, ``x_bar`` and ``closed`` of each node.
    dangling : dict of State to float
        Finished cells that rollouts or the guide sampled and the tree has not reached, with their accuracy.
    settings : dict
        ``method``, ``seed``, ``max_nodes``, ``max_edges``, ``metric``, ``lookup``, ``cp``, ``backup``,
        ``close_exhausted``, ``guide``.
    outcome : str
        What ended the search, or that nothing did.
    samples : list of int
        The unique samples, in their order: indices of cells.
    bests : list of Best or None
        The samples that were better than all before; None where neither the save nor a summary has them.
    table : str
        What the accuracies come from, in words.
    failed : list of int
        Cells whose training has failed, by their indices.
    fingerprint : str
        SHA-256 of what decides about accuracies.
    store : str
        The name of the file of trainings.
    """

    states: list[State]
    parent: np.ndarray
    visits: np.ndarray
    value: np.ndarray
    closed: np.ndarray
    dangling: dict[State, float]
    settings: dict
    outcome: str
    samples: list[int]
    bests: list[Best] | None
    table: str
    failed: list[int] = field(default_factory=list)
    fingerprint: str = ""
    store: str = STORE

    @property
    def guided(self) -> bool:
        """Whether the values of all nodes may be predicted ones."""
        return self.settings["guide"] > 0

    @property
    def predicted(self) -> bool:
        """Whether the values of unfinished states may be predicted ones."""
        return self.guided or self.settings["method"] == "mcts-metadnn"

    @property
    def placed(self) -> bool:
        """Whether it is known at how many nodes each new best was sampled."""
        return self.bests is not None and all(best.nodes is not None for best in self.bests)

    @property
    def best_is_sure(self) -> bool:
        """Whether no sample can be better than ``best_sample``."""
        return self.bests is not None or not self.guided


# --- files ------------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """The search saved in a folder.

    Raises
    ------
    InputError
        If there is none, or its files are damaged, too large, or cannot be read.
    """
    try:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; give the --out of a search")
        if not any((folder / (checkpoint.MAIN + suffix)).exists() for suffix in ("", checkpoint.NEW)):
            raise InputError(f"no search is saved in {folder}; give the --out of a search")
        main, files = read_save(folder)
        summary = read_summary(folder / SUMMARY)
        return parse_run(main, files, summary)
    except OSError as error:
        raise InputError(f"cannot read the search saved in {folder}: {error.strerror}") from error
    except MemoryError as error:
        raise InputError(f"there is not enough memory for the search saved in {folder}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, what: object) -> InputError:
    """The error for files that are not as a search leaves them."""
    return InputError(f"the search saved in {folder} is damaged ({printable(what, 200)}) and cannot be drawn")


def read_save(folder: Path) -> tuple[dict, dict[str, bytes]]:
    """The content of ``search`` and of the files it lists, all from one save.

    A search may be saving meanwhile, or have been killed in it: then some files are still named ``NAME.new``.
    """
    for wait in WAITS:
        time.sleep(wait)
        for suffix in ("", checkpoint.NEW):
            with contextlib.suppress(FileNotFoundError):
                check_sizes(folder, suffix)
                if found := checkpoint.find(folder, suffix):
                    return found[:2]
    raise damaged(folder, f"{checkpoint.MAIN!r}, or a file that it lists")


def check_sizes(folder: Path, suffix: str) -> None:
    """Refuse a save that would take too much memory, or for ever, to read."""
    main = folder / (checkpoint.MAIN + suffix)
    check_size(main, LARGEST_MAIN)
    try:
        listed = list(json.loads(main.read_bytes())["files"])
    except (LookupError, RecursionError, TypeError, ValueError):
        return  # it is not read any further
    total = 0
    for path in (folder / f"{name}{where}" for name in listed for where in ("", checkpoint.NEW)):
        with contextlib.suppress(FileNotFoundError):
            total += check_size(path, LARGEST_FILE)
    if total > LARGEST_SAVE:
        most = megabytes(LARGEST_SAVE)
        raise InputError(f"the save in {folder} has {megabytes(total)}; no more than {most} of it are read")


def check_size(path: Path, most: int) -> int:
    """The size of a file in bytes; an InputError where it is no file, or larger than any that a search writes.

    It is looked at once only, as a search may rename it meanwhile.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a file, as a search writes it")
    if found.st_size > most:
        raise InputError(f"{path} has {megabytes(found.st_size)}; no more than {megabytes(most)} of it are read")
    return found.st_size


def megabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 2**20:,.0f} MB"


def read_summary(path: Path) -> dict:
    """The content of summary.json; empty where there is none. A ValueError where it is not what a search writes."""
    try:
        check_size(path, LARGEST_MAIN)
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (RecursionError, ValueError) as error:
        raise ValueError(SUMMARY) from error
    if type(content) is not dict:
        raise ValueError(SUMMARY)
    return content


# --- what is in them --------------------------------------------------------------------------


def parse_run(main: dict, files: dict[str, bytes], summary: dict) -> Run:
    """The run in these files.

    Raises
    ------
    LookupError, TypeError, ValueError
        If anything is not as a search writes it.
    """
    settings = parse_settings(main["settings"])
    try:
        generator = arch_generator(settings["max_nodes"], settings["max_edges"])
    except InputError as error:
        raise ValueError(error) from error
    least = 0 if main.get("open") else 1  # no visit yet where the question for the value of a node is still open
    states, parent, visits, value, closed = parse_nodes(files["nodes"], generator, settings, least)
    operations, edges, accuracies = checkpoint.columns(files["dangling_nodes"], "operations", "edges", "value")
    ends = checkpoint.states(operations, edges, [True] * len(edges), generator)
    dangling = dict(zip(ends, checkpoint.numbers(accuracies, float, 0, 1, "value")))
    samples, failed = (parse_indices(main, name) for name in ("samples", "failed"))
    outcome = "not ended" if main["outcome"] is None else text(main["outcome"], "outcome")
    summary = summary if is_of(summary, main, len(states)) else {}
    bests = parse_bests(main, summary, len(states))
    arrays = np.array([-1, *parent[1:]]), np.array(visits), np.array(value), np.array(closed)
    known = dangling, settings, outcome, samples, bests, describe_table(summary)
    return Run(states, *arrays, *known, failed, printable(main["settings"].get("table"), 80), store_of(summary))


def parse_indices(main: dict, name: str) -> list[int]:
    """Cells by their indices; older versions did not save those that failed."""
    found = main.get(name, []) if name == "failed" else main[name]
    return checkpoint.numbers(found, int, 0, cells.cell_count() - 1, name)


def store_of(summary: dict) -> str:
    """The name of the store of trainings, which is looked for in the folder of the run and nowhere else."""
    training = summary.get("training", {})
    path = training["store"] if training else STORE
    if type(path) is not str or not path.isprintable():
        raise ValueError(f"{SUMMARY}: store")
    return Path(path).name


def parse_settings(saved: dict) -> dict:
    """What a caption needs of the settings."""
    settings = {name: saved[name] for name in ("method", "metric", "lookup", "backup")}
    if not all(type(word) is str and re.fullmatch(r"[\w-]{1,40}", word, re.ASCII) for word in settings.values()):
        raise ValueError("settings")
    if settings["backup"] not in ("first-parent", "path"):
        raise ValueError("settings: backup")
    for name in ("seed", "max_nodes", "max_edges", "guide"):
        settings[name] = checkpoint.numbers([saved[name]], int, 0, math.inf, name)[0]
    settings["cp"] = checkpoint.numbers([saved["cp"]], float, 0, LARGEST_CP, "cp")[0]
    name = "close_exhausted"
    settings[name] = checkpoint.numbers([saved[name]], bool, False, True, name)[0]
    return settings


def text(value: object, what: str) -> str:
    """Text of a file as one short printable line."""
    if type(value) is not str:
        raise ValueError(f"{what}: no text")
    return printable(value, 80)


def parse_nodes(
    content: bytes, generator: arch_generator, settings: dict, least: int
) -> tuple[list[State], list, list[int], list[float], list[bool]]:
    """The columns of a tree that are shown: states, parents, visits (at least ``least``), values, closed."""
    names = "operations", "edges", "finished", "parent", "n", "x_bar", "closed", "children"
    operations, edges, finished, parent, visits, value, closed, _ = checkpoint.columns(content, *names)
    states = checkpoint.states(operations, edges, finished, generator)
    checkpoint.numbers(visits, int, least, 2**53, "n")
    checkpoint.numbers(value, float, 0, 1, "x_bar")
    checkpoint.numbers(closed, bool, False, True, "closed")
    closing = settings["close_exhausted"]
    if any(c != closing if state.finished else c > closing for c, state in zip(closed, states)):
        raise ValueError("nodes: closed, or not, against the settings")
    check_parents(states, parent, visits, settings["backup"])
    return states, parent, visits, value, closed


def check_parents(states: list[State], parent: list, visits: list[int], backup: str) -> None:
    """A ValueError where these are not the parents of a tree that grew from the root.

    That each parent is one action before the node leaves no room for a cycle.
    """
    if not states or states[0] != ROOT or parent[0] is not None or len(set(states)) < len(states):
        raise ValueError("nodes: not a tree that grew from the root")
    checkpoint.numbers(parent[1:], int, 0, len(states) - 1, "parent")
    if not all(one_action(states[p], state) for p, state in zip(parent[1:], states[1:])):
        raise ValueError("nodes: more than one action away from the parent")
    if backup == "first-parent" and any(
        i <= p or visits[i] > max(1, visits[p]) for i, p in enumerate(parent[1:], 1)
    ):
        raise ValueError("nodes: older, or with more visits, than the parent")


def one_action(before: State, after: State) -> bool:
    """Whether some action leads from one state to the other; adding a vertex wipes the edges."""
    if before.finished:
        return False
    if before.operations != after.operations:
        return before.operations == after.operations[:-1] and after.edges == 0 and not after.finished
    added = after.edges & ~before.edges
    return not before.edges & ~after.edges and added.bit_count() == (0 if after.finished else 1)


def is_of(summary: dict, main: dict, nodes: int) -> bool:
    """Whether a summary is that of the search as it was saved; it may be of another, or of an earlier part of it."""
    saved = {name: value for name, value in main["settings"].items() if name in summary}
    here = {"tree_nodes": nodes, "episodes": main["episodes"], "seed": main["settings"]["seed"], **saved}
    counts = {"unique_samples": len(main["samples"]), "lookups": main["counter"]}
    return all(name in summary and summary[name] == value for name, value in {**here, **counts}.items())


def describe_table(summary: dict) -> str:
    """Where the accuracies come from; only summary.json has it."""
    if not summary:
        return f"not known (no {SUMMARY} of this search)"
    source = text(summary["dataset"], f"{SUMMARY}: dataset")
    if source == "embedded surrogate":
        return "embedded surrogate, fitted to published measurements; not NAS-Bench-101 itself"
    return source


# --- the best ---------------------------------------------------------------------------------


def parse_bests(main: dict, summary: dict, nodes: int) -> list[Best] | None:
    """Each new best sample: of ``search`` where it has them, else of the ``trace`` of its summary.

    ``search`` may have ``bests``, a list of ``[accuracy, unique samples, tree nodes]``.
    """
    if "bests" in main:
        bests = [Best(*entry) for entry in main["bests"]]
        places = checkpoint.numbers([best.nodes for best in bests], int, 0, nodes, "bests")
        if places != sorted(places):
            raise ValueError("bests: not in the order of the nodes")
    elif summary:
        bests = [Best(*entry, None) for entry in summary["trace"]]
    else:
        return None
    accuracies = checkpoint.numbers([best.accuracy for best in bests], float, 0, 1, "bests")
    samples = checkpoint.numbers([best.sample for best in bests], int, 1, len(main["samples"]), "bests")
    if any(column != sorted(set(column)) for column in (accuracies, samples)) or bool(bests) != bool(main["samples"]):
        raise ValueError("bests: not each better than those before")
    return bests


def best_sample(run: Run) -> tuple[State | None, float]:
    """The best sample, as the tree or a rollout met it, and its accuracy; None and 0 where there is none.

    With a guide the values of the tree's finished cells may be predicted ones, and a cell that is sampled later keeps
    that. So where ``bests`` is not known it is the best of what rollouts and the guide sampled: not ``best_is_sure``.
    """
    finished = {state: x for state, x in zip(run.states, run.value.tolist()) if state.finished}
    if run.bests is None:
        known = run.dangling if run.guided else {**finished, **run.dangling}
        in_table = ((cell, x) for cell, x in known.items() if x > 0)  # other cells are worth 0
        return max(in_table, key=lambda item: item[1], default=(None, 0.0))
    if not run.bests:
        return None, 0.0
    accuracy, sample, _ = run.bests[-1]
    stored = cells.cell(run.samples[sample - 1])
    form = cells.stored_form if run.settings["lookup"] == "isomorphic" else lambda *labelled: labelled
    likely = chain(
        (cell for cell, x in finished.items() if run.guided or x == accuracy),
        (cell for cell, x in run.dangling.items() if x == accuracy),
    )
    found = (cell for cell in likely if form(cell.operations, cell.edges) == stored)
    return next(found, State(*stored, True)), accuracy
