"""NAS-Bench-101 as other projects pickle it: NASLib's file and NASBenchAPI's, read without executing anything.

NASLib: ``{hash: ({"module_adjacency": array, "module_operations": list, "trainable_parameters": int},
{epochs: [{"final_test_accuracy": float, "final_validation_accuracy": ..., "final_training_time": ...}, ...]})}``.

NASBenchAPI: ``{"benchmark": "nasbench101", "entries_by_arch": {hash: [{"epoch": int, "adjacency_str": str,
"operations_str": str, "metrics_b64": str, "derived": {"trainable_parameters": int, "training_time": float,
"validation_accuracy": float, "test_accuracy": float}}, ...]}}``. This layout is the one that its published converter
writes.
"""

from pathlib import Path

import numpy as np

from nasbench_dataset import InputError, cells
from nasbench_dataset.official import cell_of
from nasbench_dataset.runs import NUMBERS, Runs


def is_nasbenchapi(content: dict) -> bool:
    """Whether the content of a pickle is laid out as NASBenchAPI does."""
    return "entries_by_arch" in content


def read_pickled(path: str | Path, content: dict) -> Runs:
    """Take the runs out of the content of a pickle.

    Raises
    ------
    InputError
        If an entry is not laid out as above.
    """
    nasbenchapi = is_nasbenchapi(content)
    entries, add = (content["entries_by_arch"], _add_nasbenchapi) if nasbenchapi else (content, _add_naslib)
    if not isinstance(entries, dict):
        raise InputError(f"{path}: its entries_by_arch is not a dictionary, so it is none of NASBenchAPI's files")
    runs = Runs()
    for key, entry in entries.items():
        try:
            add(runs, entry)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            layout = "NASBenchAPI" if nasbenchapi else "NASLib"
            where = f"{path}: the entry {cells.shown(key)}"
            raise InputError(f"{where} is not laid out as in {layout}'s file: {reason}") from error
    return runs


def _add_naslib(runs: Runs, entry: tuple[dict, dict]) -> None:
    fixed, budgets = entry
    matrix, names = fixed["module_adjacency"], fixed["module_operations"]
    cell = cells.from_dict({"adj_mat": _as_lists(matrix), "node_list": _as_lists(names)})
    for epochs, trained in budgets.items():
        for run in trained:
            runs.add(
                cell,
                epochs,
                run["final_test_accuracy"],
                run["final_validation_accuracy"],
                run["final_training_time"],
                fixed["trainable_parameters"],
                tuple(value for value in run.values() if type(value) in NUMBERS),
            )


def _as_lists(values: object) -> object:
    """A small array as lists; anything else as it is."""
    return values.tolist() if isinstance(values, np.ndarray) and values.size <= cells.MAX_VERTICES**2 else values


def _add_nasbenchapi(runs: Runs, entry: list[dict]) -> None:
    for run in entry:
        values, encoded = run["derived"], run["metrics_b64"]
        if not isinstance(encoded, str):
            raise ValueError("its metrics_b64 is no text")
        runs.add(
            cell_of(run["adjacency_str"], run["operations_str"]),
            run["epoch"],
            values["test_accuracy"],
            values["validation_accuracy"],
            values["training_time"],
            values["trainable_parameters"],
            encoded,
        )
