"""A store of trainings: one SQLite file, so that no network is trained twice, by whichever search or process.

A training is found by cell, recipe, digest of the data, and seed. Several processes may read and write at once. What
``put`` has returned from is on the disk: a killed process or a full disk takes nothing of it away.

A file is trusted with nothing: its schema has to be exactly ours (so no triggers or views), and every row is checked
when it is read, against its checksum and for what a training can be. Nothing of it is executed.
"""

import errno
import hashlib
import json
import math
import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from cell_layers import Cell
from nasbench_dataset import InputError, cells
from nasbench_dataset.files import printable
from training_recipe import Recipe
from training import MOST_SEEDS, OUTCOMES, TRAINED, Training, stored

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

APPLICATION, VERSION = 0x414C5058, 1  # "ALPX" in the header of the file, and the version of what is below
BUSY_SECONDS = 60.0  # how long a writer waits for another one
SCHEMA = (
    "CREATE TABLE trainings ("
    "cell INTEGER NOT NULL, operations TEXT NOT NULL, edges INTEGER NOT NULL, recipe TEXT NOT NULL,"
    " data_name TEXT NOT NULL, data TEXT NOT NULL, seed INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,"
    " valid TEXT NOT NULL, losses TEXT NOT NULL, test REAL, seconds REAL NOT NULL, cpu_seconds REAL NOT NULL,"
    " parameters INTEGER NOT NULL, host TEXT NOT NULL, device TEXT NOT NULL, checksum TEXT NOT NULL,"
    " PRIMARY KEY (cell, recipe, data, seed))"
)
COLUMNS = (
    "cell, operations, edges, recipe, data_name, data, seed, outcome, reason, valid, losses, test, seconds,"
    " cpu_seconds, parameters, host, device, checksum"
)

NEW_VALUES = ", ".join(f"excluded.{name}" for name in COLUMNS.split(", "))  # of a row that is there already


class TrainingStore:
    """The trainings in a file, which is made where there is none.

    Use it as a context manager, or ``close`` it. A store belongs to the process and thread that opened it.

    Raises
    ------
    InputError
        From every method, in one line, if the file is damaged, of another program or version, locked for longer than
        a minute, or cannot be written. Nothing that was in it is lost then.
    """

    def __init__(self, path: str | Path, busy_seconds: float = BUSY_SECONDS, must_exist: bool = False):
        self.path = Path(path)
        self._claims: int | None = None
        with self._told():
            if must_exist and not self.path.exists():
                raise InputError(f"there is no store of trainings {self.path}; name a file")
            if self.path.exists() and not self.path.is_file():
                raise InputError(f"{self.path} is no regular file; name a file for the store of trainings")
            # absolute, since ":memory:" is no file to SQLite
            self.connection = sqlite3.connect(self.path.absolute(), timeout=busy_seconds, isolation_level=None)
        try:
            with self._told():
                self._open()
        except BaseException:
            self.connection.close()
            raise

    def _open(self) -> None:
        """Make the table in an empty file, or see that the one that is there is ours."""
        run = self.connection.execute
        run("PRAGMA trusted_schema = OFF")
        run("PRAGMA cell_size_check = ON")
        found = self._identity()
        if found == (0, 0, []):
            run("PRAGMA journal_mode = WAL")  # survives a kill at any moment; readers do not wait for a writer
            run("BEGIN IMMEDIATE")  # so that of two that make it, one waits and then finds it made
            found = self._identity()
            if found == (0, 0, []):
                run(SCHEMA)
                run(f"PRAGMA application_id = {APPLICATION}")
                run(f"PRAGMA user_version = {VERSION}")
            run("COMMIT")
            found = self._identity()
        application, version, schema = found
        if application != APPLICATION:
            raise InputError(f"{self.path} is a database of another program; name another file for the trainings")
        if version != VERSION:
            raise InputError(
                f"{self.path} is a store of version {version}, not {VERSION} as this program's; name another file"
            )
        if schema != [SCHEMA]:
            raise InputError(f"{self.path} has other tables than a store of trainings; name another file")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")

    def _identity(self) -> tuple[int, int, list[str]]:
        """The program and version that the header names, and all statements of the schema."""
        application, version = (
            self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        rows = self.connection.execute("SELECT sql FROM sqlite_master WHERE type != 'index' OR sql IS NOT NULL LIMIT 9")
        return application, version, [sql for (sql,) in rows]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite raises into one line that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            if hasattr(self, "connection") and self.connection.in_transaction:
                self.connection.rollback()
            raise InputError(f"{self.path}: {_advice(error)}") from error
        except OSError as error:
            raise InputError(f"cannot open the store {self.path}: {error.strerror}; name another file") from error

    def get(self, cell: Cell, recipe: Recipe, data: str, seed: int) -> Training | None:
        """The training of a cell (in any form) by a recipe on data of that digest with a seed, if it is there."""
        found = self.find(stored(cell)[0], recipe, data, seed)
        return found and found[1]

    def find(self, cell: int, recipe: Recipe, data: str, seed: int) -> tuple[int, Training] | None:
        """The same by the cell's index, with its place in the order in which trainings came into the store."""
        with self._told():
            row = self.connection.execute(
                f"SELECT rowid, {COLUMNS} FROM trainings WHERE cell = ? AND recipe = ? AND data = ? AND seed = ?",
                (cell, recipe.canonical(), data, seed),
            ).fetchone()
        return None if row is None else (row[0], self._training(row[1:]))

    def claim(self, cell: int, recipe: Recipe, data: str, seed: int) -> bool:
        """Whether this process may make a training now; False while another process that claimed it is at it.

        A claim is a lock of one byte of a file beside the store, so that it ends with its process, however that ends.
        Locks do not hold between the threads of a process, nor on systems without them.
        """
        if fcntl is None:
            return True
        try:
            if self._claims is None:
                self._claims = os.open(f"{self.path}.claims", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place_of_claim(cell, recipe, data, seed))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES) and self._claims is not None:
                return False
            raise InputError(f"cannot use {self.path}.claims: {error.strerror}; name another --store") from error
        return True

    def release(self, cell: int, recipe: Recipe, data: str, seed: int) -> None:
        """Give a claim back."""
        if self._claims is not None:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, _place_of_claim(cell, recipe, data, seed))

    def put(self, training: Training) -> None:
        """Keep a training. One that is there already stays, unless it failed; its place it keeps in any case."""
        operations, edges = cells.cell(training.cell)
        row = (
            training.cell, json.dumps(operations), edges, training.recipe.canonical(), training.data_name,
            training.data, training.seed, training.outcome, training.reason, json.dumps(training.valid),
            json.dumps(training.losses), training.test, training.seconds, training.cpu_seconds, training.parameters,
            training.host, training.device,
        )  # fmt: skip
        row = (*row, _checksum(row))
        self._training(row)  # what could not be read is not written
        with self._told():
            self.connection.execute(
                f"INSERT INTO trainings ({COLUMNS}) VALUES ({', '.join('?' * len(row))})"
                f" ON CONFLICT DO UPDATE SET ({COLUMNS}) = ({NEW_VALUES}) WHERE outcome != '{TRAINED}'",
                row,
            )

    def __iter__(self) -> Iterator[Training]:
        """All trainings, by cell, recipe, data and seed."""
        with self._told():
            rows = self.connection.execute(f"SELECT {COLUMNS} FROM trainings ORDER BY cell, recipe, data, seed")
            yield from map(self._training, rows)

    def in_order(self) -> Iterator[tuple[int, Training]]:
        """All trainings in the order in which they came in, each with its place in it."""
        with self._told():
            rows = self.connection.execute(f"SELECT rowid, {COLUMNS} FROM trainings ORDER BY rowid")
            yield from ((row[0], self._training(row[1:])) for row in rows)

    def __len__(self) -> int:
        with self._told():
            return self.connection.execute("SELECT count(*) FROM trainings").fetchone()[0]

    def trained(self, recipe: Recipe, data: str) -> set[tuple[int, int]]:
        """The cells (by index) and seeds that are there, by one recipe on data of one digest; failed ones included."""
        with self._told():
            rows = self.connection.execute(
                "SELECT cell, seed FROM trainings WHERE recipe = ? AND data = ?", (recipe.canonical(), data)
            )
            return set(rows)

    def failed(self, recipe: Recipe, data: str, seed: int) -> set[int]:
        """The cells, by index, whose training is there and has failed."""
        with self._told():
            rows = self.connection.execute(
                "SELECT cell FROM trainings WHERE recipe = ? AND data = ? AND seed = ? AND outcome != ?",
                (recipe.canonical(), data, seed, TRAINED),
            )
            return {cell for (cell,) in rows}

    def check(self) -> int:
        """See that the whole file is sound, and every training in it; returns how many there are."""
        with self._told():
            if (found := self.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise InputError(f"{self.path} is damaged: {printable(found, 200)}; restore it from a copy")
        return sum(1 for _ in self)

    def close(self) -> None:
        """Let go of the file, and of all claims."""
        self.connection.close()
        if self._claims is not None:
            os.close(self._claims)
            self._claims = None

    def __enter__(self) -> "TrainingStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _training(self, row: tuple) -> Training:
        """The training in a row; InputError where it has anything that no training has."""
        try:
            return _read(row)
        except (ValueError, TypeError, RecursionError, IndexError, InputError) as error:
            raise InputError(
                f"{self.path} has a training (cell {row[0]!r:.20}, seed {row[6]!r:.20}) that cannot be:"
                f" {printable(error, 200)}; restore the file from a copy"
            ) from error


_KINDS = (int, str, int, str, str, str, int, str, str, str, str, (float, type(None)), float, float, int, str, str, str)


def _place_of_claim(cell: int, recipe: Recipe, data: str, seed: int) -> int:
    """The byte that stands for a training, out of 2^62."""
    digest = hashlib.sha256(f"{cell} {recipe.canonical()} {data} {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def _checksum(row: tuple) -> str:
    """What tells damage inside of a row, which SQLite does not notice. It is no protection from forgers."""
    return hashlib.sha256(repr(row).encode("utf-8", "replace")).hexdigest()[:16]


def _read(row: tuple) -> Training:
    """The training in a row; ValueError, TypeError, IndexError or InputError with what is wrong with it."""
    if not all(isinstance(value, kind) for value, kind in zip(row, _KINDS)):
        raise ValueError("it has numbers where text should be, or text where numbers should be")
    if _checksum(row[:-1]) != row[-1]:
        raise ValueError("it is not as it was written")
    (cell, operations, edges, recipe, data_name, data, seed, outcome, reason, valid, losses, test,
     seconds, cpu_seconds, parameters, host, device, _) = row  # fmt: skip
    if not 0 <= cell < cells.cell_count():
        raise ValueError("there is no cell of that index")
    if (tuple(json.loads(operations)), edges) != cells.cell(cell):
        raise ValueError("its index and its cell do not belong together")
    if outcome not in OUTCOMES or not 0 <= seed < MOST_SEEDS or parameters < 1:
        raise ValueError("its outcome, seed or parameters cannot be")
    recipe = Recipe.from_json(recipe)
    valid, losses = _numbers(valid), _numbers(losses)
    complete = len(valid) == recipe.epochs
    if len(valid) != len(losses) or len(valid) > recipe.epochs or outcome == TRAINED and not complete:
        raise ValueError("it has not as many accuracies as epochs")
    if not all(0 <= accuracy <= 1 for accuracy in (*valid, test or 0.0)):
        raise ValueError("it has accuracies outside 0 to 1")
    if not all(0 <= s < math.inf for s in (seconds, cpu_seconds)):
        raise ValueError("its seconds cannot be")
    return Training(
        cell, recipe, data_name, data, seed, outcome, reason, valid, losses, test,
        seconds, cpu_seconds, parameters, host, device,
    )  # fmt: skip


def _numbers(text: str) -> tuple[float, ...]:
    """Finite floats out of a JSON list."""
    values = json.loads(text)
    if not isinstance(values, list) or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        raise ValueError("it has something else than numbers for an epoch")
    return tuple(map(float, values))


def _advice(error: sqlite3.Error) -> str:
    """What SQLite says, and what to do about it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    advice = {
        sqlite3.SQLITE_BUSY: "is in use by another program that does not let go of it; end that, then try again",
        sqlite3.SQLITE_LOCKED: "is in use by another program that does not let go of it; end that, then try again",
        sqlite3.SQLITE_FULL: "the disk is full; make room, then try again (nothing in it is lost)",
        sqlite3.SQLITE_IOERR: "cannot be read or written; see whether the disk is full or failing",
        sqlite3.SQLITE_READONLY: "may not be written; change its permissions, or name another file",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened; see that its folder is there and may be written",
        sqlite3.SQLITE_NOTADB: "is no store of trainings; name another file",
        sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a copy, or name another file",
    }.get(code, "cannot be used")
    return f"{advice} ({printable(error, 200)})"
