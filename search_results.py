"""The results of a search, and the files that hold them.

``summary.json`` has the last search of a folder. ``result.txt`` has a line for every finished search, in the original's
format: its trace, ``[[accuracy, unique samples so far], ...]``, a pair for each new best. What it was a search of, that
format cannot say; so ``results.jsonl`` has for each the content of its summary.json, on one line.
"""

import json
from pathlib import Path
from typing import Callable

from checkpoint import RESULTS
from driver import Outcome
from nasbench_dataset.files import read_regular
from nasbench_dataset.table import EMBEDDED
from options import to_dict
from search import Search

SUMMARY, TRACES, SUMMARIES = RESULTS
LARGEST = 2**26  # bytes of a file of results; a finished search adds some thousand
# A search that ends so gets its lines. No set: what a damaged save has there may not be hashable.
FINISHED = tuple(outcome.value for outcome in Outcome if outcome.finished)
# What of a summary can differ between two ends of one search with equally many samples.
INCIDENTAL = {
    *("outcome", "best_accuracy", "best_network", "lookups", "episodes", "tree_nodes", "seconds", "fits"),
    *("dataset", "preset"),
}


def summarise(search: Search, options, outcome: str, seconds: float) -> dict:
    """The content of summary.json."""
    trainer, history, method = search.trainer, search.history, search.method
    return {
        "method": method.name,
        "seed": search.seed,
        "max_nodes": trainer.generator.max_nodes,
        "max_edges": trainer.generator.max_edges,
        "dataset": dataset_of(options),
        "metric": trainer.metric,
        "lookup": trainer.lookup,
        "cp": search.options.cp,
        "outcome": outcome,
        "best_accuracy": history.best_accuracy,
        "best_network": history.best.to_dict() if history.best else None,
        "unique_samples": history.unique_samples,
        "lookups": history.counter,
        "episodes": method.episodes,
        "tree_nodes": len(method.tree),
        "seconds": round(seconds, 3),
        "trace": [list(pair) for pair in history.best_trace],
        "preset": options.preset,
        **to_dict(search.options),
        **method.details(),
        **trainer.details(history),
    }


def dataset_of(options) -> str:
    """Where the accuracies of a search come from."""
    if hasattr(options, "train"):
        return f"trained on {options.train}"
    return "embedded surrogate" if Path(options.dataset) == EMBEDDED else str(options.dataset)


def result_files(folder: Path, summary: dict, reported: int | None) -> dict[str, bytes]:
    """What the files of results shall hold, by name.

    Parameters
    ----------
    folder : Path
        Where they are.
    summary : dict
        Of the search as it is now. One that has ended gets a line in result.txt (its trace) and one in results.jsonl.
    reported : int, optional
        The unique samples with which this search had ended before: these lines replace the ones that it got then.

    Raises
    ------
    OSError
        If result.txt or results.jsonl is there and cannot be read.
    """
    if summary["outcome"] not in FINISHED:
        return {SUMMARY: summary_file(summary)}
    traces, summaries = (content_of(folder / name) for name in (TRACES, SUMMARIES))
    if reported is not None:
        trace = [pair for pair in summary["trace"] if pair[1] <= reported]
        traces = without(traces, lambda text: text == line(trace))
        then = {**summary, "trace": trace, "unique_samples": reported}
        summaries = without(summaries, lambda text: is_summary(text, then))
    return {
        TRACES: traces + line(summary["trace"]),
        SUMMARIES: summaries + line(summary),
        SUMMARY: summary_file(summary),
    }


def check_results(folder: Path) -> None:
    """Raise an OSError where no line can be added to a file of results that is there, since it cannot be read."""
    for name in (TRACES, SUMMARIES):
        try:
            content_of(folder / name)
        except OSError as error:
            raise OSError(error.errno, f"{name} there cannot be read ({error.strerror})") from error


def content_of(path: Path) -> bytes:
    """The lines of a file, the last one with its end, too; none where it is not there."""
    content = read_regular(path, LARGEST) if path.exists() else b""
    return content if content.endswith(b"\n") or not content else content + b"\n"


def without(lines: bytes, is_old: Callable[[bytes], bool]) -> bytes:
    """The lines without the last one that is old, if any is."""
    end = len(lines)
    while end:
        start = lines.rfind(b"\n", 0, end - 1) + 1
        if is_old(lines[start:end]):
            return lines[:start] + lines[end:]
        end = start
    return lines


def is_summary(text: bytes, summary: dict) -> bool:
    """Whether a line of results.jsonl is of the same search, ended with as many samples."""
    try:
        found = json.loads(text)
        return all(found[name] == summary[name] for name in summary.keys() - INCIDENTAL)
    except (LookupError, RecursionError, TypeError, ValueError):  # whoever wrote something else there
        return False


def line(data: object) -> bytes:
    """JSON on one line."""
    return (json.dumps(data, allow_nan=False) + "\n").encode()


def summary_file(summary: dict) -> bytes:
    """The content of summary.json as a file."""
    return (json.dumps(summary, indent=1, allow_nan=False) + "\n").encode()
