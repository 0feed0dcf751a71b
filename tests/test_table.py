"""Tables in memory and on disk."""

import pickle

import numpy as np
import pytest
from conftest import assert_refused, run

from nasbench_dataset import InputError, cells, files
from nasbench_dataset import table as tables
from nasbench_dataset.opening import open_table


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


def test_a_loaded_table_can_be_saved_again(tmp_path):
    columns = {"valid": np.linspace(0, 1, 91), "test": np.arange(91) / 100_003, "train_seconds": np.arange(91) / 3}
    tables.save(tables.Table(columns, "made up", measured=False), tmp_path / "first")
    tables.save(tables.load(tmp_path / "first"), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "first").read_bytes()
    assert tables.load(tmp_path / "again").columns["test"].tolist() == columns["test"].tolist()


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
        (np.full(7, np.inf), "outside 0..1"),
        (np.full(7, -0.1), "outside 0..1"),
        (np.full(7, -0.1, np.float16), "outside 0..1"),
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


def forged(columns: dict) -> bytes:
    """A table of these columns, as they are."""
    return pickle.dumps({"format": tables.FORMAT, "version": 1, "source": "s", "measured": True, "columns": columns})


@pytest.mark.parametrize("denominator", [0, -1, 1, 10**4, 2**63, 2**64 - 1, True, 29_952.0, "29952", [1]])
def test_denominators_that_make_no_accuracies(tmp_path, denominator):
    column = {"values": np.full(7, 20_000, np.uint16), "denominator": denominator}
    (tmp_path / "t").write_bytes(forged({"test": column}))
    with pytest.raises(InputError, match="outside 0..1|has a denominator but"):
        open_table(tmp_path / "t")


def test_a_column_is_unpacked_when_it_is_asked_for(tmp_path, monkeypatch):
    unpacked, unpack = [], tables._unpack
    monkeypatch.setattr(tables, "_unpack", lambda name, column: unpacked.append(name) or unpack(name, column))
    columns = {"test": np.full(7, 0.5), "valid_run0": np.arange(7) / 8}
    tables.save(tables.Table(columns, "made up", False), tmp_path / "t")
    loaded = tables.load(tmp_path / "t")
    assert "also valid_run0" in loaded.describe() and unpacked == ["test"]
    for _ in range(2):
        np.testing.assert_array_equal(loaded.columns["valid_run0"], columns["valid_run0"])
    assert unpacked == ["test", "valid_run0"] and list(loaded.columns) == list(columns)


@pytest.mark.parametrize("seconds", [np.inf, -np.inf, -1.0])
def test_other_columns_hold_no_infinite_or_negative_numbers(tmp_path, seconds):
    columns = {"test": {"values": np.full(7, 0.5)}, "train_seconds": {"values": np.full(7, seconds)}}
    (tmp_path / "t").write_bytes(forged(columns))
    with pytest.raises(InputError, match="negative or infinite"):
        tables.load(tmp_path / "t").columns["train_seconds"]


SECONDS_ONLY = {"train_seconds": {"values": np.full(7, 0.5)}}


@pytest.mark.parametrize("columns", [{}, SECONDS_ONLY, [], "test", None, {5: {}}, {"test": 5}])
def test_a_table_without_accuracies_is_refused(tmp_path, columns):
    (tmp_path / "t").write_bytes(forged(columns))
    with pytest.raises(InputError, match="is not a table of this project"):
        open_table(tmp_path / "t")


def test_limits_of_a_table(tmp_path, small_table):
    with open(tmp_path / "t", "wb") as file:
        file.truncate(tables.LARGEST + 1)
        file.write(b"\x80\x04")
    with pytest.raises(InputError, match="at most 67,108,864 are read .* python -m nasbench_dataset.convert"):
        open_table(tmp_path / "t")
    (tmp_path / "t").write_bytes(forged({"test": [0.5] * 400_000}))
    with pytest.raises(InputError, match="more than 100,000 instructions"):
        open_table(tmp_path / "t")
    n = cells.cell_count()
    columns = {name: np.random.default_rng(0).uniform(0, 1, n) for name in ("test", "valid", *map(str, range(9)))}
    tables.save(tables.Table(columns, "made up", True), tmp_path / "t")
    assert (tmp_path / "t").stat().st_size < tables.LARGEST  # floats of all cells in more columns than any has
    assert len(tables.load(tmp_path / "t").columns) == 11
