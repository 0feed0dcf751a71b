"""The files of NAS-Bench-101 itself (Ying et al. 2019): nasbench_only108.tfrecord and nasbench_full.tfrecord.

Every record is a run: a JSON list of the hash of its cell, the epochs, the adjacency matrix row by row as a
string of 0 and 1, the operations joined by commas, and in base64 a protobuf message of class ``ModelMetrics``,
with evaluations at the start, half way and at the end.

What the reader of NAS-Bench-101 itself (nasbench/api.py) takes is taken here, too: base64 with line breaks, any
hash, further fields of a message. A run that lacks something is left out and counted.
"""

import base64
import hashlib
import json
import math
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nasbench_dataset import InputError, cells
from nasbench_dataset.runs import Runs
from nasbench_dataset.sources import open_source
from nasbench_dataset.tfrecord import read_records

SHA256 = {  # of the files as published
    "4c39c3936e36a85269881d659e44e61a245babcb72cb374eacacf75d0e5f4fd1": "nasbench_only108.tfrecord",
    "3d64db8180fb1b0207212f9032205064312b6907a3bbc81eabea10db2f5c7e9c": "nasbench_full.tfrecord",
}
EVALUATION_FIELDS = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
EVALUATIONS, AT_END = 3, 2  # of every run; the one at the end of its training


@lru_cache(maxsize=None)
def metrics_class() -> type:
    """The protobuf class ``ModelMetrics``. A number that a message lacks reads as NaN, which is no accuracy.

    Raises
    ------
    InputError
        If protobuf is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise InputError("the official files need protobuf; run: pip install protobuf") from error
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="model_metrics.proto", package="nasbench", syntax="proto2")
    evaluation = file.message_type.add(name="EvaluationData")
    for number, name in enumerate(EVALUATION_FIELDS, 1):
        kind = {"type": field.TYPE_DOUBLE, "label": field.LABEL_OPTIONAL, "default_value": "nan"}
        evaluation.field.add(name=name, number=number, **kind)
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".nasbench.EvaluationData",
        label=field.LABEL_REPEATED,
    )
    metrics.field.add(name="trainable_parameters", number=2, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=field.TYPE_DOUBLE, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))


@lru_cache(maxsize=1 << 16)
def cell_of(adjacency: str, operations: str) -> tuple[cells.Operations, int]:
    """The cell of a record; raises ValueError where the two strings are none."""
    names = operations.split(",")
    rows = [adjacency[start : start + len(names)] for start in range(0, len(adjacency), len(names))]
    bits = {"0": 0, "1": 1}
    return cells.from_dict({"adj_mat": [[bits.get(c, c) for c in row] for row in rows], "node_list": names})


def add_record(runs: Runs, record: bytes) -> None:
    """Take in the run that a record holds; raises ValueError with what is wrong with it."""
    try:
        _, epochs, adjacency, operations, encoded = json.loads(record)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("it is not a JSON list of five entries") from error
    if not (isinstance(adjacency, str) and isinstance(operations, str) and isinstance(encoded, str)):
        raise ValueError("its matrix, operations or metrics are not strings")
    message = decoded(encoded)
    metrics = parse_metrics(message)
    test, valid, seconds = at_end(metrics)
    runs.add(cell_of(adjacency, operations), epochs, test, valid, seconds, metrics.trainable_parameters, message)


def decoded(encoded: str) -> bytes:
    """What base64 stands for; raises ValueError where it is none.

    White space in it means nothing: the published writers of this family break lines after 76 characters.
    """
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise ValueError("its metrics are not base64") from error


def parse_metrics(message: bytes) -> Any:
    """The ``ModelMetrics`` in a message; raises ValueError where it is none."""
    from google.protobuf.message import DecodeError

    try:
        return metrics_class().FromString(message)
    except DecodeError as error:
        raise ValueError("its metrics are no protobuf message") from error


def at_end(metrics: Any) -> tuple[float, float, float]:
    """Test and validation accuracy and the seconds at the end of a training; NaN what is not known."""
    if len(metrics.evaluation_data) != EVALUATIONS:  # so that which one is at the end cannot be told
        return math.nan, math.nan, math.nan
    end = metrics.evaluation_data[AT_END]
    return end.test_accuracy, end.validation_accuracy, end.training_time


def read_tfrecord(path: str | Path) -> tuple[Runs, str]:
    """Read an official file, or one like it, with a progress bar where there is a terminal.

    Returns
    -------
    runs : Runs
    digest : str
        The SHA256 of the file; ``SHA256`` has those of the official ones.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, or holds something else.
    """
    metrics_class()
    runs, sha = Runs(), hashlib.sha256()
    with open_source(path) as file:
        size = os.fstat(file.fileno()).st_size
    with tqdm(total=size, desc="reading", unit="B", unit_scale=True, disable=None) as bar:

        def saw(chunk: bytes) -> None:
            sha.update(chunk)
            bar.update(len(chunk))

        for number, record in enumerate(read_records(path, saw), 1):
            try:
                add_record(runs, record)
            except ValueError as error:
                raise InputError(f"{path}: record {number:,} is not one of NAS-Bench-101: {error}") from error
    return runs, sha.hexdigest()
