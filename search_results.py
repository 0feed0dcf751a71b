"""The results of a search, and the files that hold them.

``summary.json`` has the last search of a folder. ``result.txt`` has a line for every finished search, in the original's
format: its trace, ``[[accuracy, unique samples so far], ...]``, a pair for each new best. What it was a search of, that
format cannot say; so ``results.jsonl`` has for each the content of its summary.json, on one line.
"""

import json
from pathlib import Path
from typing import Callable

from checkpoint import LARGEST, RESULTS
from driver import Outcome
from nasbench_dataset.files import read_regular
from nasbench_dataset.table import EMBEDDED
from options import to_dict
from search import Search

SUMMARY, TRACES, SUMMARIES = RESULTS
FINISHED = {outcome.value for outcome in Outcome if outcome.finished}  # a search that ends so gets its lines
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
    traces, summaries = lines_of(folder / TRACES), lines_of(folder / SUMMARIES)
    if reported is not None:
        trace = [pair for pair in summary["trace"] if pair[1] <= reported]
        forget(traces, lambda text: text == line(trace))
        forget(summaries, lambda text: is_summary(text, {**summary, "trace": trace, "unique_samples": reported}))
    return {
        TRACES: b"".join([*traces, line(summary["trace"])]),
        SUMMARIES: b"".join([*summaries, line(summary)]),
        SUMMARY: summary_file(summary),
    }


def lines_of(path: Path) -> list[bytes]:
    """The lines of a file, each with its end; none where it is not there."""
    content = read_regular(path, LARGEST) if path.exists() else b""
    return [text + b"\n" for text in content.removesuffix(b"\n").split(b"\n")] if content else []


def forget(lines: list[bytes], is_old: Callable[[bytes], bool]) -> None:
    """Remove the last line that is old, if any is."""
    for place in reversed(range(len(lines))):
        if is_old(lines[place]):
            del lines[place]
            return


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
