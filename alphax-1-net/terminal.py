"""What the commands here do the same way: options, what is printed, signals, exit statuses.

0: done; 2: wrong arguments, unusable input, or output that cannot be printed; 130: interrupted by
Ctrl-C, SIGTERM or SIGHUP (the terminal was closed). The last two with one line on stderr.

A signal ends a command at once and raises no exception: one could get lost in a library's callback,
a library could make another of it, and some abort at one while they are imported.
"""

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from files import Problem, reason, remove_unfinished

LONGEST_LINE = 1000  # characters
LONGEST_NUMBER = 30  # digits
WRONG, INTERRUPTED = 2, 130
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory|OOM|allocate memory")  # as the backends put it
PACKAGES = {"sklearn": "scikit-learn"}  # what to install, where it is not called as the module
_last_words: Callable[[], str] = lambda: "interrupted"  # makes what stderr gets if a signal ends the program


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong argument as a `Problem`."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> Any:
        """As of every parser, but ``--seed=--`` is refused: Python 3.11's would take an empty list for its value."""
        for argument in takewhile(lambda part: part != "--", sys.argv[1:] if args is None else args):
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument[:-3]}: '--' is no value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise Problem(f"{message} (--help lists the options)")


class Unprinted(Exception):
    """What was to be printed could not be: stdout is closed or full, or its reader has gone."""


class Screen:
    """stderr, for a progress bar: what cannot be shown is left out."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        """Whether it is a terminal, its width and letters."""
        return getattr(sys.stderr, name)


def filled(text: str) -> str:
    """An argparse type: text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name something or leave the option out")
    return text


def filled_path(text: str) -> Path:
    """An argparse type: a path, which is not empty (`Path("")` would be the folder one is in)."""
    return Path(filled(text))


def printable(what: object, length: int = LONGEST_LINE) -> str:
    """Text as one line that cannot steer a terminal, cut to so many characters.

    What a file or a library's message holds may be long, have many lines, escape sequences, or
    numbers of any length.
    """
    line = " ".join(str(what)[: 100 * length].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    line = re.sub(rf"\d{{{LONGEST_NUMBER + 1},}}", lambda digits: f"{digits[0][:12]}...", line)
    return line if len(line) <= length else f"{line[: length - 3]}..."


def say(*lines: str, last: bool = False) -> None:
    """Print lines, each as `printable` makes it.

    Parameters
    ----------
    lines : str
    last : bool
        Whether all work is done and on the disk; then a reader who has gone misses nothing.

    Raises
    ------
    Unprinted
        If they cannot be printed.
    """
    try:
        print(*(f"{printable(line)}\n" for line in lines), sep="", end="", flush=True)
    except BrokenPipeError as error:
        if not last:
            raise Unprinted("nobody reads what it prints any more, so it cannot report") from error
    except OSError as error:
        done = "all is done and its files are written, but it " if last else ""
        raise Unprinted(
            f"{done}cannot print ({reason(error)}); make room, or send its output elsewhere"
        ) from error


def start(module: str) -> NoReturn:
    """Run the command that is the `main` of a module with the process's arguments, and exit.

    The module is imported here, so that what goes wrong meanwhile is reported like all else.
    """

    def command(arguments: Sequence[str]) -> None:
        _open_streams()
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # they are by libraries for programmers
        importlib.import_module(module).main(arguments)

    _end_at_signals()
    status = run(command)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # `run` has told
            stream.flush()
    # At once: nothing is left to be done, and a signal while libraries clean up would change the status.
    os._exit(status)


def run(main: Callable[[Sequence[str]], None]) -> int:
    """Run a command's `main` on the command line's arguments.

    Parameters
    ----------
    main : callable
        Takes the arguments without the program's name.

    Returns
    -------
    int
        The exit status.
    """
    try:
        with contextlib.suppress(SystemExit):  # of --help
            main(sys.argv[1:])
        say(last=True)  # what argparse printed may still wait for the end
        return 0
    except (Problem, Unprinted) as error:
        message = str(error)
    except ImportError as error:
        message = _missing(error)
    except OSError as error:  # most are told of in better words than these
        message = f"{reason(error)}: {error.filename or 'a file'} cannot be used"
    except Exception as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        message = f"there is not enough memory ({reason(error)}); take a smaller batch or network"
    _complain(f"{Path(sys.argv[0]).name}: {message}")
    return WRONG


def _missing(error: ImportError) -> str:
    """What to do about a package that cannot be imported."""
    module = (error.name or "").partition(".")[0]
    package = PACKAGES.get(module, module)
    if isinstance(error, ModuleNotFoundError) and package:
        return f"the package {package} is missing; pip install {package}"
    return f"a package cannot be used ({error}); install {package or 'it'} once more"


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):  # where stderr cannot be written to, the status has to do
        print(printable(line), file=sys.stderr, flush=True)


def set_last_words(words: Callable[[], str]) -> None:
    """Have stderr get the line that `words` makes if a signal ends the program from now on."""
    global _last_words
    _last_words = words


def _end_at_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end the program at once from now on, and remove unfinished files.

    A signal that is ignored already stays so, as under nohup.
    """
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    remove_unfinished()
    with contextlib.suppress(OSError):
        beside_a_bar = "\n" if os.isatty(2) else ""
        os.write(2, f"{beside_a_bar}{_last_words()}\n".encode())
    os._exit(INTERRUPTED)


def _open_streams() -> None:
    """Take the numbers of closed streams, lest a file that is written gets one and others' messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Nothing can be written to it, so that `say` notes it.
            null = os.open(os.devnull, os.O_RDONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a letter that a terminal lacks is no reason to fail
