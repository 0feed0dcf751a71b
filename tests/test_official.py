"""Conversion of the official files of NAS-Bench-101, of the pickles made of them and of numpy archives."""

import base64
import hashlib
import io
import json
import math
import os
import pickle
import random
import struct
import sys
import tracemalloc
import zipfile
from collections import defaultdict

import numpy as np
import pytest
from conftest import assert_refused, run
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_writer import IMAGES, Run, fields, framed, made_up_runs, masked, metrics, tfrecord

from nasbench_dataset import InputError, cells, convert, official
from nasbench_dataset import table as tables
from nasbench_dataset.runs import BUDGETS

SOME = np.random.default_rng(7).permutation(cells.cell_count())[:300].tolist()


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str = "source"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def expected_columns(runs: list[Run]) -> dict[str, dict[int, float]]:
    """Column -> index -> the mean over the runs, accuracies as exact integers over 29,952."""
    gathered = defaultdict(lambda: defaultdict(list))
    for r in runs:
        suffix = "" if r.epochs == 108 else f"_{r.epochs}"
        index = cells.index(*r.cell)
        gathered[f"valid{suffix}"][index].append(round(r.valid * IMAGES))
        gathered[f"train_seconds{suffix}"][index].append(r.seconds)
        if r.epochs == 108:
            gathered["test"][index].append(round(r.test * IMAGES))
    return {
        name: {i: math.fsum(v) / len(v) / (1 if name.startswith("train") else IMAGES) for i, v in column.items()}
        for name, column in gathered.items()
    }


def assert_columns(table: tables.Table, runs: list[Run], tolerance: float = 1e-7) -> None:
    expected = expected_columns(runs)
    assert set(table.columns) == set(expected)
    for name, values in table.columns.items():
        assert np.flatnonzero(~np.isnan(values)).tolist() == sorted(expected[name])
        for index, value in expected[name].items():
            assert values[index] == pytest.approx(value, rel=1e-7 if name.startswith("train") else tolerance)


def converted(path, dest) -> tables.Table:
    """Through the disk, as the command does it."""
    table, _ = convert.read(path, "test")
    tables.save(table, dest)
    return tables.load(dest)


# --- whole files ------------------------------------------------------------------------------


@pytest.mark.parametrize("budgets", [(108,), BUDGETS])
def test_round_trip(write, tmp_path, budgets):
    runs = list(made_up_runs(SOME, budgets))
    assert_columns(converted(write(tfrecord(runs)), tmp_path / "t"), runs, tolerance=1e-15)
    packed = tables.load_plain(tmp_path / "t")["columns"]
    assert packed["test"]["values"].dtype == packed["valid"]["values"].dtype == np.uint16
    assert packed["train_seconds"]["values"].dtype == np.float32


def test_the_order_of_records_does_not_matter(write):
    runs = list(made_up_runs(SOME[:50], BUDGETS))
    table, _ = convert.read(write(tfrecord(runs)), "test")
    random.Random(0).shuffle(runs)
    shuffled, _ = convert.read(write(tfrecord(runs)), "test")
    assert list(shuffled.columns) == list(table.columns)
    for name, values in table.columns.items():
        np.testing.assert_allclose(shuffled.columns[name], values, rtol=1e-7)


def test_a_table_of_all_cells_is_small(tmp_path):
    rng = np.random.default_rng(0)
    n = cells.cell_count()
    accuracy, seconds = rng.integers(0, 29_953, n) / 29_952, rng.uniform(0, 5_000, n).astype(np.float32).astype(float)
    columns = {"test": accuracy, "valid": accuracy, "train_seconds": seconds}
    tables.save(tables.Table(columns, "made up", True), tmp_path / "t")
    assert (tmp_path / "t").stat().st_size < 3_500_000
    np.testing.assert_array_equal(tables.load(tmp_path / "t").columns["train_seconds"], seconds)


def test_records_that_cross_the_chunks_of_reading(write, monkeypatch):
    runs = list(made_up_runs(SOME[:5]))
    path = write(tfrecord(runs))
    for size in (1, 11, 13, 400, 401):
        monkeypatch.setattr("nasbench_dataset.tfrecord.CHUNK", size)
        read, digest = official.read_tfrecord(path)
        assert_columns(read.table(""), runs)
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_report_of_the_command(write, tmp_path):
    path = write(tfrecord(made_up_runs([*range(91), 5_000], BUDGETS)), "made_up.tfrecord")
    result = run("-m", "nasbench_dataset.convert", path, tmp_path / "t")
    assert result.returncode == 0 and result.stderr == ""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        f"{path}: tfrecord of 1,104 runs",
        f"SHA256 {digest}: not that of an official file",
        "4 epochs: 276 runs of 92 cells, none missing",
    ]
    assert "stored forms and trainable parameters: no disagreement" in lines
    counted = "2 vertices 1 of 1; 3 vertices 6 of 6; 4 vertices 84 of 84; 6 vertices 1 of 62,010"
    assert f"valid_36: 92 of 423,624 cells ({counted})" in lines
    assert sum("not the published optimum" in line for line in lines) == 2
    assert "measured; test: 92 cells, complete up to 4 vertices" in lines[-1]


def test_official_files_are_recognised(write, tmp_path, monkeypatch, capsys):
    assert sorted(official.SHA256.values()) == ["nasbench_full.tfrecord", "nasbench_only108.tfrecord"]
    assert all(len(bytes.fromhex(digest)) == 32 for digest in official.SHA256)
    path = write(tfrecord(made_up_runs([3])), "renamed")
    monkeypatch.setitem(official.SHA256, hashlib.sha256(path.read_bytes()).hexdigest(), "nasbench_full.tfrecord")
    assert convert.main([str(path), str(tmp_path / "t")]) == 0
    assert ": the official nasbench_full.tfrecord\n" in capsys.readouterr().out
    assert tables.load(tmp_path / "t").source == "NAS-Bench-101, nasbench_full.tfrecord"


def cell_with(operations: tuple[int, ...], pairs: str) -> tuple[tuple[int, ...], int]:
    """A cell by its operations and its edges, each as two digits."""
    return operations, sum(cells.edge_bit(int(x), int(y)) for x, y in pairs.split())


def test_the_published_optima_are_recognised(write):
    best_by_test = cell_with((1, 0, 2, 0, 0), "01 02 05 06 15 23 34 45 56")
    best_by_valid = cell_with((0, 0, 0, 0), "01 02 03 04 05 14 23 34 45")
    assert cells.trainable_parameters(*best_by_test) == 32_426_634
    for metric, cell, numerator in (("test", best_by_test, 28_250), ("valid", best_by_valid, 28_471)):
        images = [numerator // 3, numerator // 3, numerator - 2 * (numerator // 3)]
        for added, verdict in ((0, "the published optimum, {"), (-30, "the published optimum, but there it has 0.9")):
            accuracies = [float(np.float32((i + added) / IMAGES)) for i in images]
            best = [Run(cell, 108, a, a, 1.0 + n, cells.trainable_parameters(*cell)) for n, a in enumerate(accuracies)]
            other = [r._replace(test=0.9, valid=0.9) for r in made_up_runs([5])]
            table, _ = convert.read(write(tfrecord(other + best)), "test")
            assert verdict in convert.best_cell(table, metric)
            table, _ = convert.read(write(tfrecord(other)), "test")
            assert "not the published optimum, which has 0.9" in convert.best_cell(table, metric)


# --- damaged files ----------------------------------------------------------------------------


def test_cut_anywhere(write):
    records = [tfrecord([r]) for r in made_up_runs([7])]
    whole = b"".join(records)
    ends = {len(records[0]): 1, len(records[0] + records[1]): 2}
    for length in range(1, len(whole)):
        path = write(whole[:length])
        if length in ends:
            read, _ = official.read_tfrecord(path)
            assert f"108 epochs: {ends[length]} runs of 1 cells, {3 - ends[length]} missing, of 1 cells" in read.report()
        else:
            with pytest.raises(InputError, match=r"record \d, at byte \d+: the file ends within it"):
                official.read_tfrecord(path)


def test_every_flipped_byte_is_noticed(write):
    whole = tfrecord(list(made_up_runs([7]))[:2])
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path = write(bytes(damaged))
        with pytest.raises(InputError, match="its length is damaged|its checksum does not fit its data"):
            official.read_tfrecord(path)
        assert convert.format_of(path) == "tfrecord"


@pytest.mark.parametrize("length", [1 << 21, 1 << 40, (1 << 64) - 1])
def test_a_huge_declared_length_reserves_nothing(write, length):
    declared = struct.pack("<Q", length)
    path = write(declared + struct.pack("<I", masked(declared)) + b'["' + bytes(1_000))
    assert_refused_in_little_memory(lambda: convert.read(path, "test"), "its length is damaged")


def assert_refused_in_little_memory(call, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words):
            call()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def changed(**entries) -> bytes:
    """A record of which some entries are replaced: ``epochs``, ``adjacency``, ``operations``, ``metrics``."""
    record = fields(next(made_up_runs([7])))
    for name, value in entries.items():
        record[["hash", "epochs", "adjacency", "operations", "metrics"].index(name)] = value
    return json.dumps(record).encode()


RUN = next(made_up_runs([7]))


@pytest.mark.parametrize(
    "record, words",
    [
        (b"", "not a JSON list of five"),
        (b'["', "not a JSON list of five"),
        (b"5", "not a JSON list of five"),
        (b"[1, 2, 3, 4]", "not a JSON list of five"),
        (b"\xff\xfe\xfa", "not a JSON list of five"),
        (b"[" * 100_000, "not a JSON list of five"),
        (b'"abcde"', "metrics are not a base64"),
        (changed(adjacency=[0, 1]), "not strings"),
        (changed(operations=None), "not strings"),
        (changed(metrics=7), "not strings"),
        (changed(epochs=5), "epochs are none of 4, 12, 36, 108"),
        (changed(epochs="108"), "epochs are none of"),
        (changed(epochs=[108]), "epochs are none of"),
        (changed(adjacency=""), "not a 4 x 4 matrix"),
        (changed(adjacency="010" * 3), "not a 4 x 4 matrix"),
        (changed(adjacency="0" * 15), "not a 4 x 4 matrix"),
        (changed(adjacency="0102" + "0" * 12), "neither 0 nor 1"),
        (changed(adjacency="0100" + "1000" + "0" * 8), "not strictly upper-triangular"),
        (changed(operations="input,conv3x3-bn-relu,conv3x3-bn-relu"), "not a 3 x 3 matrix"),
        (changed(operations="input,conv3x3-bn-relu,conv5x5-bn-relu,output"), "unknown operation 'conv5x5-bn-relu'"),
        (changed(operations="output,conv3x3-bn-relu,conv3x3-bn-relu,input"), "does not begin with 'input'"),
        (changed(metrics="%%%"), "metrics are not a base64"),
        (changed(metrics="abc"), "metrics are not a base64"),
        (changed(metrics="é"), "metrics are not a base64"),
        (changed(metrics=base64.b64encode(b"\xff" * 9).decode()), "metrics are not a base64"),
        (changed(metrics=base64.b64encode(metrics(RUN)[:-20]).decode()), "metrics are not a base64"),
        (changed(metrics=""), "0 evaluations, not 3"),
        (changed(metrics=base64.b64encode(metrics(RUN, evaluations=2)).decode()), "2 evaluations, not 3"),
    ],
)
def test_records_of_another_kind_are_refused(write, record, words):
    path = write(tfrecord([RUN]) + framed(record))
    with pytest.raises(InputError, match=f"record 2 is not one of NAS-Bench-101: .*{words}"):
        official.read_tfrecord(path)


def test_what_is_odd_is_counted(write):
    first, second, third = (list(made_up_runs([i], seed=i)) for i in (7, 90, 42_931))
    operations, edges = third[0].cell
    relabelled = operations[::-1], edges
    assert cells.index(*relabelled) == cells.NOT_A_CELL
    runs = [
        *first,
        first[0],  # given again
        first[0]._replace(seconds=1.0),  # a fourth
        second[0],
        second[1]._replace(parameters=5),
        second[2]._replace(test=math.nan),
        *(r._replace(cell=relabelled) for r in third),
    ]
    read, _ = official.read_tfrecord(write(tfrecord(runs)))
    assert read.total == len(runs)
    assert read.findings.count == {"duplicate": 1, "surplus": 1, "parameters": 1, "unusable": 1, "not stored": 3}
    assert_columns(read.table(""), [*first, *second[:2]])
    report = "\n".join(read.report())
    assert "108 epochs: 5 runs of 2 cells, 1 missing, of 1 cells" in report
    assert f"1 entries whose trainable parameters disagree with ours, kept; first: 5, not {second[0].parameters:,}, {{" in report
    assert "3 entries whose cell NAS-Bench-101 does not store in that form, left out; first: 108 epochs, {" in report
    assert "no disagreement" not in report


def test_runs_that_agree_in_what_is_kept_are_no_duplicates(write):
    one, two, three = (r._replace(test=0.5, valid=0.5, seconds=10.0) for r in made_up_runs([7]))
    records = [fields(r) for r in (one, two, three)]
    for half_way, record in enumerate(records):
        message = official.parse_metrics(record[4])
        message.evaluation_data[1].test_accuracy = half_way / 10
        record[4] = base64.b64encode(message.SerializeToString()).decode()
    read, _ = official.read_tfrecord(write(b"".join(framed(json.dumps(record).encode()) for record in records)))
    assert read.findings.count == {} and "108 epochs: 3 runs of 1 cells, none missing" in read.report()


def test_duplicates_do_not_hide_that_a_run_is_missing(write):
    one, two, _ = made_up_runs([7])
    read, _ = official.read_tfrecord(write(tfrecord([one, one, one, two])))
    assert read.findings.count == {"duplicate": 2}
    assert "108 epochs: 2 runs of 1 cells, 1 missing, of 1 cells" in read.report()


def test_a_budget_that_a_cell_lacks_is_missing(write):
    runs = [r for r in made_up_runs([7, 9], BUDGETS) if (r.epochs, cells.index(*r.cell)) != (12, 9)]
    read, _ = official.read_tfrecord(write(tfrecord(runs)))
    assert "12 epochs: 3 runs of 1 cells, 3 missing, of 1 cells" in read.report()
    assert_columns(read.table(""), runs)


@pytest.mark.parametrize(
    "values",
    [
        {"test": math.nan},
        {"valid": math.nan},
        {"test": 1.5},
        {"valid": -0.1},
        {"seconds": math.inf},
        {"seconds": math.nan},
    ],
)
def test_runs_without_usable_numbers_are_left_out(write, values):
    good, *bad = made_up_runs([7])
    read, _ = official.read_tfrecord(write(tfrecord([good, *(r._replace(**values) for r in bad)])))
    assert read.findings.count == {"unusable": 2}
    assert_columns(read.table(""), [good])


def test_without_runs_of_108_epochs_there_is_no_table(write):
    path = write(tfrecord(made_up_runs([7], (4, 12))))
    with pytest.raises(InputError, match="none of its 6 runs is one of 108 epochs"):
        convert.read(path, "test")


@pytest.mark.parametrize("module, words", [("google_crc32c", "google-crc32c"), ("google.protobuf", "protobuf")])
def test_a_library_that_is_not_installed(write, monkeypatch, module, words):
    official.metrics_class.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    path = write(b"\0" * 12)
    with pytest.raises(InputError, match=f"pip install {words}"):
        official.read_tfrecord(path)


def test_a_search_needs_neither_library():
    libraries = "{'google.protobuf', 'google_crc32c'}"
    assert run("-c", f"import sys, MCTS; sys.exit(bool({libraries} & set(sys.modules)))").returncode == 0


def test_the_command_refuses_in_one_line_and_keeps_the_old_table(write, tmp_path):
    whole = tfrecord(made_up_runs([7]))
    dest = write(b"old", "dest")
    for content in (whole[:-1], whole.replace(b"input", b"inpuT"), b"", whole[:5]):
        assert_refused(run("-m", "nasbench_dataset.convert", write(content), dest), "source")
    assert dest.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dest", "source"]


# --- pickles ----------------------------------------------------------------------------------


def naslib(runs: list[Run]) -> dict:
    """The content of NASLib's file; one entry for each cell."""
    content = {}
    for r in runs:
        cell = cells.to_dict(*r.cell)
        fixed = {
            "module_adjacency": np.array(cell["adj_mat"]),
            "module_operations": cell["node_list"],
            "trainable_parameters": r.parameters,
        }
        _, budgets = content.setdefault(f"{cells.index(*r.cell):032x}", (fixed, {}))
        budgets.setdefault(r.epochs, []).append(
            {"final_test_accuracy": r.test, "final_validation_accuracy": r.valid, "final_training_time": r.seconds}
        )
    return content


def nasbenchapi(runs: list[Run]) -> dict:
    """The content of NASBenchAPI's file; one entry for each cell."""
    entries = defaultdict(list)
    for r in runs:
        _, epochs, adjacency, operations, encoded = fields(r)
        derived = {
            "trainable_parameters": r.parameters,
            "training_time": r.seconds,
            "train_accuracy": 1.0,
            "validation_accuracy": r.valid,
            "test_accuracy": r.test,
        }
        entries[f"{cells.index(*r.cell):032x}"].append(
            {
                "epoch": epochs,
                "adjacency_str": adjacency,
                "operations_str": operations,
                "metrics_b64": encoded,
                "derived": derived,
            }
        )
    return {"benchmark": "nasbench101", "format": "lossless", "entries_by_arch": dict(entries), "num_records": len(runs)}


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
        for column, name in (("test", "test_accuracy"), ("valid", "validation_accuracy"), ("train_seconds", "training_time")):
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
        (broken_entry([0, "module_adjacency"], 5), "shape"),
        (broken_entry([0, "module_adjacency"], np.zeros((7, 7), int)), "shape"),
        (broken_entry([0, "module_adjacency"], np.ones((4, 4), int)), "upper-triangular"),
        (broken_entry([0, "module_operations"], None), "NASLib"),
        (broken_entry([0, "trainable_parameters"], "many"), "integer"),
        (broken_entry([1, 108], 5), "NASLib"),
        (broken_entry([1, 108, 0], {}), "it lacks 'final_test_accuracy'"),
        (broken_entry([1, 108, 0, "final_test_accuracy"], "0.9"), "not supported between"),
        (broken_entry([1, 108, 0, "final_training_time"], [1.0]), "not supported between"),
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


# --- numpy archives ---------------------------------------------------------------------------


def arrays_of(indices: list[int]) -> dict[str, np.ndarray]:
    """The fields of an archive, with made-up accuracies."""
    rng = np.random.default_rng(0)
    described = [cells.cell(i) for i in indices]
    return {
        "vertices": np.array([len(operations) + 2 for operations, _ in described], np.uint8),
        "edge_bits": np.array([edges for _, edges in described], np.uint32),
        "operations": np.array([(*o, *[255] * (5 - len(o))) for o, _ in described], np.uint8).reshape(-1, 5),
        "trainable_parameters": np.array([cells.trainable_parameters(*cell) for cell in described], np.uint32),
        "test": rng.integers(0, 29_953, len(indices)) / 29_952,
        "valid_12": rng.uniform(0, 1, len(indices)),
        "train_seconds": rng.uniform(0, 5_000, len(indices)),
        "something_else": np.array(["ignored"]),
    }


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_a_numpy_archive(write, tmp_path):
    arrays = arrays_of(SOME)
    arrays["valid_12"][3] = np.nan
    table = converted(write(npz(arrays)), tmp_path / "t")
    assert list(table.columns) == ["test", "train_seconds", "valid_12"]
    for name, values in table.columns.items():
        np.testing.assert_array_equal(values[SOME], arrays[name])
        assert np.count_nonzero(~np.isnan(values)) == len(SOME) - (name == "valid_12")


def test_measurements_as_an_archive(measured, tmp_path):
    source = np.load(measured / "nasbench101_measured_small.npz")
    arrays = {name: source[name] for name in ("vertices", "edge_bits", "operations")}
    arrays |= {"test": source["test_108_mean3"], "valid": source["valid_108_mean3"]}
    np.savez(tmp_path / "small.npz", **arrays)
    table, lines = convert.read(tmp_path / "small.npz", "test")
    assert lines == ["a numpy archive of cells", "stored forms: no disagreement"]
    assert table.complete_to("test") == 4 and np.count_nonzero(~np.isnan(table.columns["valid"])) == 1_204


def test_a_metric_without_any_value_has_no_best_cell(write, tmp_path, capsys):
    arrays = arrays_of([7, 50]) | {"valid": np.full(2, np.nan)}
    assert convert.main([str(write(npz(arrays))), str(tmp_path / "t")]) == 0
    printed = capsys.readouterr().out
    assert "valid: 0 of 423,624 cells" in printed
    assert "best test: " in printed and "best valid" not in printed


def test_what_is_odd_in_an_archive_is_counted(write):
    arrays = arrays_of([7, 50, 90])
    arrays["trainable_parameters"][0] = 1
    arrays["edge_bits"][1] = 1  # a vertex is left dangling
    table, lines = convert.read(write(npz(arrays)), "test")
    assert np.flatnonzero(~np.isnan(table.columns["test"])).tolist() == [7, 90]
    assert any(line.startswith("1 entries whose cell NAS") for line in lines)
    assert any(line.startswith("1 entries whose trainable") for line in lines)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"vertices": None}, "it has no vertices"),
        ({"operations": None}, "it has no operations"),
        ({"test": None}, "neither test nor valid"),
        ({"test": np.zeros(2)}, r"its test is float64 \(2,\), not float \(3,\)"),
        ({"test": np.zeros((3, 1))}, "its test is"),
        ({"test": np.zeros(3, int)}, "its test is int64"),
        ({"test": np.full(3, 1.5)}, "outside 0..1"),
        ({"train_seconds": np.full(3, -1.0)}, "outside 0.."),
        ({"train_seconds": np.full(3, np.inf)}, "outside 0.."),
        ({"vertices": np.zeros(3)}, "its vertices is float64"),
        ({"vertices": np.array([4, 4, 8])}, "row 2 is no cell"),
        ({"vertices": np.array(5)}, "its vertices"),
        ({"edge_bits": np.array([1, -1, 3])}, "row 1 is no cell"),
        ({"operations": np.full((3, 5), 3)}, "row 0 is no cell"),
        ({"operations": np.zeros((3, 4), int)}, "its operations is"),
        ({"edge_bits": np.zeros(3, int)}, "none of its cells"),
        ({"vertices": np.array([2, 2, 2]), "edge_bits": np.array([1, 1, 1])}, "row 1 gives a cell again"),
        ({"test": np.array([None] * 3)}, "its test has the shape .* of object"),
        ({"test": np.zeros(0)}, r"its test has the shape \(0,\)"),
    ],
)
def test_archives_that_are_none(write, changes, words):
    arrays = {name: values for name, values in (arrays_of([7, 50, 90]) | changes).items() if values is not None}
    path = write(npz(arrays))
    with pytest.raises(InputError, match=words):
        convert.read(path, "test")


def test_an_archive_that_declares_a_huge_array_reserves_nothing(write):
    for shape, kind in (((1 << 40,), "<f8"), ((400_000, 400_000), "<f8"), ((5, 5, 5), "<f8"), ((9,), "<U99999999")):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("vertices.npy", header.getvalue())
        path = write(content.getvalue())
        assert_refused_in_little_memory(lambda: convert.read(path, "test"), "vertices has the shape")


# --- whatever the file ------------------------------------------------------------------------


def table_bytes(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("table") / "t"
    tables.save(tables.Table({"test": np.linspace(0, 1, 7)}, "made up", True), path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> list[bytes]:
    """A small valid file of every format."""
    runs = list(made_up_runs([3]))[:2]
    arrays = {name: array for name, array in arrays_of([3]).items() if name in ("vertices", "edge_bits", "operations", "test")}
    key = json.dumps(cells.to_dict(*cells.cell(3)), sort_keys=True)
    return [
        tfrecord(runs),
        pickle.dumps(naslib(runs)),
        pickle.dumps(nasbenchapi(runs)),
        npz(arrays),
        json.dumps({key: 0.5}).encode(),
        table_bytes(tmp_path_factory),
    ]


@pytest.mark.parametrize(
    "content, kind",
    [
        (b'{"a":       ["b"]}', "json"),  # where a record would begin its JSON list
        (b' \n{"a": 1}', "json"),
        (pickle.dumps({}, 4), "pickle"),  # its bytes 4 to 7 are zero, as in the length of a record
        (b"Np1\n.", "pickle"),
        (b"", "pickle"),
        (b"PK\x03\x04", "npz"),
        (framed(b"{" * 123), "tfrecord"),  # its length is written as {
    ],
)
def test_formats_are_told_apart_by_content(write, content, kind):
    assert convert.format_of(write(content)) == kind


def test_files_cut_at_every_length_are_refused(sources, write):
    for content in sources[1:]:  # of tfrecords, whole records may be missing: see test_cut_anywhere
        for length in range(len(content)):
            path = write(content[:length])
            with pytest.raises(InputError, match=str(path)):
                convert.read(path, "test")


@pytest.mark.filterwarnings("ignore")  # numpy's and zipfile's, about what the damage makes of a header
def test_every_flipped_byte_of_an_archive(sources, write):
    (whole,) = (content for content in sources if content.startswith(b"PK"))
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path = write(bytes(damaged))
        try:
            assert isinstance(convert.read(path, "test")[0], tables.Table)  # times of files, say, do not matter
        except InputError:
            refused += 1
    assert refused > len(whole) / 2


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # in damaged pickles of protocol 0
@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_with_an_input_error(sources, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged(data, data.draw(st.sampled_from(sources))))
    for read in (lambda: convert.read(path, "test")[0], lambda: convert.open_table(path)):
        try:
            assert isinstance(read(), tables.Table)
        except InputError as error:
            assert str(path) in str(error)

# --- the measured table in its place ----------------------------------------------------------


def test_a_measured_table_in_place_is_the_default(tmp_path, monkeypatch):
    assert tables.MEASURED.name == "nasbench101.pickle" and tables.MEASURED.parent == tables.EMBEDDED.parent
    monkeypatch.setattr(tables, "MEASURED", tmp_path / "nasbench101.pickle")
    assert tables.default_path() == tables.EMBEDDED
    tables.MEASURED.write_bytes(b"")
    assert tables.default_path() == tables.MEASURED


def test_a_search_says_which_table_it_used(tmp_path, monkeypatch, capsys, small_table):
    import MCTS

    monkeypatch.setattr(tables, "MEASURED", tmp_path / "nasbench101.pickle")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    options = ["--max-nodes", "4", "--samples", "3", "--seed", "0", "--out", str(tmp_path / "r")]
    for words, dataset in (("SURROGATE", "embedded surrogate"), ("measured", str(tables.MEASURED))):
        assert MCTS.main(options) == 0
        assert words in capsys.readouterr().out.splitlines()[0]
        assert json.loads((tmp_path / "r" / "summary.json").read_text())["dataset"] == dataset
        small_table.measured = True
        tables.save(small_table, tables.MEASURED)


def test_what_must_be_converted_first_is_no_dataset_of_a_search(write):
    for content in (tfrecord(made_up_runs([7])), npz(arrays_of([7]))):
        path = write(content)
        with pytest.raises(InputError, match=f"python -m nasbench_dataset.convert {path}"):
            convert.open_table(path)
