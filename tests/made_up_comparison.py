"""A comparison with made-up trials, for tests of what its page shows."""

import json
import os
from pathlib import Path

from saved_trials import Trial

SETTINGS = {
    "max_nodes": 6, "max_edges": 9, "metric": "test", "lookup": "exact", "samples": 40, "patience": 10, "table": "abc",
}  # fmt: skip


def result_of(method: str, seed: int, trace: list, outcome: str = "samples", **settings) -> dict:
    """What the file of a trial holds that took 40 samples, or found the best with its last entry."""
    trial = vars(Trial(method, "{}", seed, **{**SETTINGS, **settings}))
    samples = trace[-1][0] if outcome == "found" else 40
    return {"trial": trial, "outcome": outcome, "samples": samples, "lookups": 50, "seconds": 0.5, "trace": trace}


RESULTS = [
    result_of("tuned", 0, [[1, 0.5, 0.5], [30, 0.9, 0.9]], "found"),
    result_of("tuned", 1, [[2, 0.6, 0.6], [20, 0.9, 0.9]], "found"),
    result_of("random", 0, [[1, 0.4, 0.4], [35, 0.8, 0.8]]),
    result_of("random", 1, [[1, 0.3, 0.3], [10, 0.7, 0.7]]),
]


def write_trials(folder: Path, results: list[dict]) -> None:
    """Write each trial's file; each a second younger than the one before."""
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    for age, result in enumerate(results):
        path = folder / "trials" / Trial(**result["trial"]).file_name
        path.write_text(json.dumps(result))
        os.utime(path, (age, age))


def write_main(folder: Path, names: list[str], **changes) -> None:
    """Write comparison.json, as far as it is read."""
    entries = [{"method": method, "at": {"10": None, "40": None}} for method in names]
    content = {"settings": {**SETTINGS, "trials": 2}, "best_test": 0.9, "methods": entries, **changes}
    (folder / "comparison.json").write_text(json.dumps(content))
