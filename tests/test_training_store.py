"""The store of trainings: what comes back, several writers, kills, full disks, damage and foreign files."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import ROOT

import training_store
from nasbench_dataset import InputError, cells
from training_recipe import SMALL, Recipe
from training import CRASHED, TRAINED, Training
from training_store import TrainingStore

RECIPE = Recipe(epochs=2)


def made_up(cell: int = 50, seed: int = 0, **changed) -> Training:
    values = dict(
        cell=cell, recipe=RECIPE, data_name="digits", data="abc", seed=seed, outcome=TRAINED, reason="",
        valid=(0.5, 0.75), losses=(2.0, 1.0), test=0.7, seconds=1.5, cpu_seconds=1.25, parameters=100, host="here",
        device="CPU",
    )  # fmt: skip
    return Training(**(values | changed))


FAILED = dict(outcome=CRASHED, reason="killed", valid=(0.5,), losses=(2.0,), test=None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def filled(path, count: int = 20) -> list[Training]:
    some = [made_up(cell, seed) for cell in range(count // 2) for seed in range(2)]
    with TrainingStore(path) as store:
        for training in some:
            store.put(training)
    return some


def test_what_was_put_comes_back(path):
    failed = made_up(7, **FAILED)
    with TrainingStore(path) as store:
        store.put(made_up())
        store.put(failed)
    with TrainingStore(path) as store:
        assert list(store) == [failed, made_up()] and len(store) == store.check() == 2
        assert store.get(cells.cell(50), RECIPE, "abc", 0) == made_up()
        assert store.trained(RECIPE, "abc") == {(7, 0), (50, 0)}


def test_a_training_is_found_by_cell_recipe_data_and_seed_only(path):
    with TrainingStore(path) as store:
        store.put(made_up())
        assert store.get(cells.cell(51), RECIPE, "abc", 0) is None
        assert store.get(cells.cell(50), SMALL, "abc", 0) is None
        assert store.get(cells.cell(50), RECIPE, "abd", 0) is None
        assert store.get(cells.cell(50), RECIPE, "abc", 1) is None
        assert store.trained(SMALL, "abc") == set()


def test_a_cell_is_found_in_any_form(path):
    both = {(0, 1), (1, 0)}  # two ways from input to output, their operations in either order
    edges = sum(cells.edge_bit(*e) for e in [(0, 1), (0, 2), (1, 3), (2, 3)])
    with TrainingStore(path) as store:
        store.put(made_up(cells.index(*cells.stored_form((0, 1), edges))))
        assert all(store.get((operations, edges), RECIPE, "abc", 0) for operations in both)


def test_a_training_that_is_there_stays_and_a_failed_one_is_replaced(path):
    with TrainingStore(path) as store:
        store.put(made_up(**FAILED))
        store.put(made_up())
        store.put(made_up(seconds=9.0))
        store.put(made_up(**FAILED))
        assert list(store) == [made_up()]


def test_what_could_not_be_read_is_not_written(path):
    with TrainingStore(path) as store:
        for bad in (dict(test=float("nan")), dict(valid=(0.5, 1.5)), dict(valid=(0.5,)), dict(seconds=float("inf"))):
            with pytest.raises(InputError, match="cannot be"):
                store.put(made_up(**bad))
        assert len(store) == 0


def test_two_may_write_at_once(path):
    with TrainingStore(path) as first, TrainingStore(path) as second:
        for cell in range(10):
            (first, second)[cell % 2].put(made_up(cell))
        assert len(list(first)) == len(list(second)) == 10


def test_a_store_that_another_program_holds_is_refused_after_a_while(path):
    filled(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with TrainingStore(path, busy_seconds=0.1) as store:
        with pytest.raises(InputError, match="in use by another program"):
            store.put(made_up(60))
        assert len(store) == 20  # reading goes on
        other.rollback()
        store.put(made_up(60))
        assert len(store) == 21


WRITER = """
import itertools, sys
sys.path[:0] = ["tests", "."]
from test_training_store import made_up
from training_store import TrainingStore
with TrainingStore(sys.argv[1]) as store:
    for seed in itertools.count():
        store.put(made_up(seed=seed))
        print(seed, flush=True)
"""


def test_what_was_put_survives_a_kill_at_any_moment(path):
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        writer.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        told = [0, *map(int, writer.stdout.read().split())]
        writer.wait()
        with TrainingStore(path) as store:
            store.check()
            assert {seed for _, seed in store.trained(RECIPE, "abc")} >= set(told)


def test_a_full_disk_is_told_in_one_line_and_takes_nothing_away(path):
    some = filled(path)
    with TrainingStore(path) as store:
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(InputError, match="disk is full"):
            for seed in range(100):
                store.put(made_up(seed=seed))
                some.append(made_up(seed=seed))
    with TrainingStore(path) as store:
        assert store.check() == len(some) and sorted(store, key=str) == sorted(some, key=str)


def refused(path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        with TrainingStore(path) as store:
            store.check()
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and all(word in message for word in words), message


def test_a_damaged_store_is_refused_or_whole(path):
    """Bytes overwritten anywhere: either that is found, or what is read is as it was written."""
    some = sorted(filled(path, 100), key=str)
    content = path.read_bytes()
    found, rng = 0, random.Random(0)
    for _ in range(40):
        damaged = bytearray(content)
        start = rng.randrange(len(damaged))
        damaged[start : start + 40] = rng.randbytes(len(damaged[start : start + 40]))
        path.write_bytes(damaged)
        try:
            with TrainingStore(path) as store:
                store.check()
                assert sorted(store, key=str) == some
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            found += 1
    assert found > 20
    path.write_bytes(content)
    with TrainingStore(path) as store:
        assert sorted(store, key=str) == some


def test_a_cut_store_is_refused(path):
    filled(path, 100)
    path.write_bytes(path.read_bytes()[:-5000])
    refused(path, "restore it from a copy")


def test_foreign_files_are_refused_and_left_as_they_are(path):
    for content in (b"just text\n" * 100, b"SQLite format 3\0" + b"x" * 1000):
        path.write_bytes(content)
        refused(path, "name another file")
        assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_as_it_is(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    content = path.read_bytes()
    refused(path, "a database of another program")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statement, words",
    [
        ("PRAGMA user_version = 2", "is a store of version 2"),
        ("CREATE TABLE more (x)", "other tables"),
        ("CREATE TRIGGER t AFTER INSERT ON trainings BEGIN DELETE FROM trainings; END", "other tables"),
        ("CREATE VIEW v AS SELECT load_extension('x')", "other tables"),
        ("ALTER TABLE trainings ADD COLUMN more", "other tables"),
    ],
)
def test_a_store_with_another_schema_is_refused(path, statement, words):
    filled(path)
    with sqlite3.connect(path) as other:
        other.execute(statement)
    other.close()
    refused(path, words)


BAD_VALUES = {
    "cell": [-1, 423_624, 2**62, "x", 1.5],
    "operations": ["[]", "[0, 0, 0, 0]", "{}", "[[0]]", "[" * 5_000, "nothing", b"\xff"],
    "edges": [0, -1, 2**40],
    "recipe": ["{}", SMALL.canonical() * 2, json.dumps({"epochs": 1e300}), "x" * 20_000],
    "data": [b"\xff\xfe"],
    "seed": [-1, 2**40],
    "outcome": ["", "fine\x1b[2J"],
    "valid": ["[0.5]", "[0.5, 2]", "[0.5, NaN]", "[0.5, 1e999]", '[0.5, "a"]', "[0.5, true]", "0.5", "", "[" * 9_000],
    "losses": ["[]", "[1, null]"],
    "test": [2.0, -0.1, "x", b""],
    "seconds": [-1.0, float("inf"), "soon"],
    "parameters": [0, "many"],
    "host": [b"\xff"],
}


@pytest.mark.parametrize("column", BAD_VALUES)
def test_a_training_that_cannot_be_is_refused_when_it_is_read(path, column):
    with TrainingStore(path) as store:
        store.put(made_up())
    content = path.read_bytes()
    for value in BAD_VALUES[column]:
        path.write_bytes(content)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(f"UPDATE trainings SET {column} = ?", (value,))
        refused(path)
        if not isinstance(value, bytes):  # and with the checksum that a forger would give it
            row = other.execute(f"SELECT {training_store.COLUMNS} FROM trainings").fetchone()
            other.execute("UPDATE trainings SET checksum = ?", (training_store._checksum(row[:-1]),))
            refused(path)
        other.close()
        with pytest.raises(InputError) as error, TrainingStore(path) as store:
            list(store)
        assert str(error.value).isprintable()


def test_what_cannot_be_opened_is_refused_in_one_line(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "no" / "folder.sqlite", tmp_path / ("x" * 300)):
        with pytest.raises(InputError) as error:
            TrainingStore(path)
        assert str(path)[:100] in str(error.value) and "\n" not in str(error.value)


def test_a_store_called_like_sqlites_memory_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TrainingStore(":memory:") as store:
        store.put(made_up())
    assert (tmp_path / ":memory:").stat().st_size > 0


def test_a_store_that_may_not_be_written_is_refused(path, monkeypatch):
    filled(path)
    connect = sqlite3.connect

    def read_only(name, **options):  # permissions would not keep root from writing
        return connect(f"file:{name}?mode=ro", uri=True, **options)

    monkeypatch.setattr(training_store.sqlite3, "connect", read_only)
    with TrainingStore(path) as store:
        with pytest.raises(InputError, match="may not be written"):
            store.put(made_up(70))
