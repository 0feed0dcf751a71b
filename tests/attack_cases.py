"""A case, one attack on one command: what is prepared, run, judged, and run again."""

import contextlib
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import attack_judge as judge
from attack_launch import Ending, Launch, run
from attack_world import MEMORY, ROOT, SAVED, Command, World, place_inputs
from nasbench_dataset import InputError

FINE, REFUSED, EITHER = frozenset({0}), frozenset({2}), frozenset({0, 2})
BALLAST = "ballast"  # what fills a disk
PATIENCE = 10  # times as long as a run that nothing disturbs
KILLED_GRACE = 60  # seconds that other processes have after a kill of the first


@dataclass(frozen=True)
class Case:
    """One attack on one command.

    Attributes
    ----------
    command : Command
    row, detail : str
        What the attack is, and which of its kind.
    prepare : callable
        Spoils something in the case's folder, or gives a context in which that holds.
    argv : callable
        Changes the command line.
    launch : Launch
    expected : set of int
    lines : int
        At most so many on stderr with the status 2.
    hard : bool
        Whether it is ended so that it can tidy up nothing.
    exact : bool
        Whether with the status 0 the outcome has to be the usual one.
    goes_on : bool
        Whether afterwards the same command, in peace, has to come to the usual outcome.
    kept : bool
        Whether with the status 2 all files have to be as they were, outputs included.
    done : bool
        Whether the files have to be the usual ones with the status 2 as well: only words got lost.
    """

    command: Command
    row: str
    detail: str = ""
    prepare: Callable[["Place"], object] = lambda place: None
    argv: Callable[[list[str], "Place"], list[str]] = lambda argv, place: argv
    launch: Launch = Launch()
    expected: frozenset[int] = FINE
    lines: int = 1
    hard: bool = False
    exact: bool = True
    goes_on: bool = False
    kept: bool = False
    done: bool = False

    @property
    def name(self) -> str:
        return f"{self.command.name} | {self.row}{' | ' * bool(self.detail)}{self.detail}"


class Place:
    """The folder of a case: ``in`` and ``out``, ``tmp``, ``logs``, ``cwd``, and files of others that lie in the way."""

    def __init__(self, folder: Path, command: Command, world: World, usual: "Usual | None" = None):
        self.folder, self.command, self.world, self.usual = folder, command, world, usual
        self.inside, self.out = folder / "in", folder / "out"
        for name in ("in", "out", "tmp", "logs", "cwd"):
            (folder / name).mkdir()
        for name in ("in", "out", "cwd"):
            (folder / name / "bystander.txt").write_text("of somebody else\n")
        place_inputs(command, world, folder)
        self.rng = random.Random(0)

    def argv(self, *more: str) -> list[str]:
        """The command line, with what is added to it."""
        filled = [part.format_map({"in": self.inside, "out": self.out}) for part in self.command.argv]
        return [sys.executable, *filled, *more]

    def own(self, name: str) -> bool:
        """Whether a file is the command's own output."""
        return name == "out/.lock" or name in self._outputs or name.startswith("out/trials/")

    @property
    def _outputs(self) -> set[str]:
        more = ("guide", "predictions", "meta_dnn.npz") if "MCTS" in self.command.name else ()
        return {f"out/{name}" for name in (*self.command.outputs, *more)}


def from_anywhere(argv: list[str], place: Place) -> list[str]:
    """The script by its whole path."""
    return [str(ROOT / part) if part.endswith(".py") and (ROOT / part).exists() else part for part in argv]


@dataclass(frozen=True)
class Usual:
    """A run of a command that nothing disturbed."""

    ending: Ending
    same: object
    folder: Path


class Cases:
    """Runs cases, each in a folder of its own under ``folder``."""

    def __init__(self, folder: Path, keep: bool = False):
        self.folder, self.keep = folder, keep
        (folder / "world").mkdir(exist_ok=True)
        self.world = World(folder / "world")
        self._usual: dict[str, Usual] = {}

    def usual(self, command: Command) -> Usual:
        """What the command does when it is left in peace."""
        with self.world.lock(f"usual {command.name}"):
            if command.name not in self._usual:
                folder = Path(tempfile.mkdtemp(prefix="usual-", dir=self.folder))
                place = Place(folder, command, self.world)
                ending = run(place.argv(), folder, Launch(), 4 * command.longest)
                if ending.status != 0:
                    raise RuntimeError(f"{command.name} fails when it is left in peace: {ending.err[-500:]}")
                self._usual[command.name] = Usual(ending, command.same(place.out, ending.out), folder)
            return self._usual[command.name]

    def reasons(self, case: Case) -> tuple[list[str], Ending]:
        """What speaks against how the command ended; nothing, if it did well."""
        usual = self.usual(case.command)
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self.folder))
        place = Place(folder, case.command, self.world, usual)
        place.rng.seed(case.name)
        try:
            prepared = case.prepare(place)
            with prepared if hasattr(prepared, "__exit__") else contextlib.nullcontext():
                return self._judged(case, place, usual)
        finally:
            if not self.keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _judged(self, case: Case, place: Place, usual: Usual) -> tuple[list[str], Ending]:
        before = judge.snapshot(place.folder)
        times = usual.ending.alive or 0, usual.ending.seconds
        grace = KILLED_GRACE if case.hard else case.command.grace
        longest = max(case.command.longest, PATIENCE * usual.ending.seconds)
        ending = run(case.argv(place.argv(), place), place.folder, case.launch, longest, times, grace)
        after = judge.snapshot(place.folder)
        reasons = verdict(case, place, usual, ending, before, after)
        if case.goes_on and not reasons:
            reasons = self._going_on(case, place, usual)
        return reasons, ending

    def _going_on(self, case: Case, place: Place, usual: Usual) -> list[str]:
        """Run it again, in peace and with room: resumed if that can be, else from the start."""
        (place.out / BALLAST).unlink(missing_ok=True)
        for more in dict.fromkeys([case.command.again, ()]):
            ending = run(place.argv(*more), place.folder, Launch(), 4 * case.command.longest)
            if ending.status != 2:
                break
        if ending.status != 0:
            return [f"afterwards it ends with {ending.status}: {judge.last_line(ending.err)}"]
        return [f"afterwards: {reason}" for reason in of_results(place, usual, ending)]


def of_results(place: Place, usual: Usual, ending: Ending) -> list[str]:
    """The outputs are there, and are the usual ones."""
    absent = [name for name in place.command.outputs if not (place.out / name).is_file()]
    if "the last save FAILED" in ending.out:  # on a full disk a search goes on, and says so
        absent = [name for name in absent if name not in SAVED]
    if absent:
        return [f"status {ending.status} without {', '.join(absent)}"]
    try:
        same = place.command.same(place.out, ending.out) == usual.same
    except (OSError, ValueError, LookupError, InputError) as error:
        return [f"its outcome cannot be read: {error!s:.80}"]
    return [] if same else ["its outcome is another one than usual"]


def verdict(
    case: Case, place: Place, usual: Usual, ending: Ending, before: dict[str, str], after: dict[str, str]
) -> list[str]:
    """All reasons of the judge."""
    strike, streams = case.launch.strike, case.launch.streams
    printed_to = set(streams.values())
    kept = case.kept and ending.status == 2
    at_once = case.hard or strike is not None and strike.again is not None  # a second Ctrl-C ends it at once
    reasons = [
        *judge.of_execution(place.folder),
        *judge.of_the_status(ending, case.expected, strike, lambda: not of_results(place, usual, ending)),
        *judge.of_tracebacks(ending),
        *judge.of_lines(ending, case.lines),
        *judge.of_control_characters(ending, bool(printed_to & {"terminal", "hung up"})),
        *judge.of_numbers(ending),
        *judge.of_costs(ending, usual.ending.memory + MEMORY),
        *judge.of_changes(before, after, (lambda name: judge.may_change(name, before)) if kept else place.own),
        *judge.of_leftovers(place.folder, before, after, at_once),
        *judge.of_processes(ending),
    ]
    if ending.status is not None:
        reasons += judge.of_wholeness(place.out, before, case.hard)
        reasons += judge.of_the_save(place.out, at_once or ending.status not in judge.STATUSES, before)
        reasons += of_the_earlier(place, before, after)
    unheard = streams.get("stdout") if place.command.outputs == () else None
    ended_well = ending.status == 0 or case.done and ending.status == 2
    if case.exact and ended_well and not unheard:
        reasons += of_results(place, usual, ending)
    return list(dict.fromkeys(reasons))


def of_the_earlier(place: Place, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A finished search that was in the folder is there, unless another has been saved over it; its result stays."""
    names = [
        name
        for name in before
        if name in place.command.inputs and name.startswith("out/") and before[name] != after.get(name)
    ]
    if place.command.name != "MCTS.py over another" or not names:
        return []
    lost = [name for name in names if name not in after]
    return [f"the search that was there has lost {', '.join(lost)}"] if lost else []
