"""Files: read within a limit, and written whole or not at all."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two trainings apart there
    fcntl = None

LARGEST_FILE = 2**30  # bytes of a file of weights; AlphaX-1 has a few million weights of 4 bytes
_unfinished: set[Path] = set()  # files that are being written


class Problem(Exception):
    """Something the user can mend: the message says what, where and what to do, in one line."""


def reason(error: Exception) -> str:
    """What an error says, without the path that the message around it names already."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def open_file(path: Path, largest: int = LARGEST_FILE) -> BinaryIO:
    """Open a file to read it.

    Parameters
    ----------
    path : Path
    largest : int
        Bytes that it may have.

    Raises
    ------
    OSError
        If it cannot be opened, is larger, or is a folder, a pipe (which could keep one waiting for
        ever) or a device.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)
    except ValueError as error:  # there is a NUL in it
        raise OSError(errno.EINVAL, "it is no name of a file") from error
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= largest:
        return file
    file.close()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
    raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, more than the {largest} that are read here")


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; where it is a pipe to which nobody writes, do not wait for somebody."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a path beside `path`, with the same ending, to write to. It becomes `path` when the
    block ends and all is on the disk; if the block raises, it is removed and `path` keeps what it had.

    Raises
    ------
    Problem
        If the file cannot be written.
    """
    # Keras looks at the end of a file's name, so that stays.
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    _unfinished.add(part)
    try:
        if path.is_dir():  # which would only show at the end
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _make_folder(path.parent)
        yield part
        with part.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise Problem(f"cannot write {path} ({reason(error)}); make room or name another folder") from error
    finally:
        _remove(part)
        _unfinished.discard(part)


def remove_unfinished() -> None:
    """Remove what `replacing` is writing; for a process that ends at once."""
    for part in list(_unfinished):
        _remove(part)


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file, that is
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk as well, where a folder can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, so that no other process does meanwhile.

    Raises
    ------
    Problem
        If another one holds it, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            _make_folder(folder)
            handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise Problem(f"cannot write to {folder} ({reason(error)}); name another folder") from error
        if handle is not None:
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Problem(f"another training holds {folder}; wait for it, or name another --out") from error
            except OSError:  # a file system without locks
                pass
        yield
