"""A search on disk, so that it can be resumed bit for bit after a kill at any moment.

The folder of a run holds, beside its results, the files of its last save: ``search`` (settings, samples,
counters, the random generator), ``nodes`` and ``dangling_nodes`` (the tree), and whatever else a kind of search
needs. The first three are JSON, which is jsonpickle text without objects. They are read as plain JSON: nothing
in them can execute.

One save is several files, and a kill can come between any two file operations. So ``search`` lists the SHA-256
of the others, and one of itself, and a save is

1. write every file as ``NAME.new``, ``search.new`` last, each through to the disk;
2. rename every ``NAME.new`` to ``NAME``, ``search`` last;
3. remove what only an earlier search had.

Until ``search.new`` is whole the save before is untouched, be it of this search or of one that had ended. From then on
every file of the new save is there under one of its two names, and whoever opens the folder next can finish the rest.

The results (``summary.json`` and the lines of finished searches) are saved along with the search, so that they and the
search are always of one moment. They are not listed: they are the user's, who may edit or delete them.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from itertools import chain
from pathlib import Path
from typing import Callable, Container, Iterable

from arch_generator import State, arch_generator
from nasbench_dataset import InputError
from nasbench_dataset.files import TooLarge, check_regular, printable, read_regular

try:
    import fcntl
except ImportError:  # Windows: two searches on one folder are not kept apart there
    fcntl = None

MAIN, NEW, LOCK = "search", ".new", ".lock"
PARTS = "nodes", "dangling_nodes", "guide", "predictions", "meta_dnn.npz"  # of any kind of search, not each has all
RESULTS = "summary.json", "result.txt", "results.jsonl"
FORMAT, VERSION = "alphax-search", 1
LARGEST_MAIN, LARGEST = 2**24, 2**30  # bytes of ``search``, of any other file; several times what a search can need
PAUSE_SECONDS = 5.0  # at least so long before the first save and between two
SHARE = 0.05  # of the run that saving may take

Saved = tuple[dict, dict[str, bytes]]


class Checkpoint:
    """The saves of one folder; one process at a time can hold it.

    Parameters
    ----------
    folder : Path
        An existing folder.
    every : float, optional
        Seconds from one save to the next; by default as often as 5 % of the run allow.

    Attributes
    ----------
    saves, seconds : int, float
        How many saves there have been and what they cost.
    problem : str
        What went wrong with the last save, or empty.

    Raises
    ------
    InputError
        If another search holds the folder, or it cannot be written to.
    """

    def __init__(self, folder: Path, every: float | None = None):
        self.folder, self.every = folder, every
        self.saves, self.seconds, self.problem = 0, 0.0, ""
        self._opened = time.monotonic()
        self._next = self._opened + (PAUSE_SECONDS if every is None else every)
        try:
            # Not to wait for a reader, where it is a pipe.
            self._lock = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666)
        except OSError as error:
            raise InputError(f"cannot write to --out {folder}: {error.strerror}; choose another folder") from error
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # else a file system without locks
                os.close(self._lock)
                message = f"another search is writing to --out {folder}; wait for its end or choose another folder"
                raise InputError(message) from error

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_) -> None:
        os.close(self._lock)

    @property
    def due(self) -> bool:
        """Whether it is time for the next save."""
        return time.monotonic() >= self._next

    def save_soon(self) -> None:
        """The next save is due at once."""
        self._next = self._opened

    def save(self, saved: Callable[[], Saved]) -> None:
        """Save what ``saved()`` gives; where that fails, the save before stays and ``problem`` says why."""
        started = time.monotonic()
        try:
            self._write(*saved())
            self.saves, self.problem = self.saves + 1, ""
        except (OSError, MemoryError) as error:
            self.problem = getattr(error, "strerror", None) or "not enough memory"
        now = time.monotonic()
        self.seconds += now - started
        if self.every is None:  # the tree may have doubled by the next save, and the one at the end costs as much again
            affordable = self._opened + (self.seconds + 4 * (now - started)) / SHARE
            self._next = max(now + PAUSE_SECONDS, affordable)
        else:
            self._next = now + self.every

    def load(self) -> Saved | None:
        """The last whole save; None where there is none.

        Raises
        ------
        InputError
            If the save is damaged, or cannot be read.
        """
        try:
            self._settle()
            if not self._path(MAIN).exists():
                left = [name for name in (MAIN, *PARTS) if os.path.lexists(self._path(name))]  # MAIN: a link to nothing
                if left:
                    raise damaged(f"{MAIN!r} in {self.folder} is missing, but {left[0]!r} is there")
                return None
            found = find(self.folder)
            if found:  # after a power failure renames may have come to the disk in another order
                self._promote(found[2], found[1])
        except OSError as error:
            message = f"cannot read the search saved in {self.folder}: {error.strerror}; choose another --out"
            raise InputError(message) from error
        if found is None:
            raise damaged(f"{MAIN!r} in {self.folder}, or a file that it lists")
        return found[:2]

    def describe(self) -> str:
        """What saving cost, and whether it went well, in words."""
        words = f"saved {self.saves} {'time' if self.saves == 1 else 'times'} in {self.seconds:.1f} s"
        return f"{words}; the last save FAILED: {self.problem}" if self.problem else words

    def _path(self, name: str, suffix: str = "") -> Path:
        return self.folder / (name + suffix)

    def _write(self, main: dict, files: dict[str, bytes]) -> None:
        self._settle()  # a save before this one may have failed while renaming
        contents = {**files, MAIN: _seal(main, files)}
        if len(contents[MAIN]) > LARGEST_MAIN or max(map(len, contents.values())) > LARGEST:
            raise OSError(errno.EFBIG, f"it is larger than {LARGEST:,} bytes, which is the most that is read again")
        try:
            for name, content in contents.items():
                _write_through(self._path(name, NEW), content)
        except BaseException:
            for name in (MAIN, *files):  # room for others, where the disk is full
                self._path(name, NEW).unlink(missing_ok=True)
            raise
        self._promote(contents, contents)

    def _settle(self) -> None:
        """Finish the renaming of a save that was interrupted in it; forget one that was interrupted earlier."""
        if self._path(MAIN, NEW).exists():
            found = None
            with contextlib.suppress(TooLarge):
                found = find(self.folder, NEW)
            if found:
                results = [name for name in RESULTS if self._path(name, NEW).exists()]
                self._promote([*found[2], *results, MAIN], found[1])
        for name in (MAIN, *RESULTS):
            if self._path(name, NEW).exists():
                self._path(name, NEW).unlink()

    def _promote(self, names: Iterable[str], save: Container[str]) -> None:
        """Rename new files, in this order; then remove what is in the folder of an earlier search, not of this save."""
        for name in names:
            os.replace(self._path(name, NEW), self._path(name))
        for name in PARTS:
            if name not in save:
                for suffix in ("", NEW):
                    self._path(name, suffix).unlink(missing_ok=True)


def check_names(folder: Path) -> None:
    """An OSError where something else than a file has a name that a save or the results need."""
    for name in (new_or_not for name in (MAIN, *PARTS, *RESULTS) for new_or_not in (name, name + NEW)):
        if (folder / name).exists() and not (folder / name).is_file():
            raise OSError(errno.EINVAL, f"{name} there is no regular file")


def find(folder: Path, suffix: str = "") -> tuple[dict, dict[str, bytes], list[str]] | None:
    """The save that ``search`` with this suffix lists, and which of its files are still to be renamed.

    None where it is not whole; an OSError where ``search`` cannot be read. Nothing is changed, so this can look at a
    folder in which a search is saving.
    """
    main = _unseal(read_regular(folder / (MAIN + suffix), LARGEST_MAIN))
    if main is None:
        return None
    files, pending = {}, []
    for name, digest in main.pop("files").items():
        for where in ("", NEW):
            content = _read_if(folder / (name + where), digest)
            if content is not None:
                files[name] = content
                pending += [name] if where else []
                break
        else:
            return None
    return main, files, pending


def _read_if(path: Path, digest: str) -> bytes | None:
    """The content of a file with this digest; else None, without having had more than a part of it in memory."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest or file.tell() > LARGEST:
                return None
            file.seek(0)
            return file.read()
    except FileNotFoundError:
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _seal(main: dict, files: dict[str, bytes]) -> bytes:
    digests = {name: _digest(content) for name, content in files.items() if name not in RESULTS}
    main = {"format": FORMAT, "version": VERSION, **main, "files": digests}
    return to_json({**main, "sha256": _digest(to_json(main))})


def _unseal(content: bytes) -> dict | None:
    """The content of ``search``; None where it is not what ``_seal`` wrote, which is seen before it is parsed."""
    sealed, _, seal = content.rpartition(b',"sha256":')
    if to_json(_digest(sealed + b"}")) + b"}" != seal:
        return None
    try:
        main = json.loads(sealed + b"}")
        whole = (main.pop("format"), main.pop("version")) == (FORMAT, VERSION) and type(main["files"]) is dict
        return main if whole and all(re.fullmatch(r"\w+(\.\w+)?", name) for name in main["files"]) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _write_through(path: Path, content: bytes) -> None:
    if os.path.lexists(path):
        path.unlink()  # a link of that name would be written through
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


# --- reading with suspicion -------------------------------------------------------------------


def damaged(what: object) -> InputError:
    """The error for a save that cannot be used."""
    advice = "choose another --out, or delete it to begin anew"
    return InputError(f"the saved search is damaged ({printable(what, 250)}); {advice}")


def to_json(data: object) -> bytes:
    """Compact JSON; floats keep every bit."""
    return json.dumps(data, separators=(",", ":")).encode()


def columns(content: bytes, *names: str) -> list[list]:
    """The lists of a JSON object under these names, all of one length.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    data = json.loads(content)
    if type(data) is not dict or set(data) != set(names):
        raise ValueError(f"it does not hold just {', '.join(names)}")
    result = [data[name] for name in names]
    if any(type(column) is not list for column in result) or len(set(map(len, result))) > 1:
        raise ValueError("its columns are not lists of one length")
    return result


def numbers(values: object, kind: type, low: float, high: float, what: str) -> list:
    """The same list, if all in it are numbers of that type from ``low`` to ``high``; else ValueError."""
    if type(values) is not list or not set(map(type, values)) <= {kind}:
        raise ValueError(f"{what}: not a list of {kind.__name__}")
    if not all(low <= value <= high for value in values):  # False for NaN, too
        raise ValueError(f"{what}: a number outside {low}..{high}")
    return values


def states(operations: list, edges: list, finished: list, generator: arch_generator) -> list[State]:
    """The states in these columns; a TypeError or ValueError where one is none or lies outside the domain."""
    numbers(list(chain.from_iterable(operations)), int, 0, 2, "operations")
    numbers(edges, int, 0, 2**21 - 1, "edges")
    numbers(finished, bool, False, True, "finished")
    result = [State(tuple(o), e, f) for o, e, f in zip(operations, edges, finished)]
    for state in result:
        if state.vertices > generator.max_nodes or state.edges.bit_count() > generator.max_edges:
            raise ValueError("a state outside the domain")
        if state.edges >> state.vertices * (state.vertices - 1) // 2:
            raise ValueError("a state with an edge that it cannot have")
    return result
