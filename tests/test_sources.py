"""Whatever file is named as a source, a table or a destination."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, assert_refused, run
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from nasbench_writer import framed, made_up_runs, tfrecord
from source_files import arrays_of, naslib, nasbenchapi, npz, write  # noqa: F401

from nasbench_dataset import InputError, archive, cells, command, convert, official, original
from nasbench_dataset.opening import open_table
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
    needed = "vertices", "edge_bits", "operations", "test"
    arrays = {name: array for name, array in arrays_of([3]).items() if name in needed}
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
    for read in (lambda: convert.read(path, "test")[0], lambda: open_table(path)):
        try:
            assert isinstance(read(), tables.Table)
        except InputError as error:
            assert str(path) in str(error)


# --- paths that are no files ------------------------------------------------------------------

READERS = [
    lambda path: convert.read(path, "test"), open_table, tables.load,
    archive.read_npz, original.read_json, official.read_tfrecord,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    for path in ("pipe", "loop", "dangling", "", "absent", "absent/x", "n" * 300):
        with pytest.raises(InputError, match="cannot read"):
            read(tmp_path / path)
    for path in ("/dev/zero", "/dev/null", ".", "a\0b"):
        with pytest.raises(InputError, match="cannot read"):
            read(path)
    with pytest.raises(InputError, match="no file is named: its path is empty"):
        read("")


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_cannot_be_read_to_its_end(read, monkeypatch, tmp_path):
    """One on a disk that fails, say: Linux has a file for each process that gives an error wherever it is read."""
    if not os.path.isfile("/proc/self/mem"):
        pytest.skip("not Linux")
    with pytest.raises(InputError, match="/proc/self/mem"):
        read("/proc/self/mem")


@pytest.mark.parametrize(
    "content, words",
    [
        (gzip.compress(b"x"), "is compressed by gzip; unpack it first"),
        (bz2.compress(b"x"), "is compressed by bzip2"),
        (lzma.compress(b"x"), "is compressed by xz"),
        (b"<!DOCTYPE html><html>not found</html>", "is no pickle of plain data"),
        (b"\x89PNG\r\n\x1a\n", "is no pickle of plain data"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no pickle of plain data"),
        (b"\x1b[31mred\x1b[0m", "is no pickle of plain data"),
        (b"", "is no pickle of plain data"),
        (bytes(1_000), "record 1, at byte 0: its length is damaged"),
        (b"PK\5\6" + bytes(18), "it has no vertices"),
    ],
    ids=["gzip", "bzip2", "xz", "page", "picture", "pointer", "escapes", "empty", "zeros", "zip"],
)
def test_files_of_other_kinds_are_refused(write, content, words):
    for name in ("source.tfrecord", "source.json"):
        path = write(content, name)
        with pytest.raises(InputError, match=words) as refused:
            convert.read(path, "test")
        assert len(str(refused.value)) < 1_000


# --- text out of files on the terminal --------------------------------------------------------

ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202ebackwards\r\nnext"


def assert_harmless(text: str) -> None:
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_table_with_escapes_in_its_names_is_shown_harmlessly(tmp_path, small_table):
    small_table.source = ESCAPES * 1_000
    small_table.columns[f"valid {ESCAPES}"] = small_table.columns["test"]
    small_table.columns["9" * 5_000] = small_table.columns["test"]
    tables.save(small_table, tmp_path / "t")
    shown = tables.load(tmp_path / "t").describe()
    assert "red" in shown and "SURROGATE" in shown and "\n" not in shown and len(shown) <= 1_000
    assert_harmless(shown)
    result = run("MCTS.py", "--dataset", tmp_path / "t", "--max-nodes", "4", "--samples", "2", "--out", tmp_path / "r")
    assert result.returncode == 0
    assert_harmless(result.stdout + result.stderr)


def test_what_convert_prints_is_harmless(write, tmp_path, capsys):
    good = next(made_up_runs([7]))
    key = json.dumps(cells.to_dict(*good.cell), sort_keys=True)
    entry, odd = (next(iter(naslib([r]).values())) for r in (good, good._replace(cell=((0, 0), 1))))
    contents = {
        json.dumps({ESCAPES: 0.5, key: 0.5}, ensure_ascii=False).encode(): 0,
        pickle.dumps({ESCAPES: entry, "b": odd}): 0,
        json.dumps({ESCAPES: 2}, ensure_ascii=False).encode(): 2,
        json.dumps({key: 0.5}).encode() + ESCAPES.encode(): 2,
        pickle.dumps({ESCAPES: 5}): 2,
        pickle.dumps({"format": tables.FORMAT, "version": ESCAPES}): 2,
        framed(json.dumps(["", 108, "0", ESCAPES, ""]).encode()): 2,
        f"cos{ESCAPES.splitlines()[0]}\nx\n.".encode(): 2,
    }
    for content, status in contents.items():
        path = write(content, f"a{ESCAPES}")
        with pytest.raises(SystemExit) as ended:
            command.run(lambda path=path: convert.main([str(path), str(tmp_path / f"b{ESCAPES}")]))
        printed = capsys.readouterr()
        assert ended.value.code == status, printed.err
        assert_harmless(printed.out + printed.err)
        assert len(printed.err.splitlines()) == status // 2 and "red" in printed.out + printed.err


# --- destinations -----------------------------------------------------------------------------


@pytest.fixture
def source(write):
    return write(tfrecord(made_up_runs([7])), "source.tfrecord")


def refused_without_reading(source, dest, words: str) -> None:
    content = source.read_bytes()
    with pytest.raises(InputError, match=words):
        convert.main([str(source), str(dest)])
    assert source.read_bytes() == content


def test_destinations_that_cannot_be_replaced_by_a_table(source, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "read", lambda *_: pytest.fail("it was read first"))
    os.mkfifo(tmp_path / "pipe")
    os.link(source, tmp_path / "hard")
    os.symlink(source, tmp_path / "soft")
    os.symlink("/dev/null", tmp_path / "null")
    for dest in (tmp_path, tmp_path / "pipe", tmp_path / "null", "/dev/null"):
        refused_without_reading(source, dest, "it is no regular file")
    refused_without_reading(source, tmp_path / "nowhere" / "t", "is no folder that can be written to")
    refused_without_reading(source, source / "t", "is no folder that can be written to")
    for dest in (source, tmp_path / "hard", tmp_path / "soft", tmp_path / "." / "source.tfrecord"):
        refused_without_reading(source, dest, "is the source itself")
    refused_without_reading(source, "", "DEST|no file is named to write the table to")


def test_the_file_that_a_link_leads_to_is_written(source, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere" / "t", tmp_path / "link")
    for _ in range(2):  # first it leads nowhere
        assert convert.main([str(source), str(tmp_path / "link")]) == 0
        assert (tmp_path / "link").is_symlink() and tables.load(tmp_path / "elsewhere" / "t").columns


def test_a_full_disk_leaves_the_old_table(source, tmp_path):
    (tmp_path / "t").write_bytes(b"old")
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    script = f"{limit}; from nasbench_dataset import command, convert; command.run(lambda: convert.main(sys.argv[1:]))"
    assert_refused(run("-c", script, source, tmp_path / "t"), "cannot write", "make room")
    assert (tmp_path / "t").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.tfrecord", "t"]


def test_empty_names_on_the_command_line(source, tmp_path):
    assert_refused(run("-m", "nasbench_dataset.convert", "", tmp_path / "t"), "no file is named")
    assert_refused(run("-m", "nasbench_dataset.convert", source, ""), "no file is named to write the table to")


# --- without the current folder in Python's path ----------------------------------------------


@pytest.mark.parametrize("safe", ["", "1"])
def test_the_scripts_find_their_package_from_any_folder(source, tmp_path, safe):
    environment = os.environ | {"PYTHONSAFEPATH": safe}
    environment.pop("PYTHONPATH", None)
    expected = ("convert", [source, "t"], "108 epochs: 3 runs"), ("fit_surrogate", ["--help"], "usage:")
    for script, arguments, words in expected:
        line = [sys.executable, str(ROOT / "nasbench_dataset" / f"{script}.py"), *map(str, arguments)]
        result = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 and words in result.stdout, result.stderr
    assert tables.load(tmp_path / "t").columns


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
            open_table(path)
