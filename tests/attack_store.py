"""Damage to a store of trainings, an SQLite file: what SQL can do to it, and hostile rows behind a right checksum."""

import contextlib
import random
import sqlite3
from pathlib import Path
from typing import Callable

import training_store
from attack_files import NASTY, Damage


def by_sql(*statements: str) -> Damage:
    """The damage that SQL does to a database."""

    def damage(path: Path, rng: random.Random) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.create_function("hostile", 0, lambda: NASTY[:-1])  # the last character is none in UTF-8
            for statement in statements:
                connection.execute(statement)

    return damage


def with_a_checksum(change: Callable[[list], list]) -> Damage:
    """The damage to every row of a store, behind a right checksum."""

    def damage(path: Path, rng: random.Random) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            rows = connection.execute(f"SELECT {training_store.COLUMNS} FROM trainings").fetchall()
            connection.execute("DELETE FROM trainings")
            for row in rows:
                changed = tuple(change(list(row[:-1])))
                values = (*changed, training_store._checksum(changed))
                connection.execute(f"INSERT INTO trainings VALUES ({', '.join('?' * len(values))})", values)

    return damage


_PLACES_OF_TEXT = 4, 8, 15, 16  # name of the data, reason, host, device
STORE: dict[str, Damage] = {
    "hostile text": by_sql("UPDATE trainings SET data_name = hostile(), reason = hostile(), host = hostile()"),
    "hostile text behind a checksum": with_a_checksum(
        lambda row: [NASTY[:-1] if place in _PLACES_OF_TEXT else value for place, value in enumerate(row)]
    ),
    "accuracies that are none": with_a_checksum(lambda row: [*row[:9], "[NaN, 1e999]", *row[10:]]),
    "nested accuracies": with_a_checksum(lambda row: [*row[:9], "[" * 100_000, *row[10:]]),
    "a recipe of 1 MB": with_a_checksum(lambda row: [*row[:3], "x" * 1_000_000, *row[4:]]),
    "a trigger": by_sql("CREATE TRIGGER t AFTER INSERT ON trainings BEGIN DELETE FROM trainings; END"),
    "a view": by_sql("ALTER TABLE trainings RENAME TO others", "CREATE VIEW trainings AS SELECT * FROM others"),
    "another program's database": by_sql("DROP TABLE trainings", "CREATE TABLE mine (a)", "PRAGMA application_id = 1"),
    "hostile statements": by_sql("DROP TABLE trainings", 'CREATE TABLE "\x1b[2J\x07" (a)'),
    "a later version": by_sql("PRAGMA user_version = 9"),
}
