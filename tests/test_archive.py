"""Tables as numpy archives."""

import io
import struct
import warnings
import zipfile

import numpy as np
import pytest
from conftest import run
from source_files import SOME, arrays_of, assert_refused_in_little_memory, converted, npz, write  # noqa: F401

from nasbench_dataset import InputError, archive, convert
from nasbench_dataset import table as tables


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
        ({"train_seconds": np.full(3, 1e300)}, "outside 0.."),
        ({"test": np.full(3, np.inf)}, "outside 0..1"),
        ({"valid_12": np.full(3, -0.1)}, "outside 0..1"),
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


def archive_of(content: bytes, name: str = "vertices.npy", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive with one member."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as archive:
        archive.writestr(name, content)
    return written.getvalue()


def headed(header: bytes, version: int = 1) -> bytes:
    """An array of numpy's format that consists of a header."""
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header


NO_HEADERS = b"{'descr': (", b"'" * 3, b"{'descr': '\\d', ", b"(" * 60_000, b"\xff", b"{}", b"1if 2"


@pytest.mark.parametrize(
    "content",
    [
        *map(headed, NO_HEADERS),
        headed(b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"9" * 5_000 + b",)}"),
        headed(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}"),
        b"",
        b"\x93NUMPY",
    ],
)
def test_headers_that_are_none(write, content):
    path = write(archive_of(content))
    with warnings.catch_warnings(action="error"):
        with pytest.raises(InputError, match="is not a usable .npz"):
            convert.read(path, "test")


def test_a_header_of_any_length_reserves_nothing(write):
    path = write(archive_of(headed(b" " * 100_000_000, version=2)))
    assert path.stat().st_size < 200_000
    assert_refused_in_little_memory(lambda: convert.read(path, "test"), "version")


def test_a_list_of_any_number_of_arrays_is_not_read(write):
    """A directory of 1.3 million entries, of which zipfile would make 600 MB."""
    name = b"vertices.npy"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    count = 1_300_000
    size = count * len(entry)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, 4)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4 + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = write(b"PK\3\4" + entry * count + end64 + locator + end)
    words = "its list of arrays has more than 1,048,576 bytes"
    assert_refused_in_little_memory(lambda: convert.read(path, "test"), words)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_than_numpys_are_refused(write, method):
    path = write(archive_of(b"\x93NUMPY" * 100, method=method))
    with pytest.raises(InputError, match="compressed in another way"):
        convert.read(path, "test")


def test_limits_of_an_archive(write, monkeypatch):
    path = write(npz(arrays_of([7, 50, 90])))
    monkeypatch.setattr(archive, "MOST", 2)
    with pytest.raises(InputError, match=r"its vertices has the shape \(3,\)"):
        convert.read(path, "test")
    monkeypatch.setattr(archive, "LARGEST", 100)
    with pytest.raises(InputError, match="at most 100 are read"):
        convert.read(path, "test")


def test_numbers_that_float32_cannot_hold_come_without_a_warning(write, tmp_path):
    seconds = np.array([1e-300, 123456789.125])
    arrays = arrays_of([7, 50]) | {"train_seconds": seconds}
    result = run("-m", "nasbench_dataset.convert", write(npz(arrays)), tmp_path / "t")
    assert result.returncode == 0 and result.stderr == ""
    np.testing.assert_array_equal(tables.load(tmp_path / "t").columns["train_seconds"][[7, 50]], seconds)
