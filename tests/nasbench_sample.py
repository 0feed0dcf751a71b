"""Makes tests/nasbench_sample.tfrecord: ``python tests/nasbench_sample.py``, with TensorFlow installed.

The file is laid out as NAS-Bench-101's own, written by TensorFlow's writer and protobuf's own classes, so that
nothing of this project had a hand in its bytes. Its accuracies are made up: arithmetic on the numbers of a run.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Iterator

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, from anywhere

from nasbench_writer import IMAGES, Run

from nasbench_dataset import cells

SAMPLE = Path(__file__).with_name("nasbench_sample.tfrecord")
ONLY_108 = [0, 3, 6, *range(10, 2_000, 190), *range(70_000, 420_000, 40_000)]  # indices of cells
ALL_BUDGETS = [5, 50, 3_000]

# NAS-Bench-101's model_metrics.proto, as a descriptor in protobuf's text form.
DESCRIPTOR = """
name: "sample.proto" package: "sample" syntax: "proto2"
message_type { name: "EvaluationData"
  field { name: "current_epoch" number: 1 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "training_time" number: 2 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "train_accuracy" number: 3 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "validation_accuracy" number: 4 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "test_accuracy" number: 5 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "checkpoint_path" number: 6 type: TYPE_STRING label: LABEL_OPTIONAL } }
message_type { name: "ModelMetrics"
  field { name: "evaluation_data" number: 1 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: ".sample.EvaluationData" }
  field { name: "trainable_parameters" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "total_time" number: 3 type: TYPE_DOUBLE label: LABEL_OPTIONAL } }
"""


def runs() -> Iterator[Run]:
    """What is in the file, in its order."""
    for index in ONLY_108 + ALL_BUDGETS:
        cell = cells.cell(index)
        parameters = cells.trainable_parameters(*cell)
        for epochs in (4, 12, 36, 108) if index in ALL_BUDGETS else (108,):
            for repeat in range(3):
                images = 3_000 + (7_919 * index + 1_013 * repeat + 31 * epochs) % 6_000
                seconds = epochs * (10 + index % 40 + repeat / 4)
                yield Run(cell, epochs, images / IMAGES, (images + 57) / IMAGES, seconds, parameters)


def metrics(run: Run) -> bytes:
    """The message of a run; only the last evaluation is the one at the end."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(DESCRIPTOR, descriptor_pb2.FileDescriptorProto()))
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("sample.ModelMetrics"))()
    for part in (0, 0.5, 1):
        evaluation = message.evaluation_data.add(current_epoch=part * run.epochs, training_time=part * run.seconds)
        evaluation.train_accuracy = part
        evaluation.validation_accuracy = run.valid * (1 + part) / 2
        evaluation.test_accuracy = run.test * (1 + part) / 2
        if len(run.cell[0]) == 1:  # some with a field that NAS-Bench-101's reader does not read
            evaluation.checkpoint_path = f"made/up/model.ckpt-{part}"
    message.trainable_parameters = run.parameters
    message.total_time = run.seconds * 1.5
    return message.SerializeToString()


def record(run: Run) -> bytes:
    """The JSON of a run. Its base64 has line breaks, as the published writers of this family make it."""
    cell = cells.to_dict(*run.cell)
    adjacency = "".join("".join(map(str, row)) for row in cell["adj_mat"])
    name = hashlib.md5(adjacency.encode()).hexdigest()
    encoded = base64.encodebytes(metrics(run)).decode("ascii")
    return json.dumps([name, run.epochs, adjacency, ",".join(cell["node_list"]), encoded]).encode()


def write(path: Path) -> None:
    """Write the file with TensorFlow."""
    import tensorflow

    with tensorflow.io.TFRecordWriter(str(path)) as writer:
        for run in runs():
            writer.write(record(run))


if __name__ == "__main__":
    write(SAMPLE)
