"""Attacks on the command line itself: every option that --help tells of, with values that it cannot mean."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial

from attack_cases import FINE, REFUSED, Case, Place, from_anywhere
from attack_files import NASTY
from attack_launch import Launch, Strike
from attack_world import ROOT, Command

ATTACKED = (  # one for each program
    "MCTS.py", "MCTS_metaDNN.py", "compare.py", "visualize.py --cell", "convert JSON", "fit_surrogate",
    "measure_cells.py", "model_test.py", "train.py", "convert.py",
)  # fmt: skip
VALUES = {
    "empty": "", "blank": " ", "a word": "x", "hostile": NASTY.replace("\0", "")[:20], "no UTF-8": "\udcff",
    "a comma": ",", "dashes": "--", "negative": "-1", "nothing": "0", "a fraction": "1.5", "NaN": "nan",
    "infinite": "inf", "overflowing": "1e400", "tiny": "1e-320", "5,000 digits": "9" * 5_000, "2 to the 64": f"{2**64}",
    "underscores": "1_0", "hexadecimal": "0x10", "other digits": "\u0663", "a folder": ".", "a device": "/dev/null",
}  # fmt: skip
STILL = Strike(signal.SIGINT, 1.5)  # what still runs then has taken the value, and is to end as any other run
OPTION = re.compile(r"^  (?:-\w, )?(--[a-z][\w-]*)(?: (\S+))?", re.MULTILINE)
NAMES = {"PATH", "DIR", "FOLDER", "FILE", "DATA", "STORE", "TABLE", "OUT", "WEIGHTS", "GENOTYPE"}  # of --help, of files
MEANINGLESS = {"empty", "dashes"}  # to all options
NO_NUMBERS = MEANINGLESS | {
    "blank", "a word", "hostile", "no UTF-8", "a comma", "NaN", "infinite", "overflowing", "hexadecimal", "a folder",
    "a device",
}  # fmt: skip


@cache
def options(program: tuple[str, ...]) -> dict[str, str]:
    """The options of a program, and the word for their value in its help, if they take one."""
    text = subprocess.run([sys.executable, *program, "--help"], cwd=ROOT, check=True, capture_output=True, text=True)
    found = dict(OPTION.findall(text.stdout))
    shared = "--help" if program == ("MCTS.py",) else ("--help", "--train-")  # how it trains is read in one way
    return {name: value for name, value in found.items() if not name.startswith(shared)}


def arguments(command: Command) -> Iterator[Case]:
    """Every option of the command with every value, without one, and where there is no such option."""
    if command.name not in ATTACKED:
        return
    program = command.argv[: 2 if command.argv[0] == "-m" else 1]
    for option, name in options(program).items():
        row, refused = f"arguments: {option}", MEANINGLESS if name in NAMES else NO_NUMBERS
        for words, value in VALUES.items():
            if words not in ("NaN", "infinite") or name not in NAMES:  # a file may be called so, and is named then
                yield _case(command, row, words, [f"{option}={value}"], words in refused or not name)
        yield _case(command, row, "as the last", [option], bool(name))
        yield _case(command, row, "twice", [option, option], bool(name))
        if name:
            yield _case(command, row, "dashes, apart", [option, "--"], True)
    for words, value in VALUES.items():
        yield _case(command, "arguments: an option that is unknown", words, [f"--x{value}"], True)
        yield _case(command, "arguments: one too many", words, [value], words != "dashes")


def _case(command: Command, row: str, words: str, more: list[str], refused: bool) -> Case:
    launch = Launch({"PYTHONPATH": str(ROOT)}, here=True, strike=STILL)  # what a value names lies in the case's folder
    return Case(command, row, words, argv=partial(_with, more=more), launch=launch,
                expected=REFUSED if refused else FINE | REFUSED | {130}, exact=False, kept=True)  # fmt: skip


def _with(argv: list[str], place: Place, more: list[str]) -> list[str]:
    return [*from_anywhere(argv, place), *more]
