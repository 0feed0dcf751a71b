"""Writes files laid out like the official ones of NAS-Bench-101, with made-up accuracies, for tests.

Byte by byte, without the protobuf library that reads them; nasbench_sample.py writes some with TensorFlow.
"""

import base64
import json
import struct
from typing import Iterable, Iterator, NamedTuple

import google_crc32c
import numpy as np

from nasbench_dataset import cells

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


def double(number: int, value: float) -> bytes:
    """A field of a protobuf message: its number and type, then its value."""
    return bytes([number << 3 | 1]) + struct.pack("<d", value)


def varint(value: int) -> bytes:
    """A whole number as protobuf writes it: 7 bits a byte, the lowest first."""
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def numbers_at(run: Run, part: float) -> list[bytes]:
    """The five fields of an evaluation when that part of a training is over."""
    valid, test = (run.valid, run.test) if part == 1 else (0.1, 0.1)
    values = run.epochs * part, run.seconds * part, part, valid, test
    return [double(number, value) for number, value in enumerate(values, 1)]


def message_of(evaluations: list[list[bytes]], parameters: int, total_time: float) -> bytes:
    """The protobuf message of a run, from the fields of its evaluations."""
    bodies = map(b"".join, evaluations)
    written = b"".join(bytes([1 << 3 | 2]) + varint(len(body)) + body for body in bodies)
    return written + bytes([2 << 3]) + varint(parameters) + double(3, total_time)


def message(run: Run, parts: tuple[float, ...] = (0, 0.5, 1)) -> bytes:
    """The protobuf message of a run; its evaluations but the one at 1 are not those at the end."""
    return message_of([numbers_at(run, part) for part in parts], run.parameters, 2 * run.seconds)


def fields(run: Run) -> list:
    """The five entries of a record, its base64 in lines as the official writer's."""
    cell = cells.to_dict(*run.cell)
    adjacency = "".join(str(entry) for row in cell["adj_mat"] for entry in row)
    operations = ",".join(cell["node_list"])
    return ["0" * 32, run.epochs, adjacency, operations, base64.encodebytes(message(run)).decode()]


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
