"""Measuring many cells: it ends when it is told to, with all its workers, and keeps what it has."""

import signal
import sys

import numpy as np
import pytest
from attack_launch import Launch, Strike, run
from conftest import ROOT, assert_refused
from conftest import run as run_in_peace
from test_training import arrays

from training import TRAINED
from training_store import TrainingStore

LITTLE = "--channels", "4", "--stacks", "1", "--epochs", "3"


@pytest.fixture
def place(tmp_path):
    """A folder with data, and what an attacked command needs."""
    for name in ("tmp", "logs", "cwd", "out"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "stripes.npz", **arrays())
    return tmp_path


def options(place) -> list[str]:
    return [
        "measure_cells.py",
        "--store",
        str(place / "out/store.sqlite"),
        "--data",
        str(place / "stripes.npz"),
        *LITTLE,
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are told by /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=str)
def test_a_signal_ends_it_and_its_workers(place, number):
    strike = Strike(number, 1.0, late=True)  # when the workers have begun
    endless = [sys.executable, *options(place), "--seeds", "1000", "--workers", "2"]
    ending = run(endless, place, Launch(strike=strike), 60, usual=(0.0, 2.5))
    assert not ending.stopped and not ending.left, (ending.stopped, ending.left)
    assert ending.status == (130 if number != signal.SIGKILL else -number), ending.err
    assert "Traceback" not in ending.printed
    if number != signal.SIGKILL:
        assert ending.err == "interrupted\n"
    with TrainingStore(place / "out/store.sqlite") as store:
        assert store.check() == sum(training.outcome == TRAINED for training in store)


def test_what_cannot_be_written_is_refused_before_any_training(place):
    few = *options(place), "--max-vertices", "2"
    assert_refused(run_in_peace(*few, "--table", place), "no regular file")
    assert_refused(
        run_in_peace(*few, "--table", place / "nowhere" / "table.pickle"), "no folder that can be written to"
    )
    assert not (place / "out/store.sqlite").exists()


@pytest.mark.parametrize("engine", ["program", "keras"])
def test_a_machine_that_cannot_train_is_told_in_one_line(place, monkeypatch, engine):
    monkeypatch.setenv("JAX_PLATFORMS", "nothing")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    result = run_in_peace(*options(place), "--max-vertices", "2", "--engine", engine)
    assert_refused(result, "cannot", "JAX_PLATFORMS=nothing asks for that")


@pytest.mark.parametrize("option", ["--store", "--data", "--table"])
def test_an_empty_path_is_refused(place, option):
    result = run_in_peace(*options(place), "--max-vertices", "2", option, "")
    assert_refused(result, "empty" if option != "--data" else "no data are named")
    assert not (place / "out/store.sqlite").exists() and not (ROOT / "store.sqlite").exists()


def test_more_trainings_than_can_be_listed_are_refused(place):
    result = run_in_peace(*options(place), "--max-vertices", "2", "--seeds", 2**64)
    assert_refused(result, f"--seeds {2**64}", "3,000,000 trainings")
    assert not (place / "out/store.sqlite").exists()
