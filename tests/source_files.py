"""Files of every format that convert reads, with made-up accuracies, and what their tests share."""

import io
import math
import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
from nasbench_writer import IMAGES, Run, fields

from nasbench_dataset import InputError, cells, convert
from nasbench_dataset import table as tables

SOME = np.random.default_rng(7).permutation(cells.cell_count())[:300].tolist()


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str = "source"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def expected_columns(runs: list[Run]) -> dict[str, dict[int, float]]:
    """Column -> index -> the mean over the runs, or a single run; accuracies as exact integers over 29,952."""
    gathered = defaultdict(lambda: defaultdict(list))
    for r in runs:
        suffix = "" if r.epochs == 108 else f"_{r.epochs}"
        index = cells.index(*r.cell)
        gathered[f"valid{suffix}"][index].append(round(r.valid * IMAGES))
        gathered[f"train_seconds{suffix}"][index].append(r.seconds)
        if r.epochs == 108:
            gathered["test"][index].append(round(r.test * IMAGES))
    runs = {f"valid_run{number}": {} for number in range(3)}
    for index, numerators in gathered["valid"].items():
        runs |= {name: column | {index: n / IMAGES} for (name, column), n in zip(runs.items(), sorted(numerators))}
    return runs | {
        name: {i: math.fsum(v) / len(v) / (1 if name.startswith("train") else IMAGES) for i, v in column.items()}
        for name, column in gathered.items()
    }


def assert_columns(table: tables.Table, runs: list[Run], tolerance: float = 1e-7) -> None:
    expected = expected_columns(runs)
    assert set(table.columns) == set(expected)
    for name, values in table.columns.items():
        assert np.flatnonzero(~np.isnan(values)).tolist() == sorted(expected[name])
        for index, value in expected[name].items():
            assert values[index] == pytest.approx(value, rel=1e-7 if name.startswith("train") else tolerance)


def converted(path, dest) -> tables.Table:
    """Through the disk, as the command does it."""
    table, _ = convert.read(path, "test")
    tables.save(table, dest)
    return tables.load(dest)


def assert_refused_in_little_memory(call, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words):
            call()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def naslib(runs: list[Run]) -> dict:
    """The content of NASLib's file; one entry for each cell."""
    content = {}
    for r in runs:
        cell = cells.to_dict(*r.cell)
        fixed = {
            "module_adjacency": np.array(cell["adj_mat"]),
            "module_operations": cell["node_list"],
            "trainable_parameters": r.parameters,
        }
        _, budgets = content.setdefault(f"{cells.index(*r.cell):032x}", (fixed, {}))
        budgets.setdefault(r.epochs, []).append(
            {"final_test_accuracy": r.test, "final_validation_accuracy": r.valid, "final_training_time": r.seconds}
        )
    return content


def nasbenchapi(runs: list[Run]) -> dict:
    """The content of NASBenchAPI's file; one entry for each cell."""
    entries = defaultdict(list)
    for r in runs:
        _, epochs, adjacency, operations, encoded = fields(r)
        derived = {
            "trainable_parameters": r.parameters,
            "training_time": r.seconds,
            "train_accuracy": 1.0,
            "validation_accuracy": r.valid,
            "test_accuracy": r.test,
        }
        entries[f"{cells.index(*r.cell):032x}"].append(
            {
                "epoch": epochs,
                "adjacency_str": adjacency,
                "operations_str": operations,
                "metrics_b64": encoded,
                "derived": derived,
            }
        )
    about = {"benchmark": "nasbench101", "format": "lossless", "num_records": len(runs)}
    return about | {"entries_by_arch": dict(entries)}


def arrays_of(indices: list[int]) -> dict[str, np.ndarray]:
    """The fields of an archive, with made-up accuracies."""
    rng = np.random.default_rng(0)
    described = [cells.cell(i) for i in indices]
    return {
        "vertices": np.array([len(operations) + 2 for operations, _ in described], np.uint8),
        "edge_bits": np.array([edges for _, edges in described], np.uint32),
        "operations": np.array([(*o, *[255] * (5 - len(o))) for o, _ in described], np.uint8).reshape(-1, 5),
        "trainable_parameters": np.array([cells.trainable_parameters(*cell) for cell in described], np.uint32),
        "test": rng.integers(0, 29_953, len(indices)) / 29_952,
        "valid_12": rng.uniform(0, 1, len(indices)),
        "train_seconds": rng.uniform(0, 5_000, len(indices)),
        "something_else": np.array(["ignored"]),
    }


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
