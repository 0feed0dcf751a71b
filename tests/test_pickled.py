"""Pickles that other projects have made of NAS-Bench-101, and pickles that mean harm."""

import gc
import math
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from conftest import run
from nasbench_writer import made_up_runs
from source_files import SOME, assert_columns, assert_refused_in_little_memory, converted
from source_files import naslib, nasbenchapi, write  # noqa: F401

from nasbench_dataset import InputError, cells, convert, plain_pickle
from nasbench_dataset import table as tables
from nasbench_dataset.runs import BUDGETS


@pytest.mark.parametrize("layout", [naslib, nasbenchapi])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_pickles_of_other_projects(write, tmp_path, layout, protocol):
    runs = list(made_up_runs(SOME[:40], BUDGETS))
    path = write(pickle.dumps(layout(runs), protocol))
    assert_columns(converted(path, tmp_path / "t"), runs)
    _, lines = convert.read(path, "test")
    name = {naslib: "NASLib", nasbenchapi: "NASBenchAPI"}[layout]
    assert lines[0] == f"{name}'s pickle of 480 runs" and lines[-1].endswith("no disagreement")


def test_the_real_file_of_naslib(measured, tmp_path):
    path = measured / "naslib_nb101_dummy.pkl"
    with open(path, "rb") as file:
        content = pickle.load(file)  # trusted, and read in another way than the code under test does
    assert len(content) == 30
    table = converted(path, tmp_path / "t")
    _, lines = convert.read(path, "test")
    assert lines == [
        "NASLib's pickle of 90 runs",
        "108 epochs: 90 runs of 30 cells, none missing",
        "stored forms and trainable parameters: no disagreement",
    ]
    for fixed, budgets in content.values():
        cell = {"adj_mat": fixed["module_adjacency"].tolist(), "node_list": fixed["module_operations"]}
        operations, edges = cells.from_dict(cell)
        index = cells.index(operations, edges)
        assert cells.to_dict(*cells.cell(index)) == cell
        assert cells.trainable_parameters(operations, edges) == fixed["trainable_parameters"]
        names = {"test": "test_accuracy", "valid": "validation_accuracy", "train_seconds": "training_time"}
        for column, name in names.items():
            mean = np.mean([trained[f"final_{name}"] for trained in budgets[108]])
            assert table.columns[column][index] == pytest.approx(mean, rel=1e-7)
    assert all(np.count_nonzero(~np.isnan(values)) == 30 for values in table.columns.values())


def broken_entry(path: list, value) -> dict:
    """NASLib's content with one value replaced; ``path`` leads there from the only entry."""
    content = naslib(list(made_up_runs([7])))
    (key,) = content
    place = content[key]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    "content, words",
    [
        ([1, 2], "no dictionary"),
        ({}, "no dictionary"),
        ("text", "no dictionary"),
        (np.zeros(3), "no dictionary"),
        ({"a": 1}, "the entry 'a' is not laid out"),
        ({"format": np.zeros(3)}, "the entry 'format' is not laid out"),
        ({"format": tables.FORMAT}, "is a table already"),
        ({"entries_by_arch": [1]}, "not a dictionary"),
        ({"entries_by_arch": {"a": [{}]}}, "it lacks 'derived'"),
        ({"entries_by_arch": {"a": [{"derived": 5, "adjacency_str": [], "operations_str": "x"}]}}, "NASBenchAPI"),
        (broken_entry([0, "module_adjacency"], 5), "a matrix 'adj_mat'"),
        (broken_entry([0, "module_adjacency"], np.zeros((7, 7), int)), "not a 4 x 4 matrix"),
        (broken_entry([0, "module_adjacency"], np.ones((4, 4), int)), "upper-triangular"),
        (broken_entry([0, "module_operations"], None), "NASLib"),
        (broken_entry([0, "trainable_parameters"], "many"), "not all numbers"),
        (broken_entry([1, 108], 5), "NASLib"),
        (broken_entry([1, 108, 0], {}), "it lacks 'final_test_accuracy'"),
        (broken_entry([1, 108, 0, "final_test_accuracy"], "0.9"), "not all numbers"),
        (broken_entry([1, 108, 0, "final_training_time"], [1.0]), "not all numbers"),
        (broken_entry([1, 5], [{}]), "it lacks"),
    ],
)
def test_pickles_of_another_layout_are_refused(write, content, words):
    path = write(pickle.dumps(content))
    with pytest.raises(InputError, match=words):
        convert.read(path, "test")


class Call:
    """Its pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec, os.unlink, getattr, __import__, np.load, np.fromfile])
def test_hostile_pickles_are_refused(write, tmp_path, function):
    trace = tmp_path / "executed"
    argument = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    content = naslib(list(made_up_runs([7])))
    content["evil"] = Call(function, argument)
    path = write(pickle.dumps(content))
    with pytest.raises(InputError, match="not admitted"):
        convert.read(path, "test")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\x80\x02Nr" + struct.pack("<I", 1 << 23) + b".", "numbers an object 8,388,608"),
        (b"Np8388608\n.", "numbers an object 8,388,608"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.", "not a usable table"),
        (pickle.dumps(Call(np._core.multiarray._reconstruct, np.ndarray, (1 << 28,), b"b")), "without content"),
        (pickle.dumps(Call(np.ndarray, (1 << 28,))), "not a usable table"),
    ],
)
def test_pickles_that_would_reserve_memory_are_refused(write, content, words):
    path = write(content)
    assert_refused_in_little_memory(lambda: convert.read(path, "test"), words)


# --- pickles of unusual size or depth ---------------------------------------------------------


def nested_tuples(levels: int) -> bytes:
    """Instructions for a tuple of two of the tuples before, 2^levels of them if each were written out."""
    return b"N" + b"".join(b"\x94h" + bytes([level]) + b"\x86" for level in range(levels))


def test_keys_that_take_long_to_hash_are_refused(tmp_path):
    contents = [
        b"\x80\x04}" + nested_tuples(200) + b"K\x01s.",  # whose hash takes 2^200 steps
        b"\x80\x04}N" + b"\x85" * 1_000_000 + b"K\x01s.",  # whose hash needs a stack that deep
        b"\x80\x04}(K\x01K\x02" + nested_tuples(200) + b"K\x01u.",
        b"\x80\x04(" + nested_tuples(200) + b"K\x01d.",
        b"\x80\x04\x8f(" + nested_tuples(200) + b"\x90.",  # a set
        b"\x80\x04(" + nested_tuples(200) + b"\x91.",  # a frozenset
    ]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    read = "try: convert.read(f'{folder}/{i}', 'test')\n except InputError as error: print(error)"
    imports = "import sys\nfrom nasbench_dataset import InputError, convert\nfolder = sys.argv[1]"
    # Not here: where it goes wrong, the interpreter crashes or never ends.
    result = run("-c", f"{imports}\nfor i in range(6):\n {read}", tmp_path, timeout=60)
    assert result.returncode == 0 and result.stdout.count("is no pickle of plain data") == 6


def shared_lists(levels: int, width: int) -> list:
    """A list of the same list, of the same list, and so on: ``width ** levels`` entries if each is looked at."""
    inner = [0]
    for _ in range(levels):
        inner = [inner] * width
    return inner


@pytest.mark.parametrize(
    "path",
    [
        *([0, name] for name in ("module_adjacency", "module_operations", "trainable_parameters")),
        *([1, 108], [1, 108, 0, "final_test_accuracy"]),
    ],
)
def test_values_that_share_their_parts_take_no_memory(write, path):
    for width in (4, 100):
        content = broken_entry(path, shared_lists(30, width))
        file = write(pickle.dumps(content))
        assert_refused_in_little_memory(lambda: convert.read(file, "test"), "is not laid out as in NASLib's file")


def test_what_else_a_run_has_may_be_anything(write, tmp_path):
    runs = list(made_up_runs([7]))
    content = naslib(runs)
    for trained in next(iter(content.values()))[1][108]:
        trained["notes"] = shared_lists(30, 4)
    assert_columns(converted(write(pickle.dumps(content)), tmp_path / "t"), runs)


@pytest.mark.parametrize("value", [True, False])
def test_truth_values_are_no_accuracies(write, value):
    path = write(pickle.dumps(broken_entry([1, 108, 0, "final_test_accuracy"], value)))
    with pytest.raises(InputError, match="not all numbers"):
        convert.read(path, "test")


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, 10**15, 1e300])
def test_accuracies_out_of_range_are_left_out(write, value):
    _, lines = convert.read(write(pickle.dumps(broken_entry([1, 108, 0, "final_test_accuracy"], value))), "test")
    assert any(line.startswith("1 runs without an accuracy in 0..1") for line in lines)


@pytest.mark.parametrize("digits", [20, 4_000, 5_000, 1_000_000])
def test_numbers_of_any_length_are_refused(write, digits):
    number = 2**64 if digits == 20 else -(2 ** (3 * digits))
    for content in ({number: 1}, {"a": number}):
        with pytest.raises(InputError, match=r"it has a number of [\d,]+ bits"):
            convert.read(write(pickle.dumps(content)), "test")


def test_limits_of_a_pickle(write, monkeypatch):
    content = pickle.dumps(naslib(list(made_up_runs(SOME[:300]))))
    path = write(content)
    assert convert.read(path, "test")[0].columns
    monkeypatch.setattr(plain_pickle, "_LOOK", 1_000)
    with pytest.raises(InputError, match="more than 5,000 instructions"):
        plain_pickle.load_plain(path, most=5_000)
    with pytest.raises(InputError, match=f"has {len(content):,} bytes; at most 1,000 are read"):
        plain_pickle.load_plain(path, largest=1_000)
    monkeypatch.setattr(plain_pickle, "_WAITING", 1_000)
    with pytest.raises(InputError, match="or too many at once"):
        plain_pickle.load_plain(write(b"\x80\x04" + b"}" * 100_000))


def test_a_pickle_leaves_nothing_behind(write):
    """What it has numbered is let go with it, without waiting for the garbage collector."""
    path = write(pickle.dumps({"a": np.zeros(100_000)}))
    gc.disable()
    tracemalloc.start()
    try:
        plain_pickle.load_plain(path)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
        gc.enable()
