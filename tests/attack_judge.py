"""What nothing in the project may do, whatever is done to it: an independent judge of how a command ended.

Every function names the reasons against one ending; no reason is the only good answer.
"""

import hashlib
import io
import json
import os
import re
import signal
import stat
import zipfile
from pathlib import Path
from typing import Callable, Iterable
from xml.etree import ElementTree

import numpy as np

import checkpoint
from attack_launch import Ending, Strike
from attack_world import copied_store
from nasbench_dataset.table import load

ROOT = Path(__file__).parents[1]
STATUSES = {0, 2, 130}
INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
LARGE = 8_000_000  # bytes; larger files are told by size and time instead of their content
TEMPORARY = re.compile(r"^\..+\..{8}$|^\.part-|\.new$")  # of write_atomically, of replacing, of a save
NOT_OURS = re.compile("site-packages|lib/python|<")  # in the name of a file in a traceback
DECIDES = re.compile(r"    (catch_signals\(\)|start\()")  # the line of a command that decides what signals do
NOTHING = hashlib.sha256().hexdigest()  # the fingerprint of an empty file
SCRIPT = "<script>alert(1)"  # part of every hostile text


# --- what it printed --------------------------------------------------------------------------


def of_the_status(
    ending: Ending, expected: Iterable[int], strike: Strike | None, done: Callable[[], bool]
) -> list[str]:
    """The status is one of the project's, and as the case expects.

    A signal may end a command by itself only before the command has shown life, and after all is done, when Python
    itself does not listen; the second one at any time, and so may one that cannot be caught. Where Ctrl-C comes while
    Python imports what it needs for itself, it ends with status 1.
    """
    if ending.status is None:
        return [ending.stopped]
    allowed = set(expected)
    if strike is not None and ending.status == -strike.number:
        uncaught = strike.number not in INTERRUPTS or strike.again is not None
        allowed |= {ending.status} if uncaught or ending.struck == "early" or done() else set()
    if strike is not None and strike.number == signal.SIGINT and ending.struck == "early":
        allowed |= {1} if "KeyboardInterrupt" in ending.err and not had_begun(ending.err) else set()
    return (
        [] if ending.status in allowed else [f"status {ending.status}, not {sorted(allowed)}: {last_line(ending.err)}"]
    )


def last_line(text: str) -> str:
    """The last line of a text that is not blank, harmless, at no length."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return ascii(lines[-1])[1:121] if lines else "nothing on stderr"


def of_tracebacks(ending: Ending) -> list[str]:
    """No traceback. One of a Python that is interrupted before our code can decide what signals do is not ours."""
    found = [words for words in ("Traceback", "Exception ignored", "Fatal Python error") if words in ending.printed]
    if not found or ending.struck == "early" and not had_begun(ending.printed):
        return []
    return [f"{found[0]}: {last_line(ending.err)}"]


def had_begun(text: str) -> bool:
    """Whether a traceback comes from where the command had decided what signals do, or later."""
    places = [(ROOT / file, int(line)) for file, line in re.findall(r'File "([^"]+)", line (\d+)', text)]
    ours = [(path, line) for path, line in places if path.is_relative_to(ROOT) and not NOT_OURS.search(str(path))]
    if not ours or ours[0][0] == ROOT / "nasbench_dataset" / "__init__.py":  # which Python imports before the command
        return False
    path, line = ours[0]  # the command itself
    lines = path.read_text(encoding="utf-8").splitlines()
    return line >= next((number for number, line in enumerate(lines, 1) if DECIDES.match(line)), 0)


def of_lines(ending: Ending, most: int) -> list[str]:
    """At most so many lines on stderr for the status 2, and at least one where stderr was at hand."""
    lines = [line for line in ending.err.split("\n") if line.rpartition("\r")[2].strip()]
    return (
        [f"{len(lines)} lines on stderr: {last_line(ending.err)}"] if ending.status == 2 and len(lines) > most else []
    )


def of_control_characters(ending: Ending, terminal: bool) -> list[str]:
    """Nothing that steers a terminal, unless to one, where progress lines move up."""
    text = re.sub(r"\x1b\[A", "", ending.printed) if terminal else ending.printed
    strange = sorted(
        {c for c in text if not c.isprintable() and c not in "\n\r\t" and c != "\N{REPLACEMENT CHARACTER}"}
    )
    return [f"printed {ascii(''.join(strange))[:60]}"] if strange else []


def of_numbers(ending: Ending) -> list[str]:
    """No number that is none among the results."""
    wrong = re.search(r"(?i)^.*(?<![\w.])-?(nan|inf)(?![\w.]).*$", ending.out, re.MULTILINE)
    return [f"a result that is no number: {wrong[0][:80]!a}"] if wrong and ending.status == 0 else []


def of_costs(ending: Ending, memory: int) -> list[str]:
    """Not more memory than this many MB."""
    return [f"{ending.memory} MB of memory, more than {memory}"] if ending.memory > memory else []


# --- what it did to files ---------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what tells its content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(("tmp", "logs")):
            found[name] = fingerprint(path)
    return found


def fingerprint(path: Path) -> str:
    """What changes when a file's content does."""
    information = path.lstat()
    if stat.S_ISLNK(information.st_mode):
        return f"link to {os.readlink(path)}"
    if not stat.S_ISREG(information.st_mode):
        return f"kind {stat.S_IFMT(information.st_mode):o}"
    if information.st_size > LARGE or not os.access(path, os.R_OK):
        return f"{information.st_size} bytes of {information.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_changes(before: dict[str, str], after: dict[str, str], own: Callable[[str], bool]) -> list[str]:
    """Whatever was there and is not the command's own to write is there, unchanged."""
    lost = [name for name, content in before.items() if not own(name) and after.get(name) != content]
    return [f"lost or changed: {', '.join(lost)[:120]}"] if lost else []


def may_change(name: str, before: dict[str, str]) -> bool:
    """Whether a file may be another one even where the command refused to work: it is a lock, or held nothing."""
    return name == "out/.lock" or before[name] == NOTHING


def of_leftovers(place: Path, before: dict[str, str], after: dict[str, str], hard: bool) -> list[str]:
    """No temporary file is left, unless nothing could be tidied up any more.

    A save that is whole, of which some files could not be renamed, is not left behind: the next run finds it.
    """
    if hard or (place / "out" / "search.new").is_file() and checkpoint.find(place / "out", ".new"):
        return []
    names = [name for name in after if name not in before and TEMPORARY.search(Path(name).name)]
    names += [f"tmp/{path.relative_to(place / 'tmp')}" for path in (place / "tmp").rglob("*") if path.is_file()]
    return [f"left behind: {', '.join(names)[:120]}"] if names else []


def of_processes(ending: Ending) -> list[str]:
    """No process of it is left."""
    return [f"{len(ending.left)} processes left: {ending.left[0]}"] if ending.left else []


def of_execution(place: Path) -> list[str]:
    """Nothing that a hostile file wanted to be done was done."""
    return ["HOSTILE CODE WAS EXECUTED"] if (place / "EXECUTED").exists() else []


def of_wholeness(folder: Path, before: dict[str, str], hard: bool) -> list[str]:
    """Every file under the outputs is whole, those that were damaged on purpose and left alone excepted."""
    reasons = []
    for path in sorted(folder.rglob("*")):
        name = f"{folder.name}/{path.relative_to(folder)}"
        if path.is_file() and not path.is_symlink() and before.get(name) != fingerprint(path):
            try:
                opens(path)
            except Exception as error:  # whatever the readers of ten formats raise
                reasons += [] if hard and TEMPORARY.search(path.name) else [f"{name} is not whole: {error!s:.60}"]
    return reasons


def opens(path: Path) -> None:
    """Read an output of the project whole; raises something where it is damaged."""
    kind = path.suffix if not path.name.startswith(".") else ""
    reader = READERS.get(kind)
    if path.name in ("result.txt", "results.jsonl"):  # lines before the last one can be whatever the user has put there
        content = path.read_bytes()
        assert not content or content.endswith(b"\n"), "its last line is not ended"
        json.loads(content.splitlines()[-1] if content else b"0", parse_constant=_no_constant)
    elif reader is not None and not TEMPORARY.search(path.name):
        reader(path)


def _picture(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _text_that_ends(end: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        content = path.read_text(encoding="utf-8")
        assert content.rstrip().endswith(end), f"it does not end in {end!r}"
        assert SCRIPT not in content, "hostile text is in it as it was"
        if end == "</svg>":
            ElementTree.fromstring(content)

    return check


def _archive(path: Path) -> None:
    with np.load(path, allow_pickle=False) as content:
        assert [content[name].shape for name in content.files]
    assert zipfile.ZipFile(path).testzip() is None


def _weights(path: Path) -> None:
    import h5py

    with h5py.File(io.BytesIO(path.read_bytes())) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def _no_constant(word: str) -> None:
    raise ValueError(f"it holds {word}")


def _store(path: Path) -> None:
    with copied_store(path) as store:
        store.check()


READERS = {
    ".json": lambda path: json.loads(path.read_bytes(), parse_constant=_no_constant),
    ".png": _picture,
    ".svg": _text_that_ends("</svg>"),
    ".html": _text_that_ends("</html>"),
    ".md": _text_that_ends("|"),
    ".npz": _archive,
    ".h5": _weights,
    ".pickle": load,
    ".sqlite": _store,
}


# --- a saved search ---------------------------------------------------------------------------


def of_the_save(out: Path, hard: bool, before: dict[str, str]) -> list[str]:
    """The save in a folder is whole, and summary.json is of the same search."""
    suffixes = [suffix for suffix in ("", ".new") if (out / f"search{suffix}").is_file()]
    untouched = all(before.get(f"out/search{suffix}") == fingerprint(out / f"search{suffix}") for suffix in suffixes)
    if not suffixes or untouched and not hard:  # no save of this run; what was there is compared elsewhere
        return []
    found = [checkpoint.find(out, suffix) for suffix in suffixes]
    if not any(found):
        return ["the saved search is damaged"]
    main = next(save for save in found if save)[0]
    if hard or not (out / "summary.json").is_file():
        return [] if hard else ["a search is saved, but there is no summary.json"]
    summary = json.loads((out / "summary.json").read_bytes())
    if summary["seed"] != main["settings"]["seed"]:
        return ["summary.json and the save have different seeds"]
    if main["outcome"] and summary["episodes"] != main["episodes"]:
        return [f"summary.json has {summary['episodes']} episodes, the save that ended {main['episodes']}"]
    return []


def of_the_project() -> dict[str, str]:
    """What tells the content of the project's own files."""
    skipped = {".git", "__pycache__", ".pytest_cache", ".hypothesis", ".venv"}
    paths = [path for path in ROOT.rglob("*") if not skipped & set(path.relative_to(ROOT).parts)]
    return {str(path.relative_to(ROOT)): fingerprint(path) for path in paths}
