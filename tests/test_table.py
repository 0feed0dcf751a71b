"""Tables in memory and on disk, and the conversion of the original's JSON."""

import json
import pickle

import numpy as np
import pytest
from conftest import assert_refused, run

from nasbench_dataset import InputError, cells, files
from nasbench_dataset import table as tables
from nasbench_dataset.convert import open_table, read_json


def key(operations, edges):
    return json.dumps(cells.to_dict(operations, edges), sort_keys=True)


@pytest.fixture
def json_file(tmp_path):
    def write(content):
        path = tmp_path / "data.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_numerators_come_back_exactly_and_small(tmp_path):
    numerators = np.random.default_rng(0).integers(0, 29_953, 64_542)
    values = np.where(numerators % 7 == 0, np.nan, numerators / 29_952)
    path = tmp_path / "t.pickle"
    tables.save(tables.Table({"test": values, "valid": values[:91]}, "made up", True), path)
    loaded = tables.load(path)
    np.testing.assert_array_equal(loaded.columns["test"], values)
    np.testing.assert_array_equal(loaded.columns["valid"], values[:91])
    assert (loaded.source, loaded.measured) == ("made up", True)
    assert path.stat().st_size < 2 * 64_542 + 1_000


def test_other_numbers_come_back_as_floats(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, 91)
    values[5] = np.nan
    tables.save(tables.Table({"test": values, "train_seconds": values * 1e6}, "made up", False), tmp_path / "t")
    np.testing.assert_array_equal(tables.load(tmp_path / "t").columns["test"], values)
    np.testing.assert_array_equal(tables.load(tmp_path / "t").columns["train_seconds"], values * 1e6)


def test_complete_to():
    values = np.full(2_532, 0.5)
    assert tables.Table({"test": values}, "", True).complete_to("test") == 5
    values[91] = np.nan
    assert tables.Table({"test": values}, "", True).complete_to("test") == 4
    values[0] = np.nan
    assert tables.Table({"test": values}, "", True).complete_to("test") == 0


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path, protocol):
    column = {"values": np.linspace(0, 1, 7)}
    content = {"format": tables.FORMAT, "version": 1, "source": "s", "measured": True, "columns": {"test": column}}
    (tmp_path / "t").write_bytes(pickle.dumps(content, protocol))
    np.testing.assert_array_equal(tables.load(tmp_path / "t").columns["test"], column["values"])


class Evil:
    """Its pickle calls a function that leaves a file behind."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", ["os.system", "eval", "exec"])
def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path, function):
    import os

    trace = tmp_path / "executed"
    argument = f"touch {trace}" if function == "os.system" else f"open({str(trace)!r}, 'w')"
    evil = Evil({"os.system": os.system, "eval": eval, "exec": exec}[function], argument)
    (tmp_path / "evil").write_bytes(pickle.dumps({"format": tables.FORMAT, "columns": [evil]}))
    with pytest.raises(InputError, match=function.split(".")[-1]):
        tables.load(tmp_path / "evil")
    assert not trace.exists()
    pickle.loads((tmp_path / "evil").read_bytes())  # it would have, elsewhere
    assert trace.exists()


def test_a_forged_dtype_is_refused(tmp_path):
    """One that takes bytes of the file for a pointer to an object, as numpy's own state would let it."""
    state = (3, "|", None, ("format",), {"format": (np.dtype("O"), 0)}, 8, 1, 0)

    class Forged:
        def __reduce__(self):
            return np.dtype, ("V8", False, True), state

    class Scalar:
        def __reduce__(self):
            return np._core.multiarray.scalar, (Forged(), b"AAAAAAAA")

    (tmp_path / "forged").write_bytes(pickle.dumps(Scalar()))
    assert_refused(run("MCTS.py", "--dataset", tmp_path / "forged"), "plain numbers")
    for unusual in (np.zeros(3, "M8[s]"), np.array(["a"]), np.zeros(2, [("a", int)]), np.array([None])):
        (tmp_path / "forged").write_bytes(pickle.dumps({"x": unusual}))
        with pytest.raises(InputError, match="plain numbers"):
            tables.load(tmp_path / "forged")


def test_numbers_that_would_reserve_memory_are_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"\x80\x04Nr\xff\xff\xff\x0f.")  # nine bytes that number an object 268,435,455
    with pytest.raises(InputError, match="numbers an object"):
        tables.load(tmp_path / "t")


def test_truncated_and_foreign_tables_are_refused(tmp_path, small_table):
    path = tmp_path / "t"
    tables.save(small_table, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            open_table(path)
    for foreign in ([1, 2], {"format": "other"}, {"format": tables.FORMAT, "version": 2}, 5, None, "text"):
        path.write_bytes(pickle.dumps(foreign))
        with pytest.raises(InputError):
            open_table(path)


@pytest.mark.parametrize(
    "column, words",
    [
        (np.zeros(8), "no number of cells"),
        (np.zeros((7, 1)), "one-dimensional"),
        (np.full(7, 1.5), "outside 0..1"),
        (np.zeros(7, int), "not floats"),
        (np.array([None] * 7), "plain numbers"),
    ],
)
def test_columns_that_are_none(tmp_path, column, words):
    content = {"format": tables.FORMAT, "version": 1, "source": "s", "measured": True}
    (tmp_path / "t").write_bytes(pickle.dumps(content | {"columns": {"test": {"values": column}}}))
    with pytest.raises(InputError, match=words):
        tables.load(tmp_path / "t")


def test_a_failed_write_keeps_the_old_file(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        files.write_atomically(tmp_path / "nowhere" / "t", b"new")
    (tmp_path / "t").write_bytes(b"old")
    with pytest.raises(TypeError):
        files.write_atomically(tmp_path / "t", "not bytes")
    assert (tmp_path / "t").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_json_of_the_original(json_file, tmp_path):
    stored = [cells.cell(i) for i in (0, 3, 90)]
    content = {key(*cell): x for cell, x in zip(stored, (0.5, 0.75, 1))}
    content[key((0, 0), 0b000001)] = 0.5  # dangling, so not stored
    content["no cell"] = 0.5
    table, found = read_json(json_file(content))
    assert dict(found) == {"cells": 3, "not stored": 1, "not a cell": 1}
    assert len(table.columns["test"]) == 91
    assert {i: x for i, x in enumerate(table.columns["test"]) if x == x} == {0: 0.5, 3: 0.75, 90: 1.0}

    result = run("-m", "nasbench_dataset.convert", json_file(content), tmp_path / "t", "--metric", "valid")
    assert result.returncode == 0, result.stderr
    assert "3 of 423,624 cells (2 vertices 1 of 1; 3 vertices 1 of 6; 4 vertices 1 of 84)" in result.stdout
    assert "left out: 1 cells in a form" in result.stdout and "left out: 1 keys" in result.stdout
    np.testing.assert_array_equal(open_table(tmp_path / "t").columns["valid"], table.columns["test"])


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "not valid JSON"),
        ("", "not a usable table"),
        ("[" * 100_000, "not"),
        ('{"a":' * 100_000, "not valid JSON"),
        ("{}", "none of its 0 entries"),
        ({"x": 0.5}, "none of its 1 entries"),
        ({key((), 1): 1.5}, "numbers from 0 to 1"),
        ({key((), 1): "0.9"}, "numbers from 0 to 1"),
        ({key((), 1): True}, "numbers from 0 to 1"),
        ('{"x": NaN}', "numbers from 0 to 1"),
        (f"{{{json.dumps(key((), 1))}: 0.5, {json.dumps(key((), 1))}: 0.6}}", "given twice"),
    ],
)
def test_unusable_json_is_refused(json_file, content, words):
    with pytest.raises(InputError, match=words):
        open_table(json_file(content))


def test_convert_refuses_in_one_line_and_writes_nothing(json_file, tmp_path):
    dest = tmp_path / "t"
    assert_refused(run("-m", "nasbench_dataset.convert", tmp_path / "absent.json", dest), "cannot read")
    assert_refused(run("-m", "nasbench_dataset.convert", json_file("{"), dest), "not valid JSON")
    assert_refused(run("-m", "nasbench_dataset.convert"), "required")
    assert not dest.exists()
    good = json_file({key((), 1): 0.5})
    assert_refused(run("-m", "nasbench_dataset.convert", good, tmp_path / "nowhere" / "t"), "cannot write")
