"""What a training saves and goes on from: checked before it is used, whole whatever happens, one training a folder."""

import json
import math
import os
import shutil
import sys
import zipfile
from dataclasses import asdict
from types import SimpleNamespace

import alphax1
import numpy as np
import pytest
from alphax1 import arrays, describe, digits, history, policy, state  # noqa: F401  (two of them are fixtures)
from arrays import Header
from backend import keras
from damage import altered, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
import saved_training
import train
from files import Problem, locked, replacing
from model import build, write_description
from recipe import Recipe
from terminal import Unprinted, run
from train import Training

SEED = 11


def figures(epoch, validation_accuracy):
    return {"epoch": epoch, "learning_rate": 0.05, "loss": 2.0, "accuracy": 0.1, "validation_loss": 2.0,
            "validation_accuracy": validation_accuracy, "images_per_second": 9.0}


@pytest.fixture(scope="module")
def saved(digits, tmp_path_factory):
    """A training of two epochs as they are saved, the first one the best; its figures are made up."""
    recipe = Recipe(
        str(digits / "train.npz"), str(digits / "small.json"), C=2, layers=3, epochs=2, batch_size=32,
        validation=40, precision="float32", seed=SEED,
    )
    training = Training(recipe, tmp_path_factory.mktemp("saved"))
    training.history = [figures(1, 0.5), figures(2, 0.4)]
    training._save_best()
    write_description(training.description, training.out / "best.json")
    training.save()
    return training


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved.out, tmp_path / "out")


def rewrite(out, content, **changed):
    np.savez(out / "checkpoint.npz", **{**arrays(out), "state": json.dumps(content), **changed})


def refused(out, capsys, monkeypatch, *words):
    """Check that --resume says these words in one line and leaves the folder as it is."""
    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(sys, "argv", ["train.py", "--resume", "--out", str(out)])
    assert run(train.main) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in (str(out), "name another --out", *words))
    assert {path: path.read_bytes() for path in out.iterdir()} == before


MISSING, ENDLESS = "missing", 10**400


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        *((("history", 1), value, "epoch 2") for value in (None, 5, "x", [], {}, figures(3, 0.4))),
        (("history",), [figures(epoch, 0.5) for epoch in (1, 2, 3)], "at most 2"),
        *((("history", 0, "epoch"), value, "epoch 1") for value in (MISSING, "x", True, 1.0, 2, ENDLESS)),
        *((("history", 0, name), value, "epoch 1")
          for name in ("validation_accuracy", "validation_loss")
          for value in (MISSING, None, "x", True, [0.5], ENDLESS, math.nan, -math.inf)),
        *((("history", 0, "loss"), value, "epoch 1") for value in (MISSING, "x", math.nan)),
        *((("history", 0, name), value, "epoch 1")
          for name, value in (("accuracy", 1.5), ("validation_accuracy", -0.1))),
        (("recipe",), {}, "lacks"),
        (("recipe", "cutout"), MISSING, "lacks"),
        (("recipe", "seed"), None, "lacks"),
        *((("recipe", name), value, name.replace("_", "-"))
          for name, value in (
              ("data", None), ("data", ""), ("genotype", 5), ("genotype", ""), ("precision", "x"),
              ("precision", []), ("epochs", 2.0), ("epochs", True), ("batch_size", 32.0),
              ("batch_size", None), ("learning_rate", True), ("momentum", 2.0), ("weight_decay", ENDLESS),
              ("flip", 1), ("crop", ENDLESS), ("crop", 10**6), ("C", 10**6), ("validation", 40.0),
              ("seed", 1.5), ("seed", 2**32),
          )),
    ],
)  # fmt: skip
def test_wrong_value_in_a_checkpoint_is_named(copied, capsys, monkeypatch, where, value, words):
    content = state(copied)
    parent = content
    for key in where[:-1]:
        parent = parent[key]
    parent[where[-1]] = value
    if value is MISSING:
        del parent[where[-1]]
    rewrite(copied, content)
    refused(copied, capsys, monkeypatch, "checkpoint.npz", words)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda array, dtype=dtype: array.astype(dtype)
          for dtype in ("U", "S", "c8", "?", "i4", "i8", "f2", "f8", ">f4", "M8[s]")),
        lambda array: np.full_like(array, np.nan),
        lambda array: np.where(np.arange(len(array)) == 1, np.float32(np.inf), array),
        lambda array: np.full(array.shape, "x"),
        lambda array: np.zeros(array.shape, "V4"),
        lambda array: np.zeros(10**7, "f4"),
    ],
)  # fmt: skip
def test_wrong_arrays_in_a_checkpoint_are_refused(copied, capsys, monkeypatch, change):
    name, array = list(arrays(copied).items())[1]
    assert array.dtype == "float32" and array.ndim == 1
    rewrite(copied, state(copied), **{name: change(array)})
    refused(copied, capsys, monkeypatch, "checkpoint.npz", "damaged")


@pytest.mark.filterwarnings("ignore")  # zipfile's and numpy's, about what the damage makes of a header
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_checkpoint_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    content = {"recipe": asdict(Recipe(seed=1)), "network": asdict(describe()), "history": [figures(1, 0.5)]}
    np.savez(path, state=json.dumps(content), variable_0=np.ones(3, "f4"))
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        content = saved_training.read_state(path)
        found = saved_training.read_arrays(path, [Header(np.dtype("f4"), (3,))])
    except Problem as problem:
        assert str(path) in str(problem)
    else:
        assert isinstance(content["history"], list) and np.isfinite(found[0]).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_wrong_values_in_a_checkpoint_are_refused_or_as_good(saved, tmp_path_factory, data):
    out = tmp_path_factory.getbasetemp() / "altered"
    shutil.copytree(saved.out, out, dirs_exist_ok=True)
    rewrite(out, altered(data, state(saved.out)))

    def again(recipe, out):
        """The same training, since a new network for every example would take long."""
        patch.setattr(saved, "recipe", recipe)
        patch.setattr(saved, "out", out)
        return saved

    def go_on(training, epoch):
        raise Problem("it goes on")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Training", again)
        patch.setattr(Training, "_run_epoch", go_on)
        patch.setattr(train, "load_weights", lambda model, path: None)
        patch.setattr(train, "build", lambda description: None)
        try:
            train.main(["--resume", "--out", str(out)])
        except Problem as problem:
            if str(problem) != "it goes on":
                assert str(out) in str(problem)
                return
        assert [line["epoch"] for line in saved.history] == list(range(1, len(saved.history) + 1))
        assert json.dumps([saved.history, asdict(saved.recipe)], allow_nan=False)


def test_state_that_would_not_end_is_refused_at_once(copied, capsys, monkeypatch):
    with zipfile.ZipFile(copied / "checkpoint.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("state.npy", "w") as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": f"<U{2**28}", "fortran_order": False, "shape": ()}
            )
            member.write(bytes(2**20))
    refused(copied, capsys, monkeypatch, "checkpoint.npz", "state has 1073741824 bytes")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda best: best.unlink(),
        lambda best: best.write_bytes(best.read_bytes()[:5000]),
        lambda best: shutil.copy(alphax1.FOLDER / "digits.weights.h5", best),
    ],
    ids=["missing", "short", "of another network"],
)
def test_best_weights_are_missed_when_training_resumes(copied, capsys, monkeypatch, recwarn, spoil):
    spoil(copied / "best.weights.h5")
    refused(copied, capsys, monkeypatch, "best.weights.h5", "epoch 1", "put it back")
    assert not [str(warning.message) for warning in recwarn if "Skipping" in str(warning.message)]


def test_best_files_that_can_be_made_anew_are(copied, capsys):
    best, description = copied / "best.weights.h5", copied / "best.json"
    described = description.read_text()
    description.unlink()
    train.main(["--resume", "--out", str(copied)])
    assert description.read_text() == described and "Kept epoch 1" in capsys.readouterr().out
    content = state(copied)
    content["history"][1]["validation_accuracy"] = 0.6
    rewrite(copied, content)
    best.unlink()
    train.main(["--resume", "--out", str(copied)])
    assert "Kept epoch 2" in capsys.readouterr().out
    network = build(describe(C=2), seed=SEED + 1)
    network.load_weights(best)
    found = [keras.ops.convert_to_numpy(weight) for weight in network.weights]
    assert all(np.array_equal(array, wanted) for array, wanted in zip(found, arrays(copied).values()))


@pytest.fixture
def epochs(saved, tmp_path, monkeypatch):
    """The saved training in a folder of its own, before its first epoch; epochs take no time."""
    monkeypatch.setattr(saved, "out", tmp_path / "out")
    monkeypatch.setattr(saved, "history", [])
    monkeypatch.setattr(saved, "saved_epochs", 0)
    monkeypatch.setattr(saved, "_run_epoch", lambda epoch: saved.history.append(figures(epoch + 1, 0.5)))
    monkeypatch.setattr(train, "Training", lambda recipe, out: saved)
    return saved


def test_epochs_are_saved_before_they_are_told_of_and_the_end_is_honest(epochs, monkeypatch, capsys):
    told = []

    def say(*lines, last=False):
        told.append(len(history(epochs.out)))
        raise Unprinted("the disk is full")

    monkeypatch.setattr(train, "say", say)
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(epochs.out)])
    assert run(train.main) == 2
    assert capsys.readouterr().err == "train.py: the disk is full\n"
    assert told == [0, 1, 2, 2] and epochs.best_weights.exists()


def test_weights_of_an_epoch_whose_saving_was_interrupted_are_made_anew(epochs, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(epochs, "_save_best", interrupt)
        train.main(["--out", str(epochs.out)])
    assert not epochs.best_weights.exists() and len(history(epochs.out)) == 1
    train.main(["--resume", "--out", str(epochs.out)])
    assert epochs.best_weights.exists() and len(history(epochs.out)) == 2


def test_only_one_training_is_in_a_folder(copied, capsys, monkeypatch):
    with locked(copied):
        refused(copied, capsys, monkeypatch, "another training holds")
    (copied / ".part-1-checkpoint.npz").write_bytes(b"of a training that was killed")
    train.main(["--resume", "--out", str(copied)])
    assert sorted(path.name for path in copied.iterdir()) == [
        "best.json", "best.weights.h5", "checkpoint.npz", "history.json",
    ]


def test_diverged_epoch_is_not_saved(saved, monkeypatch):
    """What --resume would refuse must not get into a checkpoint."""
    for name, loss in (("loss", math.nan), ("validation_loss", math.inf), ("validation_loss", math.nan)):
        losses = {"loss": 2.0, "validation_loss": 2.0, name: loss}
        fit = SimpleNamespace(history={"loss": [losses.pop("loss")], "accuracy": [0.1]})
        monkeypatch.setattr(saved.model, "fit", lambda *_, fit=fit, **__: fit)
        validated = {**losses, "validation_accuracy": 0.1}
        monkeypatch.setattr(saved, "_validate", lambda validated=validated: validated)
        with pytest.raises(Problem, match=f"the {name} is {loss} in epoch 2; lower --learning-rate"):
            saved._run_epoch(1)
        assert len(saved.history) == 2


def test_weights_that_the_last_step_spoiled_are_not_saved(saved, monkeypatch):
    """The loss of an epoch is that before its last step."""
    weight = saved.model.weights[0]
    before = keras.ops.convert_to_numpy(weight)

    def fit(*_, **__):
        weight.assign(before * math.nan)
        return SimpleNamespace(history={"loss": [2.0], "accuracy": [0.1]})

    monkeypatch.setattr(saved.model, "fit", fit)
    monkeypatch.setattr(saved, "_validate", dict)
    with pytest.raises(Problem, match="weights are not finite after epoch 2; lower --learning-rate"):
        saved._run_epoch(1)
    assert len(saved.history) == 2
    weight.assign(before)  # other tests use it


def test_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as part:
        part.write_text("ne")
        raise RuntimeError
    with pytest.raises(Problem, match="kept.json.*full"), replacing(path) as part:
        part.write_text("ne")
        raise OSError("full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(Problem, match="name another folder"), replacing(path / "below.json"):
        pass
    (tmp_path / "folder").mkdir()
    with pytest.raises(Problem, match="folder.*Is a directory"), replacing(tmp_path / "folder") as part:
        part.write_text("new")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "folder", path]


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append(os.fstat(handle).st_size) or sync(handle))
    monkeypatch.setattr(os, "replace", lambda part, path: calls.append("renamed") or rename(part, path))
    with replacing(tmp_path / "new.json") as part:
        part.write_text("12345")
    assert calls[:2] == [5, "renamed"] and len(calls) == 3  # and the folder
