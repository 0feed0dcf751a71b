"""What all commands of the project share: options, one-line errors and the exit status.

0: it ended by itself; 130: interrupted by the user; 2: wrong arguments or unusable input, or output that got lost.

A command does all of its work whether or not its words arrive: what cannot be printed is left out, and no file depends
on it. Where the reader has gone (``| head``, a closed terminal) or there never was one (``>&-``), nobody misses them,
and the status is that of the work. Where they got lost otherwise (standard output is a file on a full disk), a command
that would have ended with 0 ends with 2 and one line on standard error. What standard error loses changes no status.
"""

import argparse
import contextlib
import errno
import io
import math
import os
import sys
from itertools import takewhile
from pathlib import Path
from typing import Callable, TextIO

from nasbench_dataset import InputError
from nasbench_dataset.files import LONGEST_NUMBER, printable
from nasbench_dataset.signals import INTERRUPTED

WRONG_INPUT = 2


# --- options ----------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, and shows defaults in its help."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(self, args=None, namespace=None):
        """As of every parser, but ``--seed=--`` is refused: Python 3.11's would take an empty list for its value."""
        for argument in takewhile(lambda part: part != "--", sys.argv[1:] if args is None else args):
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument[:-3]}: '--' is no value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> None:
        """Say what is wrong with the arguments, and exit with status 2."""
        self.exit(WRONG_INPUT, f"{self.prog}: {printable(message)} (see --help)\n")


def whole_number(low: int, high: float = math.inf) -> Callable[[str], int]:
    """An argparse type: a whole number from ``low`` to ``high`` that can be shown, that is, of at most 30 digits."""

    def parse(text: str) -> int:
        if text.lstrip("-").isdecimal() and len(text) > LONGEST_NUMBER:
            raise argparse.ArgumentTypeError(f"{text} has more than {LONGEST_NUMBER} digits")
        if not text.removeprefix("-").isdecimal() or not low <= int(text) <= high:
            words = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {words}")
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


def path(text: str) -> Path:
    """An argparse type: a path; an empty one, as of a shell variable that is not set, is none."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; name one, or leave the option out")
    return Path(text)


def address(text: str) -> str:
    """An argparse type: the address of a cluster."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the address is empty; give one, or leave the option out")
    return text


# --- what is printed, and the end -------------------------------------------------------------


class Output(io.TextIOBase):
    """Standard output or error, the failures of which end nothing: what cannot be written is left out.

    Attributes
    ----------
    lost : OSError or None
        Why words got lost that somebody may miss.
    """

    def __init__(self, stream: TextIO):
        self.stream, self.lost = stream, None
        self._terminal = stream.isatty()

    def write(self, text: str) -> int:
        """Write, or leave out."""
        self._attempt(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back, or leave it out."""
        self._attempt(self.stream.flush)

    def _attempt(self, operation: Callable, *arguments: str) -> None:
        try:
            operation(*arguments)
        except OSError as error:
            reader_gone = error.errno == errno.EPIPE or error.errno == errno.EIO and self._terminal
            if not reader_gone:
                self.lost = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # nothing fails again, at the exit neither

    def fileno(self) -> int:
        """That of the stream."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Whether the stream was a terminal at the start."""
        return self._terminal

    @property
    def encoding(self) -> str:
        """That of the stream."""
        return self.stream.encoding

    def __getattr__(self, name: str) -> object:
        """Whatever else a library wants of such a stream."""
        return getattr(self.stream, name)


def fail(message: object) -> None:
    """Say in one line what is wrong, and exit with status 2."""
    sys.exit(_refuse(message))


def _refuse(message: object) -> int:
    _tell(f"error: {printable(message)}")
    return WRONG_INPUT


def _tell(line: str) -> None:
    if sys.stderr is not None:  # closed; print would take standard output instead
        with contextlib.suppress(OSError):  # where it cannot be written to, the status has to do
            print(line, file=sys.stderr, flush=True)


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit with its status; an ``InputError`` becomes one line on stderr and status 2.

    What signals do, ``catch_signals`` has decided before, or ``main`` does.
    """
    _open_streams()
    try:
        status = main() or 0
    except SystemExit as end:  # argparse, after --help or a wrong argument
        status = end.code or 0
    except KeyboardInterrupt:
        _tell("interrupted")
        status = INTERRUPTED
    except Exception as error:
        if (words := _words_for(error)) is None:
            raise
        status = _refuse(words)
    sys.stdout.flush()
    if status == 0 and sys.stdout.lost:
        status = _refuse(f"cannot write the output: {sys.stdout.lost.strerror}; make room, or send it elsewhere")
    sys.exit(status)


def _words_for(error: Exception) -> object:
    """What is wrong; None for an error of the program's own."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, MemoryError):
        return "not enough memory; make room, or choose a smaller domain"
    if isinstance(error, OSError):  # files are read and written with better words than these
        return f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}"
    return None


def _open_streams() -> None:
    """Make standard output and error such that printing never fails.

    A closed one is opened on nothing. Else the next file that is opened, a save perhaps, would take its number, and
    what libraries print would go there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")
        stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to fail
        setattr(sys, name, Output(stream))
