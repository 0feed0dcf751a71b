"""Runs that the tests of visualize.py share, and what a picture has to be."""

import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from conftest import run_here
from PIL import Image

import MCTS
import saved_run
from checkpoint import Checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run that found its target."""
    folder = tmp_path_factory.mktemp("finished")
    assert run_here(MCTS.main, "--max-nodes", 4, "--seed", 0, "--quiet", "--out", folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run that was killed after its first save: no summary.json."""
    return killed(tmp_path_factory.mktemp("unfinished"), "--samples", 400)


def killed(folder, *options):
    """A search as it is saved in its midst."""
    options = "--max-nodes", 5, "--seed", 1, "--quiet", *options
    assert run_here(MCTS.main, *options, "--out", folder).returncode == 0
    (folder / "summary.json").unlink()
    save_again(folder, lambda main, nodes: main.update(outcome=None))
    return folder


def save_again(folder, edit):
    """Save a search once more, with ``search`` and ``nodes`` edited, and with right checksums."""
    with Checkpoint(folder) as saves:
        main, files = saves.load()
        nodes = json.loads(files["nodes"])
        edit(main, nodes)
        content = {key: main[key] for key in main if key not in ("format", "version")}
        saves.save(lambda: (content, {**files, "nodes": json.dumps(nodes).encode()}))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A search in which some nodes are older, and others more visited, than their parents."""
    options = "--lookup", "isomorphic", "--cp", 0.03, "--backup", "path", "--close-exhausted", "--samples", 200
    folder = killed(tmp_path_factory.mktemp("tuned"), *options)
    tree = saved_run.read_run(folder)
    assert (tree.parent > np.arange(len(tree.states))).any()
    assert (tree.visits[1:] > tree.visits[tree.parent[1:]]).any()
    return folder


@pytest.fixture(params=["unfinished", "tuned"])
def tree(request):
    """Both kinds of search, as they are read."""
    return saved_run.read_run(request.getfixturevalue(request.param))


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run, to be damaged."""
    return shutil.copytree(finished, tmp_path / "copy")


def check_pictures(folder, name):
    """A PNG with something on it, and an SVG; returns the text of the latter."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = np.asarray(Image.open(png).convert("L"))
    assert pixels.std() > 5 and min(pixels.shape) > 100
    assert (pixels[[0, -1]] > 250).all() and (pixels[:, [0, -1]] > 250).all()  # nothing runs out of it
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    return svg.read_text()
