"""Whatever file is named as a source, a table or a destination."""

import json
import os
import pickle

import numpy as np
import pytest
from conftest import assert_refused, run
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_writer import framed, made_up_runs, tfrecord
from source_files import arrays_of, naslib, nasbenchapi, npz, write  # noqa: F401

from nasbench_dataset import InputError, cells, convert
from nasbench_dataset import table as tables

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
