"""Files that are read: opened with a limit to their size, told apart by their content."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from nasbench_dataset import InputError

_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}


def open_source(path: str | Path, largest: int | None = None, advice: str = "") -> BinaryIO:
    """Open a regular file of at most so many bytes; ``advice`` is told where it has more.

    Anything else is refused at once: a pipe would be waited for, a device like /dev/zero has no end.

    Raises
    ------
    InputError
        If it cannot be read, is no regular file or is larger.
    """
    if not os.fspath(path):
        raise InputError("no file is named: its path is empty")
    try:
        file = open(path, "rb", opener=_without_waiting)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the table {path}: {reason}; name a file") from error
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        file.close()
        raise InputError(f"cannot read the table {path}: it is no regular file; name a file")
    if largest is not None and about.st_size > largest:
        file.close()
        limit = f"at most {largest:,} are read of a file of its kind"
        raise InputError(f"{path} has {about.st_size:,} bytes; {limit}{advice}")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def format_of(path: str | Path) -> str:
    """``tfrecord``, ``npz``, ``sqlite``, ``json`` or ``pickle`` (whatever is none of the others), by the content.

    Raises
    ------
    InputError
        If the file cannot be read or is compressed.
    """
    try:
        with open_source(path) as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read the table {path}: {error.strerror}") from error
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise InputError(f"{path} is compressed by {name}; unpack it first")
    if start.startswith((b"PK\3\4", b"PK\5\6")):  # as lengths of records these would be far too large
        return "npz"
    if start.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if _looks_like_records(start):
        return "tfrecord"
    return "json" if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[") else "pickle"


def _looks_like_records(start: bytes) -> bool:
    """Whether a file that begins so holds JSON lists in TFRecord framing, a damaged first record included."""
    if start[:8].isascii() and b"\0" not in start[:8]:  # text; lengths have zero bytes, unless they are damaged
        return False
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[12:14] == b'["' or (start[4:8] == bytes(4) and not is_pickle)
