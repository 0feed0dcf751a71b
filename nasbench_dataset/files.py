"""Files and what is told of them: read within limits, written whole or not at all; printed as one harmless line."""

import errno
import os
import re
import secrets
import stat
from pathlib import Path

from nasbench_dataset import InputError
from nasbench_dataset.signals import unfinished

LONGEST_LINE = 1_000  # characters of a message
LONGEST_NUMBER = 30  # digits of a number in it


def printable(what: object, length: int = LONGEST_LINE) -> str:
    """Text as one line that cannot steer a terminal, cut to so many characters.

    What a file or a library's message holds may be long, have many lines, escape sequences, or numbers of any length.
    """
    try:
        text = str(what)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = "a number that is too long to be shown"
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * length])
    line = re.sub(rf"\d{{{LONGEST_NUMBER + 1},}}", lambda digits: digits[0][:12] + "...", " ".join(line.split()))
    return line if len(line) <= length else line[: length - 3] + "..."


class TooLarge(OSError):
    """A file has more bytes than are read of such a one."""


def read_regular(path: str | Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes.

    Raises
    ------
    TooLarge
        If it is larger.
    OSError
        If it cannot be read, or is no regular file (reading a pipe could wait for ever).
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        size = check_regular(file.fileno()).st_size
        if size > limit:
            raise TooLarge(errno.EFBIG, f"it has {size:,} bytes, where at most {limit:,} are read")
        return file.read(size)


def check_regular(file: int | str | Path) -> os.stat_result:
    """The status of an open or a named file; an OSError where it is a folder, a pipe or a device."""
    found = os.stat(file)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    return found


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # else a pipe waits for a writer; Windows has none


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that ``path`` holds either the old content or the new one, whole.

    Raises
    ------
    InputError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = f"{path.parent}/.{path.name}.{secrets.token_hex(4)}"
    try:
        with unfinished(temporary):
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; make room there, or choose another folder") from error
