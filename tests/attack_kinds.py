"""Every attack on every command, as cases."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Callable

from attack_arguments import arguments
from attack_cases import BALLAST, EITHER, FINE, REFUSED, Case, Place, from_anywhere
from attack_files import ANY, DAMAGES, NASTY, OTHER_KINDS, UNREADABLE, flipped, rewrite, swapped
from attack_launch import STREAMS, Launch, Strike
from attack_store import STORE
from attack_world import COMMANDS, ROOT, Command

ENDED = frozenset({0, 130})


# --- streams and environment ------------------------------------------------------------------


def _streams(command: Command) -> Iterator[Case]:
    kinds = [({name: kind}, f"{name} {kind}") for name in STREAMS for kind in ("closed", "full")]
    kinds += [({"stdout": kind}, f"stdout's reader {words}") for kind, words in _READERS.items()]
    kinds += [({"stderr": kind}, f"stderr's reader {words}") for kind, words in _READERS.items()]
    kinds += [({name: "closed" for name in STREAMS}, "all closed"), ({"stdout": "full", "stderr": "full"}, "both full")]
    kinds += [
        ({"stdout": "gone", "stderr": "gone"}, "both readers gone"),
        (dict.fromkeys(STREAMS, "terminal"), "a terminal"),
    ]
    kinds += [(dict.fromkeys(STREAMS, "hung up"), "a terminal that hangs up")]
    for streams, row in kinds:
        fails = "full" in streams.values() or "hung up" in streams.values()
        tells = command.tells and streams.get("stdout") in ("closed", *_READERS)
        expected = REFUSED if tells and streams["stdout"] == "closed" else EITHER if fails or tells else FINE
        launch = Launch(streams=streams)
        yield Case(command, f"streams: {row}", "", launch=launch, expected=expected, lines=9, done=True)


_READERS = {"gone": "gone at once", "one line": "gone after a line"}


_ENVIRONMENTS: dict[str, tuple[Launch, bool]] = {  # and whether commands with Keras may refuse
    "PYTHONSAFEPATH=1": (Launch({"PYTHONSAFEPATH": "1"}), False),
    "PYTHONOPTIMIZE=2": (Launch({"PYTHONOPTIMIZE": "2"}), False),
    "KERAS_BACKEND empty": (Launch({"KERAS_BACKEND": ""}), True),
    "KERAS_BACKEND unknown": (Launch({"KERAS_BACKEND": NASTY[:12].replace("\0", "")}), True),
    "KERAS_BACKEND=numpy": (Launch({"KERAS_BACKEND": "numpy"}), True),
    # A convolution's backward pass in PyTorch 2.13.0 itself hangs or crashes on some processors with AVX2.
    "KERAS_BACKEND=torch": (Launch({"KERAS_BACKEND": "torch", "ONEDNN_MAX_CPU_ISA": "SSE41"}), True),
    "JAX_PLATFORMS=cuda": (Launch({"JAX_PLATFORMS": "cuda"}), True),
    "JAX_PLATFORMS unknown": (Launch({"JAX_PLATFORMS": "x"}), True),
    "HOME unset": (Launch({"HOME": None}), False),
    "HOME nowhere": (Launch({"HOME": "/nowhere"}), False),
    "HOME a file": (Launch({"HOME": "/dev/null"}), False),
    "MPLCONFIGDIR a file": (Launch({"MPLCONFIGDIR": "/dev/null"}), False),
    "TERM=dumb": (Launch({"TERM": "dumb"}), False),
    "LC_ALL=C": (Launch({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}), False),
    "ASCII output": (Launch({"PYTHONIOENCODING": "ascii:strict"}), False),
    "COLUMNS=0": (Launch({"COLUMNS": "0", "LINES": "0"}), False),
    "COLUMNS no number": (Launch({"COLUMNS": "x"}), False),
    "PATH empty": (Launch({"PATH": ""}), False),
    "another folder": (Launch({"PYTHONPATH": str(ROOT)}, here=True), False),
    "a folder that is gone": (
        Launch({"PYTHONPATH": str(ROOT)}, here=True, shell='mkdir gone; cd gone; rmdir "$PWD"'),
        False,
    ),
    "few open files": (Launch(shell="ulimit -n 40"), True),
    "nohup, and a SIGHUP": (Launch(shell="trap '' HUP", strike=Strike(signal.SIGHUP, 0.5, late=True)), False),
}


def _environments(command: Command) -> Iterator[Case]:
    for row, (launch, may_refuse) in _ENVIRONMENTS.items():
        refuses = EITHER if may_refuse and command.heavy else FINE
        if row in ("few open files",) and (command.heavy or command.name == "compare.py"):
            continue  # what libraries do then is not ours
        argv = from_anywhere if launch.here else _by_path if row == "PYTHONSAFEPATH=1" else Case.argv
        yield Case(
            command,
            f"environment: {row}",
            launch=launch,
            expected=refuses,
            argv=argv,
            exact=row != "KERAS_BACKEND=torch",
        )


def _by_path(argv: list[str], place: Place) -> list[str]:
    """A module by its path: Python itself does not look into the folder it is started in, then."""
    return [argv[0], argv[2].replace(".", "/") + ".py", *argv[3:]] if argv[1] == "-m" else argv


# --- signals ----------------------------------------------------------------------------------

SIGNALS = {
    "SIGINT": (signal.SIGINT, {}),
    "SIGTERM": (signal.SIGTERM, {}),
    "SIGHUP": (signal.SIGHUP, {}),
    "SIGKILL": (signal.SIGKILL, {}),
    "SIGQUIT": (signal.SIGQUIT, {}),
    "SIGPIPE": (signal.SIGPIPE, {}),
    "SIGINT to all": (signal.SIGINT, {"group": True}),
    "SIGTERM to all": (signal.SIGTERM, {"group": True}),
    "stopped and continued": (signal.SIGSTOP, {"group": True}),
    "SIGINT twice": (signal.SIGINT, {"again": 0.2}),
    "SIGTERM twice": (signal.SIGTERM, {"again": 0.2}),
}
_RARE = "SIGQUIT", "SIGPIPE", "SIGINT to all", "SIGTERM to all", "stopped and continued"  # a third of the rounds


def _signals(command: Command, rounds: int, seed: int) -> Iterator[Case]:
    rng = random.Random(f"{seed} {command.name}")
    for row, (number, more) in SIGNALS.items():
        share = command.share / (3 if row in _RARE and command.name != "compare.py" else 1)
        hard = number in (signal.SIGKILL, signal.SIGQUIT)
        for i in range(max(2, round(rounds * share))):
            strike = Strike(
                number, rng.random(), bool(i % 2), more.get("group", False), more.get("again") and rng.uniform(0, 0.4)
            )
            harmless = number in (signal.SIGPIPE, signal.SIGSTOP)
            yield Case(
                command, f"signals: {row}", f"moment {i}: {strike.moment:.2f} of {'its work' if i % 2 else 'it all'}",
                launch=Launch(strike=strike), expected=FINE if harmless else ENDED, hard=hard, goes_on=True,
            )  # fmt: skip


# --- files that are read ----------------------------------------------------------------------

KINDS = {  # of the files that commands read, by the example that they are
    "tables/table.pickle": "table", "tables/table.json": "json", "tables/naslib.pickle": "naslib",
    "tables/api.pickle": "api",
    "tables/cells.npz": "npz", "tables/records.tfrecord": "tfrecord", "net/images.npz": "arrays",
    "net/small.json": "json",
    "net/small.weights.h5": "weights", "torch/zip.pt": "torch", "trained/checkpoint.npz": "arrays",
    "stripes/stripes.npz": "arrays", "stripes/store.sqlite": "store",
    "trained/best.weights.h5": "weights", "trained/best.json": "json", "trained/history.json": "json",
    "measured/nasbench101_measured_20k.npz": "npz", "measured/nasbench101_measured_small.npz": "npz",
}  # fmt: skip
_READ = {  # the commands by which files are read under attack, and which files; others read the same in the same way
    "MCTS.py": ("in/table.pickle",), "MCTS.py JSON": ("in/table.json",),
    "MCTS.py --resume": ("out/search", "out/nodes", "out/dangling_nodes"), "MCTS.py tuned --resume": ("out/guide",),
    "MCTS.py over another": ("out/summary.json", "out/result.txt", "out/results.jsonl"),
    "MCTS_metaDNN.py --resume": ("out/predictions", "out/meta_dnn.npz"), "compare.py": ("in/table.pickle",),
    "visualize.py --html": ("in/run/search", "in/run/nodes", "in/run/dangling_nodes", "in/run/summary.json"),
    "visualize.py --cell": ("in/run/search", "in/run/summary.json"),
    "convert JSON": ("in/table.json",), "convert NASLib": ("in/naslib.pickle",),
    "convert NASBenchAPI": ("in/api.pickle",),
    "convert npz": ("in/cells.npz",), "convert TFRecords": ("in/records.tfrecord",),
    "fit_surrogate": ("in/data/nasbench101_measured_20k.npz", "in/data/nasbench101_measured_small.npz"),
    "measure_cells.py goes on": ("out/store.sqlite", "in/stripes.npz"),
    "model_test.py": ("in/small.weights.h5", "in/small.json", "in/images.npz"),
    "train.py": ("in/small.json", "in/images.npz"),
    "train.py --resume": ("out/checkpoint.npz", "out/best.weights.h5", "out/best.json", "out/history.json"),
    "convert.py": ("in/net.pt",),
}  # fmt: skip
_TOLERATED = (
    "summary.json",
    "result.txt",
    "results.jsonl",
    "best.json",
    "history.json",
    "best.weights.h5",
)  # made anew, or not needed
_HARMLESS = (
    "hostile",
    "large",
    "long",
    "weights that",
    "NaN",
    "1e999",
    "Infinity",
    "digits",
    "as text",
    "twice",
    "UTF-16",
    "no arrays",
    "outcome",
)


def kind_of(example: str) -> str:
    """Which damage fits a file."""
    name = Path(example).name
    return KINDS.get(example) or {
        "search": "search",
        "summary.json": "summary",
        "meta_dnn.npz": "arrays",
        "result.txt": "summary",
        "results.jsonl": "summary",
    }.get(name, "save")


def _damages(name: str, kind: str, flips: int, heavy: bool) -> Iterator[tuple[str, Callable, bool, bool]]:
    """What is done to a file, by which function of a place; whether it has to be refused; whether without rights."""
    for words, damage in ANY.items():
        yield words, damage, True, False
    yield "unreadable", UNREADABLE, True, True
    for number in range(flips):
        yield f"bits flipped, {number}", rewrite(flipped), False, False
    for words, damage in (STORE if kind == "store" else DAMAGES[kind]).items():
        yield words, damage, not any(part in words for part in _HARMLESS), False


def _reading(command: Command, rounds: int) -> Iterator[Case]:
    for name in _READ.get(command.name, ()):
        example = command.inputs[name]
        kind, tolerated = kind_of(example), Path(name).name in _TOLERATED or command.name == "MCTS.py over another"
        flips = max(3, round(rounds * min(command.share, 0.4)))
        for words, damage, refuse, nobody in _damages(name, kind, flips, command.heavy):
            prepare = partial(_spoil, name=name, damage=damage)
            tolerated = (
                tolerated or words.startswith("sealed") and "visualize" in command.name
            )  # it needs less of the search
            expected = REFUSED if refuse and not tolerated else EITHER
            yield Case(
                command,
                f"reads {Path(name).name}",
                words,
                prepare,
                launch=Launch(without_rights=nobody),
                expected=expected,
                exact=False,
                kept=True,
                lines=1 if expected == REFUSED else 2,
            )
        for other, source in OTHER_KINDS.items():
            if kind_of(source) != kind and source != example:
                prepare = partial(_swap, name=name, source=source)
                yield Case(
                    command,
                    f"reads {Path(name).name}",
                    f"{other} instead",
                    prepare,
                    expected=EITHER
                    if tolerated or kind in ("table", "json") or "convert " in command.name
                    else REFUSED,
                    exact=False,
                    kept=True,
                )


def _spoil(place: Place, name: str, damage: Callable) -> None:
    damage(place.folder / name, place.rng)


def _swap(place: Place, name: str, source: str) -> None:
    swapped(place.world, source)(place.folder / name, place.rng)


# --- files that are written -------------------------------------------------------------------


@cache
def can_mount() -> bool:
    """Whether small file systems can be made here, which get full for real."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        return done.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


@contextlib.contextmanager
def disk(place: Place, room: int | None, earlier: bool, inodes: int = 0) -> Iterator[None]:
    """The outputs lie on a file system of their own.

    Parameters
    ----------
    room : int or None
        Bytes that are free; None: it is read-only.
    earlier : bool
        Whether the outputs of an earlier run are there.
    inodes : int
        How many files more it takes, if not any number.
    """
    aside = shutil.copytree(place.out, place.folder / "tmp" / "aside")
    size = 400_000_000 if "DNN" in place.command.name else 60_000_000
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", place.out], check=True)
    try:
        shutil.copytree(aside, place.out, dirs_exist_ok=True)
        shutil.rmtree(aside)
        if earlier:
            earlier_outputs(place)
        if room is None:
            subprocess.run(["mount", "-o", "remount,ro", place.out], check=True)
        else:
            free = os.statvfs(place.out).f_bavail * os.statvfs(place.out).f_frsize
            with open(place.out / BALLAST, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(4096, free - room))
        if inodes:
            used = os.statvfs(place.out).f_files - os.statvfs(place.out).f_ffree
            subprocess.run(["mount", "-o", f"remount,nr_inodes={used + inodes}", place.out], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", place.out], check=True)


def earlier_outputs(place: Place) -> None:
    """Put there what the command has written when it was left in peace."""
    for path in (place.usual.folder / "out").iterdir():
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, place.out / path.name)


def _full(command: Command) -> Iterator[Case]:
    rooms = (0, 4_096, 16_384, 65_536, 200_000, 500_000) if not command.heavy else (0, 65_536, 1_500_000, 90_000_000)
    for earlier in (False, True):
        refused = earlier and not command.replaces
        common = {"expected": REFUSED if refused else EITHER, "lines": 4, "kept": refused}
        again = {**common, "goes_on": not refused}
        words = "beside earlier results" if earlier else "empty else"
        for room in rooms if can_mount() else ():
            prepare = partial(disk, room=room, earlier=earlier)
            yield Case(command, "writes: disk full", f"room for {room:,} bytes, {words}", prepare, **again)
        for inodes in (1, 2, 4) if can_mount() else ():
            prepare = partial(disk, room=5_000_000, earlier=earlier, inodes=inodes)
            yield Case(command, "writes: no inodes", f"{inodes} left, {words}", prepare, **common)
        prepare = earlier_outputs if earlier else Case.prepare
        for blocks in (0, 8, 100, 1_000):
            limit = Launch(shell=f"ulimit -f {blocks}")
            yield Case(command, "writes: file size limit", f"{blocks} blocks, {words}", prepare, launch=limit, **again)
        if can_mount():
            prepare = partial(disk, room=None, earlier=earlier)
            yield Case(command, "writes: read-only place", words, prepare, **common)
        prepare = partial(_forbidden, earlier=earlier)
        yield Case(command, "writes: forbidden place", words, prepare, launch=Launch(without_rights=True), **common)


def _forbidden(place: Place, earlier: bool) -> None:
    if earlier:
        earlier_outputs(place)
    place.out.chmod(0o555)


def _taken(command: Command) -> Iterator[Case]:
    names = list(command.outputs)
    names += [".lock", "search.new", "nodes.new"] if "MCTS" in command.name else []
    names += ["trials"] if command.name == "compare.py" else []
    for name in names:
        for kind, make in _TAKEN.items():
            if name == "new.pickle" and kind == "a link to another's file":
                continue  # a table is written to where its name leads, as it is documented
            if kind == "a folder" or name in (".lock", "search", "checkpoint.npz", "new.pickle", "tree.html"):
                prepare = partial(_take, name=name, make=make)
                yield Case(
                    command, f"writes: names taken by {kind}", name, prepare, expected=EITHER, lines=4, exact=False
                )
    for words, change in _PLACES.items():
        argv = partial(_elsewhere, change=change)
        yield Case(
            command,
            "writes: strange place",
            words,
            argv=argv,
            launch=Launch({"PYTHONPATH": str(ROOT)}, here=True),
            expected=EITHER,
            lines=2,
            exact=False,
        )


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "keep.txt").write_text("of somebody else\n")


_TAKEN: dict[str, Callable[[Path], object]] = {
    "a folder": _folder,
    "a pipe": os.mkfifo,
    "a link to another's file": lambda path: path.symlink_to("bystander.txt"),
    "a link to nothing": lambda path: path.symlink_to("nowhere/at/all"),
}


def _take(place: Place, name: str, make: Callable[[Path], object]) -> None:
    (place.out / name).unlink(missing_ok=True)
    make(place.out / name)


def _a_file(place: Place) -> str:
    (place.folder / "cwd" / "file").write_text("of somebody else\n")
    return str(place.folder / "cwd" / "file")


def _a_loop(place: Place) -> str:
    (place.folder / "cwd" / "loop").symlink_to("loop")
    return str(place.folder / "cwd" / "loop")


_PLACES: dict[str, Callable[[Place], str]] = {
    "a file": _a_file,
    "a loop of links": _a_loop,
    "/dev/null/x": lambda place: "/dev/null/x",
    "/dev/full": lambda place: "/dev/full",
    "/proc/x": lambda place: "/proc/x",
    "a long name": lambda place: str(place.out / ("n" * 300)),
    "a long path": lambda place: str(place.out / "/".join(["n" * 200] * 30)),
    "a hostile name": lambda place: str(place.folder / "cwd" / NASTY[:20].replace("/", "")),
    "no UTF-8": lambda place: os.fsdecode(os.fsencode(place.folder / "cwd") + b"/\xff\xfe"),
    "no name": lambda place: "",
}


def _elsewhere(argv: list[str], place: Place, change: Callable[[Place], str]) -> list[str]:
    """The command line with another place for the outputs; the saved search goes there, too, where that can be."""
    other = change(place)
    with contextlib.suppress(OSError):
        if other and not Path(other).exists() and not other.startswith(("/dev", "/proc")):
            shutil.copytree(place.out, other)
    return [
        part.replace(str(place.out), other) if other else part.replace(str(place.out), "")
        for part in from_anywhere(argv, place)
    ]


def _named(command: Command) -> Iterator[Case]:
    """Paths of inputs that are hostile themselves."""
    for words, name in {
        "hostile": NASTY[:20].replace("/", ""),
        "with a line feed": "a\nb",
        "no UTF-8": "\udcff\udcfe",
    }.items():
        yield Case(
            command,
            "reads: strange names",
            words,
            argv=partial(_renamed, name=name),
            expected=EITHER,
            lines=2,
            exact=False,
        )
    for words, path in {"no name": "", "a folder of no name": "/", "a name that is missing": "missing"}.items():
        if any("{in}" in part for part in command.argv):
            yield Case(
                command,
                "reads: strange names",
                words,
                argv=partial(_instead, path=path),
                expected=REFUSED,
                exact=False,
                kept=True,
            )


def _renamed(argv: list[str], place: Place, name: str) -> list[str]:
    """The inputs lie in a folder of another name."""
    other = place.inside.with_name(name)
    shutil.copytree(place.inside, other)
    return [part.replace(str(place.inside), str(other)) for part in argv]


def _instead(argv: list[str], place: Place, path: str) -> list[str]:
    """The last input that is named is another one."""
    last = max(i for i, part in enumerate(argv) if part.startswith(str(place.inside)))
    return [*argv[:last], path, *argv[last + 1 :]]


# --- all --------------------------------------------------------------------------------------


def all_cases(rounds: int, seed: int, options: bool = True) -> Iterator[Case]:
    """Every case, command by command; those of ``options`` ask every program for its help."""
    for command in COMMANDS.values():
        yield from _streams(command)
        yield from _environments(command)
        yield from _signals(command, rounds, seed)
        yield from _reading(command, rounds)
        yield from _named(command)
        if options:
            yield from arguments(command)
        if command.outputs:
            yield from _full(command)
            yield from _taken(command)
