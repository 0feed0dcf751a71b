"""The page of a search: its tree as it grew, the best so far, the best cells, the trainings that failed."""

from pathlib import Path

import page_template
from nasbench_dataset import cells
from sampled_cells import best_cells, best_cells_words, best_over_samples, best_over_time, failures
from saved_run import Run
from saved_trainings import Trained
from tree_layout import Drawing
from tree_pictures import BEST, BOXES, HIGH, LOW, PLAIN, caption, colour_limits, colour_scale

SCRIPTS = ["parts.js", "tree.js", "sections.js"]


def write_page(run: Run, drawing: Drawing, trainings: dict[int, Trained], folder: Path) -> Path:
    """Write tree.html, with everything that it needs in it."""
    data = {**page_data(run, drawing), "found": found(run, trainings)}
    return page_template.write_page(folder / "tree.html", "run.html", SCRIPTS, data, caption(run, drawing))


def found(run: Run, trainings: dict[int, Trained]) -> dict:
    """What the sections below the tree show."""
    over_time = best_over_time(run, trainings)
    return {
        "accuracy_is": f"{run.settings['metric']} accuracy",
        "samples": len(run.samples),
        "over_samples": best_over_samples(run),
        "over_time": over_time,
        "time_words": TIME if over_time else "",
        "best_cells": best_cells(run, trainings),
        "best_cells_words": best_cells_words(run, trainings),
        "failed": len(run.failed),
        "failures": failures(run, trainings),
    }


TIME = (
    "Seconds are those of the trainings, one after the other, failed ones included and compiling not; several at a time"
    " take less by the clock, and one that was in the store before took none."
)


def page_data(run: Run, drawing: Drawing) -> dict:
    """What the page draws; lists have one entry for each drawn node."""
    states = [run.states[i] for i in drawing.drawn.tolist()]
    paths = [
        {"label": "best path", "nodes": drawing.best, "colour": BEST, "dashes": [], "is_best": True},
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
        "so_far": best_so_far(run),
        "so_far_is_exact": run.placed,
        "best_accuracy": round(drawing.best_accuracy, 7),
        "best_is_sure": run.best_is_sure,
        "best": drawing.best[-1],
        "best_is": drawing.best_is,
        "paths": paths,
        "value_is": f"value: mean {run.settings['metric']} accuracy",
        "limits": colour_limits(run),
        "colours": colour_scale(48),
        "operations_by_number": cells.OPERATIONS,
        "boxes": BOXES,
        "plain": PLAIN,
    }


def best_so_far(run: Run) -> list[tuple[int, float]]:
    """How good the best sample was as the tree grew: from how many nodes on, and the accuracy; ascending.

    Where it was not saved at how many nodes each new best was sampled (``placed``), it is the least that the best can
    have been: a finished cell was sampled by the time of its node, and so was what a node's own rollout found, which is
    the value of a node that was visited once. Predicted values tell nothing.
    """
    if run.placed:
        return [(best.nodes, round(best.accuracy, 7)) for best in run.bests]
    if run.guided:
        return []
    nodes = list(zip(run.states, run.value.tolist(), run.visits.tolist()))
    accuracies = {*run.dangling.values(), *(value for state, value, _ in nodes if state.finished)}
    result: list[tuple[int, float]] = []
    for i, (state, value, visits) in enumerate(nodes):
        sampled = state.finished or visits == 1 and not run.predicted
        if sampled and value in accuracies and value > (result[-1][1] if result else 0):  # else its rollout gave up
            result.append((i + 1, value))
    return [(number, round(value, 7)) for number, value in result]
