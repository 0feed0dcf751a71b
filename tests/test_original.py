"""The JSON file of the original AlphaX repository."""

import json

import numpy as np
import pytest
from conftest import assert_refused, run
from source_files import assert_refused_in_little_memory

from nasbench_dataset import InputError, cells, original
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
