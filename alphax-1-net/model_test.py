"""Test a network: `python model_test.py`, from any folder.

Tests AlphaX-1 on CIFAR-10 if its weights lie beside this script, either converted
(AlphaX_1.weights.h5 and AlphaX_1.json) or as their authors made them (AlphaX_1.pt, which is
converted first). Otherwise it tests the small network that comes with the project, on handwritten
digits.
"""

import os
import sys

if __name__ == "__main__":  # as a module once more, so that what befalls the imports below is reported
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # not there under PYTHONSAFEPATH
    from terminal import start

    start("model_test")

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from backend import keras
from convert import convert, outputs
from data import Images, load
from evaluation import Score, score_batches, total
from files import Problem
from model import (
    Description,
    build,
    describes,
    load_weights,
    multiply_adds,
    parameters,
    read_description,
    without_auxiliary,
)
from terminal import Parser, filled, filled_path, say

BATCH_SIZE = 128  # 79 batches of CIFAR-10's test set, as in the original
DECIMALS = 5  # of what is printed
HERE = Path(__file__).resolve().parent
ALPHAX_1 = HERE / "AlphaX_1.pt"
SHIPPED = HERE / "digits.weights.h5"


def main(arguments: Sequence[str]) -> None:
    """Test the network that the arguments name, or the best one that is here."""
    options = _options(arguments)
    weights = options.weights or _find_weights()
    if not weights.name.endswith(".weights.h5"):
        raise Problem(f"{weights} is no NAME.weights.h5, as train.py and convert.py write them; name such a file")
    description_path = options.genotype or describes(weights)
    description = read_description(description_path)
    name = description.data if options.data is None else options.data
    data = load(name, "test")
    _check_fit(description, description_path, name, data)
    keras.config.set_dtype_policy(options.precision)
    network = _load_network(description, weights)
    say(f"Testing {weights} on {len(data.labels)} images of {name}")
    _report(network, description, data, min(options.batch_size, len(data.labels)))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=filled_path, help="weights of a network, NAME.weights.h5")
    parser.add_argument("--genotype", type=filled_path, help="its description (default: NAME.json beside it)")
    parser.add_argument("--data", type=filled, help="cifar10, digits or FILE.npz (default: what it was trained on)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help=f"default {BATCH_SIZE}")
    parser.add_argument(
        "--precision", choices=("float32", "mixed_bfloat16", "mixed_float16"), default="float32"
    )
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        raise Problem(f"--batch-size is {options.batch_size}; it must be at least 1")
    return options


def _find_weights() -> Path:
    """AlphaX-1's weights, converted now if need be; else those that come with the project."""
    converted = outputs(ALPHAX_1)
    if all(path.exists() for path in converted):
        return converted[0]
    if ALPHAX_1.exists():
        say(f"Converting {ALPHAX_1}")
        return convert(ALPHAX_1)[0]
    say(
        "This is not AlphaX-1: its weights are not here. This is a small network of the same family,"
        f" trained on handwritten digits. To test AlphaX-1, put its authors' file at {ALPHAX_1}"
    )
    return SHIPPED


def _check_fit(description: Description, path: Path, name: str, data: Images) -> None:
    size, labels = data.images.shape[1], int(data.labels.max()) + 1
    if size != description.image_size or labels > description.classes:
        raise Problem(
            f"{path} describes a network for {description.classes} classes and images of"
            f" {description.image_size} pixels, {name} has {labels} and {size}; name other --data"
        )


def _load_network(description: Description, weights: Path) -> keras.Model:
    """The network without its auxiliary head, which only training uses."""
    model = build(description)
    try:
        load_weights(model, weights)
    except Problem as problem:
        raise Problem(f"{problem}; name weights and description that belong together") from problem
    return without_auxiliary(model)


def _report(network: keras.Model, description: Description, data: Images, batch_size: int) -> None:
    """Print each batch's accuracy, the network's size and speed, and the final figures."""
    next(score_batches(network, description, data, batch_size))  # compiles, which is not to be timed
    scores: list[Score] = []
    start = time.perf_counter()
    for number, score in enumerate(score_batches(network, description, data, batch_size)):
        if not score.finite:
            raise Problem(
                f"what the network makes of batch {number} is not finite; its weights are damaged,"
                " its description is another's, or --precision is too low"
            )
        scores.append(score)
        say(f"Batch {number} accuracy is {_percent(score.top_1, score.images)}")
    seconds = time.perf_counter() - start
    final = total(scores)
    say(
        f"Parameters: {parameters(network)} (without the auxiliary head)",
        f"Multiply-adds per image: {multiply_adds(network)}",
        f"Images per second: {final.images / seconds:.1f}",
        f"Final loss is {round(final.loss / final.images, DECIMALS)}",
        f"Final top_1 test accuracy is {_percent(final.top_1, final.images)}",
        f"Final top_5 test accuracy is {_percent(final.top_5, final.images)}",
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, DECIMALS)
