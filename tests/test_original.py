"""The JSON file of the original AlphaX repository."""

import json

import numpy as np
import pytest
from conftest import assert_refused, run
from source_files import assert_refused_in_little_memory

from nasbench_dataset import InputError, cells, original
from nasbench_dataset.opening import open_table
from nasbench_dataset.original import read_json


def key(operations, edges):
    return json.dumps(cells.to_dict(operations, edges), sort_keys=True)


@pytest.fixture
def json_file(tmp_path):
    def write(content):
        path = tmp_path / "data.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


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
        ({key((), 1): float("inf")}, "numbers from 0 to 1"),
        ({key((), 1): -0.001}, "numbers from 0 to 1"),
        ({key((), 1): 10**300}, "numbers from 0 to 1"),
        (f"{{{json.dumps(key((), 1))}: 1e999}}", "numbers from 0 to 1"),
        (f"{{{json.dumps(key((), 1))}: {'9' * 5_000}}}", "not valid JSON"),
        ({key((), 1): None}, "numbers from 0 to 1"),
        ({key((), 1): [0.5]}, "not valid JSON"),
        (json.dumps({key((), 1): 0.5}) + "}", "goes on with '}'"),
        (json.dumps({key((), 1): 0.5})[:-1] + ",}", "not valid JSON"),
        (json.dumps({key((), 1): 0.5})[:-1], "not valid JSON"),
        ('{"a\nb": 0.5}', "not valid JSON"),
        ('{"\\x": 0.5}', "not valid JSON"),
        ('{"a": 0x1}', "not valid JSON"),
        (f"{{{json.dumps(key((), 1))}:\u20280.5}}", "not valid JSON"),
        (f"{{\x0b{json.dumps(key((), 1))}: 0.5}}", "not valid JSON"),
        ("{'a': 0.5}", "not valid JSON"),
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


def test_entries_that_cross_the_chunks_of_reading(json_file, monkeypatch):
    rng = np.random.default_rng(0)
    accuracies = {int(i): float(rng.uniform()) for i in rng.permutation(2_532)[:400]}
    for indent in (None, 3):
        path = json_file(json.dumps({key(*cells.cell(i)): x for i, x in accuracies.items()}, indent=indent))
        for size in (original.LONGEST, original.LONGEST + 1, 5_003, 1 << 20):
            monkeypatch.setattr(original, "_CHUNK", size)
            table, found = read_json(path)
            assert dict(found) == {"cells": 400}
            assert {i: x for i, x in enumerate(table.columns["test"]) if x == x} == accuracies


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_as_others_write_it(tmp_path, mark):
    """A byte order mark, white space, escapes, finished cells of a search."""
    cell = cells.to_dict(*cells.cell(3))
    cell["node_list"].append("term")
    written = json.dumps(json.dumps(cell, sort_keys=True)).replace("a", "\\u0061").replace("/", "\\/")
    (tmp_path / "t").write_bytes(mark + b" \r\n{ " + written.encode() + b"\t:\n1e-1 }\n\n")
    table, found = read_json(tmp_path / "t")
    assert dict(found) == {"cells": 1} and table.columns["test"][3] == 0.1


def in_pieces(path, start: str, piece: str, megabytes: int):
    """A file that begins so and goes on with the same piece again and again."""
    with open(path, "w") as file:
        file.write(start)
        for _ in range(megabytes):
            file.write(piece * ((1 << 20) // len(piece)))
    return path


@pytest.mark.parametrize(
    "start, piece, words",
    [
        ("{", '"a": 0.5, ', "none of its first 10,000 entries is a NAS-Bench-101 cell"),
        ("[", "1, ", "not one JSON object"),
        ("{", '"', "not valid JSON"),
        ('{"a": ', "[", "not valid JSON"),
        ('{"', "a", "not valid JSON"),
        ('{"', "\\\\", "not valid JSON"),
        ('{"a": ', "1", "not valid JSON"),
        ("{", " ", "not valid JSON"),
        ('{"a": 0.5}', "{", "after its object it goes on"),
    ],
)
def test_a_large_file_of_something_else_is_refused_at_once(tmp_path, start, piece, words):
    path = in_pieces(tmp_path / "t.json", start, piece, 30)
    assert_refused_in_little_memory(lambda: open_table(path), words)


def test_limits_of_the_json_file(json_file, monkeypatch):
    content = {key(*cells.cell(i)): 0.5 for i in range(20)}
    assert open_table(json_file(content)).columns
    with monkeypatch.context() as changed:
        changed.setattr(original, "MOST", 20)
        with pytest.raises(InputError, match="it has 20 entries or more; NAS-Bench-101 has 423,624 cells"):
            open_table(json_file(content))
    monkeypatch.setattr(original, "LARGEST", 1_000)
    with pytest.raises(InputError, match="at most 1,000 are read of a file of its kind"):
        open_table(json_file(content))


def test_cells_in_another_form_do_not_count_as_garbage(json_file, monkeypatch):
    """However many come first, a file with one stored cell is one of cells."""
    monkeypatch.setattr(original, "TRIED", 10)
    others = {key((a, b), 0b000001): 0.5 for a in range(3) for b in range(3)} | {key((0, 0), e): 0.5 for e in (0, 2, 4)}
    _, found = read_json(json_file(others | {key((), 1): 0.5}))
    assert dict(found) == {"not stored": 12, "cells": 1}
