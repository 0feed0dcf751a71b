"""Conversion of the official files of NAS-Bench-101, whole and damaged."""

import base64
import hashlib
import json
import math
import random
import struct
import sys

import nasbench_sample
import numpy as np
import pytest
from conftest import assert_refused, run
from nasbench_writer import IMAGES, Run, made_up_runs
from nasbench_writer import double, fields, framed, masked, message, message_of, numbers_at, tfrecord, varint
from source_files import SOME, assert_columns, assert_refused_in_little_memory, converted, write  # noqa: F401

from nasbench_dataset import InputError, cells, convert, official
from nasbench_dataset import table as tables
from nasbench_dataset.runs import BUDGETS

def changed(**entries) -> bytes:
    """A record of which some entries are replaced: ``epochs``, ``adjacency``, ``operations``, ``metrics``."""
    record = fields(next(made_up_runs([7])))
    for name, value in entries.items():
        record[["hash", "epochs", "adjacency", "operations", "metrics"].index(name)] = value
    return json.dumps(record).encode()


RUN = next(made_up_runs([7]))


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
    columns = [f"{name}{epochs}" for epochs in ("", "_36", "_12", "_4") for name in ("valid", "train_seconds")][1:]
    columns += ["valid_run0", "valid_run1", "valid_run2"]
    assert f"test, valid: 92 cells, complete up to 4 vertices; also {', '.join(columns)})" in lines[-1]


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


# --- as NAS-Bench-101 itself and its readers have it ------------------------------------------


def test_what_tensorflow_wrote_is_read(tmp_path):
    """nasbench_sample.tfrecord, in whose bytes nothing of this project had a hand."""
    runs = list(nasbench_sample.runs())
    assert b"\\n" in nasbench_sample.SAMPLE.read_bytes()  # base64 has line breaks, as JSON writes them
    assert_columns(converted(nasbench_sample.SAMPLE, tmp_path / "t"), runs)
    _, lines = convert.read(nasbench_sample.SAMPLE, "test")
    assert lines[0] == f"tfrecord of {len(runs)} runs"
    assert lines[-2] == "108 epochs: 78 runs of 26 cells, none missing"
    assert lines[-1] == "stored forms and trainable parameters: no disagreement"


def test_tensorflow_writes_the_sample(tmp_path):
    pytest.importorskip("tensorflow")
    nasbench_sample.write(tmp_path / "sample")
    assert (tmp_path / "sample").read_bytes() == nasbench_sample.SAMPLE.read_bytes()


def spaced(content: bytes) -> bytes:
    return b" \t" + base64.b64encode(content) + b"\r\n"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes, spaced])
def test_white_space_in_base64_means_nothing(write, encode):
    runs = list(made_up_runs(SOME[:20]))
    records = [fields(r)[:4] + [encode(message(r)).decode()] for r in runs]
    read, _ = official.read_tfrecord(write(b"".join(framed(json.dumps(record).encode()) for record in records)))
    assert read.findings.count == {}
    assert_columns(read.table(""), runs)


def test_a_run_given_again_with_other_line_breaks_is_a_duplicate(write):
    again = fields(RUN)[:4] + [base64.b64encode(message(RUN)).decode()]
    read, _ = official.read_tfrecord(write(tfrecord([RUN]) + framed(json.dumps(again).encode())))
    assert read.findings.count == {"duplicate": 1}


def at_end(change) -> str:
    """The metrics of a run whose last evaluation has other fields; ``change`` is given the list of its five."""
    evaluations = [numbers_at(RUN, part) for part in (0, 0.5, 1)]
    change(evaluations[-1])
    return base64.encodebytes(message_of(evaluations, RUN.parameters, 1.0)).decode()


CHECKPOINT_PATH = bytes([6 << 3 | 2, 7]) + b"a/b/c-1"  # NAS-Bench-101's .proto has it, its reader does not read it


@pytest.mark.parametrize(
    "entries",
    [
        {"hash": "ABCDEF0123456789" * 2},
        {"hash": "a sha256, say"},
        {"hash": None},
        {"epochs": 108.0},
        {"metrics": at_end(lambda numbers: numbers.append(CHECKPOINT_PATH))},
        {"metrics": at_end(lambda numbers: numbers.append(double(15, 0.5)))},
        {"metrics": at_end(lambda numbers: numbers.pop(0))},  # current_epoch
        {"metrics": at_end(lambda numbers: numbers.reverse())},
        {"metrics": base64.encodebytes(message(RUN) + bytes([15 << 3]) + varint(7)).decode()},
    ],
)
def test_what_its_own_reader_ignores_is_ignored(write, entries):
    read, _ = official.read_tfrecord(write(framed(changed(**entries))))
    assert read.findings.count == {}
    assert_columns(read.table(""), [RUN])


def as_float32(numbers: list[bytes], place: int) -> None:
    numbers[place] = bytes([place + 1 << 3 | 5]) + struct.pack("<f", 0.9)


@pytest.mark.parametrize(
    "metrics",
    [
        *(base64.encodebytes(message(RUN, parts)).decode() for parts in ((), (0,), (0, 1), (0, 0.5, 1, 1.5))),
        *(at_end(lambda numbers, place=place: numbers.pop(place)) for place in (1, 3, 4)),
        *(at_end(lambda numbers, place=place: as_float32(numbers, place)) for place in (1, 3, 4)),
    ],
)
def test_a_run_without_its_numbers_at_the_end_is_left_out(write, metrics):
    good = next(made_up_runs([9]))
    read, _ = official.read_tfrecord(write(tfrecord([good]) + framed(changed(metrics=metrics))))
    assert read.findings.count == {"unusable": 1}
    assert_columns(read.table(""), [good])


@pytest.mark.parametrize("epochs", [0, 5, 200, 1e9, -4, 10**30])
def test_runs_of_another_number_of_epochs_are_left_out(write, epochs):
    read, _ = official.read_tfrecord(write(tfrecord([RUN]) + framed(changed(epochs=epochs))))
    assert read.total == 2 and read.findings.count == {"budget": 1}
    assert "1 runs of other numbers of epochs than 4, 12, 36, 108, left out" in "\n".join(read.report())
    assert_columns(read.table(""), [RUN])


# --- damaged files ----------------------------------------------------------------------------


def test_cut_anywhere(write):
    records = [tfrecord([r]) for r in made_up_runs([7])]
    whole = b"".join(records)
    ends = {len(records[0]): 1, len(records[0] + records[1]): 2}
    for length in range(1, len(whole)):
        path = write(whole[:length])
        if length in ends:
            read, _ = official.read_tfrecord(path)
            runs = ends[length]
            assert f"108 epochs: {runs} runs of 1 cells, {3 - runs} missing, of 1 cells" in read.report()
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


@pytest.mark.parametrize(
    "record, words",
    [
        (b"", "not a JSON list of five"),
        (b'["', "not a JSON list of five"),
        (b"5", "not a JSON list of five"),
        (b"[1, 2, 3, 4]", "not a JSON list of five"),
        (b"\xff\xfe\xfa", "not a JSON list of five"),
        (b"[" * 100_000, "not a JSON list of five"),
        (b'"abcde"', "metrics are not base64"),
        (changed(adjacency=[0, 1]), "not strings"),
        (changed(operations=None), "not strings"),
        (changed(metrics=7), "not strings"),
        (changed(epochs="108"), "not all numbers"),
        (changed(epochs=[108]), "not all numbers"),
        (changed(epochs=True), "not all numbers"),
        (changed(adjacency=""), "not a 4 x 4 matrix"),
        (changed(adjacency="010" * 3), "not a 4 x 4 matrix"),
        (changed(adjacency="0" * 15), "not a 4 x 4 matrix"),
        (changed(adjacency="0102" + "0" * 12), "neither 0 nor 1"),
        (changed(adjacency="0100" + "1000" + "0" * 8), "not strictly upper-triangular"),
        (changed(operations="input,conv3x3-bn-relu,conv3x3-bn-relu"), "not a 3 x 3 matrix"),
        (changed(operations="input,conv3x3-bn-relu,conv5x5-bn-relu,output"), "unknown operation 'conv5x5-bn-relu'"),
        (changed(operations="output,conv3x3-bn-relu,conv3x3-bn-relu,input"), "does not begin with 'input'"),
        (changed(metrics="%%%"), "metrics are not base64"),
        (changed(metrics="abc"), "metrics are not base64"),
        (changed(metrics="é"), "metrics are not base64"),
        (changed(metrics=base64.b64encode(b"\xff" * 9).decode()), "metrics are no protobuf message"),
        (changed(metrics=base64.b64encode(message(RUN)[:-20]).decode()), "metrics are no protobuf message"),
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
    disagreement = f"first: 5, not {second[0].parameters:,}, {{"
    assert f"1 entries whose trainable parameters disagree with ours, kept; {disagreement}" in report
    assert "3 entries whose cell NAS-Bench-101 does not store in that form, left out; first: 108 epochs, {" in report
    assert "no disagreement" not in report


def test_runs_that_agree_in_what_is_kept_are_no_duplicates(write):
    one, two, three = (r._replace(test=0.5, valid=0.5, seconds=10.0) for r in made_up_runs([7]))
    records = [fields(r) for r in (one, two, three)]
    for half_way, record in enumerate(records):
        metrics = official.parse_metrics(base64.b64decode(record[4]))
        metrics.evaluation_data[1].test_accuracy = half_way / 10
        record[4] = base64.b64encode(metrics.SerializeToString()).decode()
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
        {"seconds": -1.0},
        {"seconds": 1e300},
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
    with pytest.raises(InputError, match="none of its 6 runs is a usable one of 108 epochs"):
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
