"""What all commands of the project share: one-line errors and the exit status.

0: it ended by itself; 130: interrupted by the user; 2: wrong arguments or unusable input.
"""

import argparse
import contextlib
import math
import os
import sys
from typing import Callable

from nasbench_dataset import InputError
from nasbench_dataset.files import printable

WRONG_INPUT, INTERRUPTED = 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, and shows defaults in its help."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> None:
        self.exit(WRONG_INPUT, f"{self.prog}: {printable(message)} (see --help)\n")


def whole_number(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least ``low``."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {low}")
        return int(text)

    return parse


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a finite number from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or value == math.inf:
            words = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {words}")
        return value

    return parse


def fail(message: object) -> None:
    """Say in one line what is wrong, and exit with status 2."""
    with contextlib.suppress(OSError):  # where stderr cannot be written to, the status has to do
        print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(WRONG_INPUT)


def discard_output() -> None:
    """Send what is still to be printed nowhere, so that nothing fails once more at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit with its status; an ``InputError`` becomes one line on stderr and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to fail
    try:
        status = main() or 0
        print(end="", flush=True)
    except InputError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone, as in ``| head``
        discard_output()
        status = 0
    except OSError as error:  # files are read and written with better words than these
        if sys.stdout is not None:
            discard_output()
        fail(f"cannot write {error.filename or 'the output'}: {error.strerror}; make room, or send it elsewhere")
    sys.exit(status)
