"""Files and what is told of them: written whole or not at all; text out of them printed as one harmless line."""

import os
import re
import tempfile
from pathlib import Path

from nasbench_dataset import InputError

LONGEST_LINE = 1_000  # characters of a message
LONGEST_NUMBER = 30  # digits of a number in it


def printable(what: object, length: int = LONGEST_LINE) -> str:
    """Text as one line that cannot steer a terminal, cut to so many characters.

    What a file or a library's message holds may be long, have many lines, escape sequences, or numbers of any length.
    """
    line = "".join(c if c.isprintable() else " " for c in str(what)[: 4 * length])
    line = re.sub(rf"\d{{{LONGEST_NUMBER + 1},}}", lambda digits: digits[0][:12] + "...", " ".join(line.split()))
    return line if len(line) <= length else line[: length - 3] + "..."


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that ``path`` holds either the old content or the new one, whole.

    Raises
    ------
    InputError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; make room there, or choose another folder") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
