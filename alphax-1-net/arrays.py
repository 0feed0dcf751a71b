"""Arrays in an .npz file, of which nothing is read or made room for before its type and shape are known.

numpy.load would inflate whatever an archive holds: a few kilobytes can stand for gigabytes.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from files import open_file

LARGEST_ARRAYS = 2**31  # bytes of a file, or of all that is taken out of one
MOST_MEMBERS = 100_000  # of an archive
MEMBER = b"PK\x01\x02"  # how the note of a member begins
CHUNK = 2**24  # bytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # which NumPy writes; others may take any memory


class Header(NamedTuple):
    """What an array is before it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.dtype.itemsize * math.prod(self.shape)


class ArrayFile:
    """An open .npz file. Where it is damaged, its methods raise whatever zipfile and NumPy raise."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @property
    def names(self) -> list[str]:
        """The names of the arrays in it."""
        return [name.removesuffix(".npy") for name in self._archive.namelist()]

    def header(self, name: str) -> Header:
        """The type and shape of an array; a `KeyError` if there is none of that name."""
        with self._open(name) as member:
            return _read_header(member)

    def read(self, name: str, largest: int = LARGEST_ARRAYS) -> np.ndarray:
        """An array; a `ValueError` if it has more bytes than `largest`."""
        with self._open(name) as member:
            size = _read_header(member).size
        if size > largest:
            raise ValueError(f"{name} has {size} bytes, more than the {largest} that are read here")
        with self._open(name) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def _open(self, name: str) -> BinaryIO:
        info = self._archive.getinfo(f"{name}.npy")
        if info.compress_type not in METHODS:
            raise ValueError(f"{name} is compressed in a way that NumPy does not use")
        return self._archive.open(info)


def _read_header(member: BinaryIO) -> Header:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    if any(length < 0 for length in shape):
        raise ValueError(f"an array has shape {shape}")
    return Header(dtype, shape)


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[ArrayFile]:
    """Open an .npz file.

    Raises
    ------
    OSError, zipfile.BadZipFile, ValueError
        If it cannot be opened, is too large or is none; on damage, zipfile can raise others, too.
    """
    with open_file(path, LARGEST_ARRAYS) as file:
        check_members(file)
        with zipfile.ZipFile(file) as archive:
            yield ArrayFile(archive)


def check_members(file: BinaryIO) -> None:
    """Raise a `ValueError` if an archive has very many members, of each of which zipfile makes objects."""
    if sum(chunk.count(MEMBER) for chunk in iter(lambda: file.read(CHUNK), b"")) > MOST_MEMBERS:
        raise ValueError(f"it holds more than {MOST_MEMBERS} members")
    file.seek(0)
