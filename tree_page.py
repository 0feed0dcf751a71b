"""The tree of a search as an interactive page; visualize.html is its template."""

import hashlib
import html
import json
import re
from base64 import b64encode
from pathlib import Path

from nasbench_dataset import InputError, cells
from nasbench_dataset.files import write_atomically
from saved_run import Run
from tree_layout import Drawing
from tree_pictures import BEST, BOXES, HIGH, LOW, PLAIN, caption, colour_limits, colour_scale

TEMPLATE = Path(__file__).with_name("visualize.html")


def write_page(run: Run, drawing: Drawing, folder: Path) -> Path:
    """Write tree.html, with everything that it needs in it.

    Text of files reaches the page as escaped JSON and escaped HTML only, and the page allows no script but its own.
    """
    try:
        template = TEMPLATE.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {TEMPLATE}, a part of this project: {error.strerror}") from error
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
    write_atomically(path, page.encode())
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
