"""What every script here does the same way: report a problem in one line, and never leave half a file.

Exit statuses: 0 done, 130 interrupted by the user, 2 wrong arguments or unusable input.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LONGEST_LINE = 1000  # characters of a message


class Problem(Exception):
    """Something the user can mend: the message says what, where and what to do, in one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong argument as a `Problem`."""

    def error(self, message: str) -> None:
        raise Problem(f"{message} (--help lists the options)")


def run(main: Callable[[Sequence[str]], None]) -> int:
    """Run a script's `main` on the command line's arguments.

    Parameters
    ----------
    main : callable
        Takes the arguments without the program's name.

    Returns
    -------
    int
        The exit status: 0, 2 after a `Problem` (one line on stderr), 130 after Ctrl-C.
    """
    try:
        main(sys.argv[1:])
    except Problem as problem:
        line = " ".join(str(problem).split())[:LONGEST_LINE]
        # A name out of a hostile file must not steer the terminal.
        line = "".join(letter if letter.isprintable() else "?" for letter in line)
        print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields a path beside `path`, with the same ending, to write to. It becomes `path` when the
    block ends; if the block raises, it is removed and `path` keeps what it had.

    Raises
    ------
    Problem
        If the file cannot be written.
    """
    # Keras looks at the end of a file's name, so that stays.
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise Problem(f"cannot write {path} ({error}); make room or name another folder") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
