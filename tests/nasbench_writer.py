"""Writes files laid out like the official ones of NAS-Bench-101, with made-up accuracies, for tests."""

import base64
import json
import struct
from typing import Iterable, Iterator, NamedTuple

import google_crc32c
import numpy as np

from nasbench_dataset import cells
from nasbench_dataset.official import metrics_class

IMAGES = 9_984  # on which an accuracy was measured


class Run(NamedTuple):
    """A training of a cell."""

    cell: tuple[tuple[int, ...], int]
    epochs: int
    test: float
    valid: float
    seconds: float
    parameters: int


def made_up_runs(indices: Iterable[int], budgets: Iterable[int] = (108,), seed: int = 0) -> Iterator[Run]:
    """Three runs of every cell and budget, in the official order: budget by budget for each cell."""
    rng = np.random.default_rng(seed)
    for index in indices:
        cell = cells.cell(int(index))
        parameters = cells.trainable_parameters(*cell)
        for epochs in budgets:
            for test, valid in rng.integers(1_000, IMAGES, (3, 2)).tolist():
                accuracies = (float(np.float32(images / IMAGES)) for images in (test, valid))
                yield Run(cell, epochs, *accuracies, float(np.float32(epochs * rng.uniform(5, 50))), parameters)


def metrics(run: Run, evaluations: int = 3) -> bytes:
    """The protobuf message of a run; its evaluations but the last are not those at the end."""
    message = metrics_class()(trainable_parameters=run.parameters, total_time=2 * run.seconds)
    for number in range(evaluations):
        part = number / 2
        message.evaluation_data.add(
            current_epoch=run.epochs * part,
            training_time=run.seconds * part,
            train_accuracy=part,
            validation_accuracy=run.valid if part == 1 else 0.1,
            test_accuracy=run.test if part == 1 else 0.1,
        )
    return message.SerializeToString()


def fields(run: Run) -> list:
    """The five entries of a record."""
    cell = cells.to_dict(*run.cell)
    adjacency = "".join(str(entry) for row in cell["adj_mat"] for entry in row)
    operations = ",".join(cell["node_list"])
    return ["0" * 32, run.epochs, adjacency, operations, base64.b64encode(metrics(run)).decode()]


def masked(data: bytes) -> int:
    """The masked CRC-32C of TFRecord files."""
    checksum = google_crc32c.value(data)
    return ((checksum >> 15) + (checksum << 17) + 0xA282EAD8) % (1 << 32)


def framed(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def tfrecord(runs: Iterable[Run]) -> bytes:
    """A whole file."""
    return b"".join(framed(json.dumps(fields(run)).encode()) for run in runs)
