"""What the tests of AlphaX-1 share: its folder on the path, small networks and data, running its scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "alphax-1-net"
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

from backend import keras  # noqa: E402  (needs the path, as those below)
from data import load  # noqa: E402
from model import Description, Genotype, write_description  # noqa: E402

SMALL = Genotype(
    normal=(("skip_connect", 0), ("sep_conv_3x3", 1)),
    normal_concat=(2,),
    reduce=(("skip_connect", 1), ("max_pool_2x2", 0)),
    reduce_concat=(2,),
)


def describe(genotype=SMALL, C=4, layers=3, classes=10, auxiliary=True, **rest):
    """A description of a small network."""
    return Description(genotype, C, layers, classes, auxiliary, **rest)


def script(name, *arguments, cwd, **rest):
    """Run one of the scripts to its end, from another folder."""
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **rest)


def one_line(run, *words):
    """Check that a script refused: status 2 and one line on stderr with these words."""
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0]


def environment(**more):
    """The environment of a script, with some variables set."""
    return {**os.environ, **{name: str(value) for name, value in more.items()}}


@pytest.fixture(autouse=True)
def policy():
    """Restore what the scripts set for the whole process."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file of a few hundred handwritten digits, and a genotype for a small network."""
    folder = tmp_path_factory.mktemp("digits")
    taught, test = load("digits", "train"), load("digits", "test")
    # In files of their own: training cannot so much as look at test images, nor testing at others.
    np.savez(folder / "train.npz", x_train=taught.images[:300], y_train=taught.labels[:300])
    grey = test.images[:100, :, :, 0]
    np.savez(folder / "test.npz", x_test=grey, y_test=test.labels[:100])
    write_description(describe(), folder / "small.json")
    return folder


def picture(number=64):
    return np.random.default_rng(0).integers(0, 256, (number, 8, 8, 3), dtype="uint8")


def history(out):
    return state(out)["history"] if (out / "checkpoint.npz").exists() else []


def state(out):
    with np.load(out / "checkpoint.npz") as content:
        return json.loads(str(content["state"]))


def arrays(out):
    with np.load(out / "checkpoint.npz") as content:
        return {name: content[name] for name in content.files if name != "state"}
