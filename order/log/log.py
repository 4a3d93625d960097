"""A replica's order log in SQLite: append-only rows, chained by hash."""

from __future__ import annotations

import csv
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from common.chain import read_cluster_id, seal, verify_chain
from common.domain import ORDER_COLUMNS, Order, order_values
from common.errors import BourseError, Damaged, Unavailable
from common.sqlite import explain, meaning, open_to_write

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2
_WITHOUT_CLUSTER = 1
_CHUNK = 1_000
_ORDERS = """
CREATE TABLE orders (
    number INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT
"""
# Has no row until the log has one.
_CLUSTER = "CREATE TABLE cluster (id TEXT NOT NULL, seal BLOB NOT NULL) STRICT"


class OrderLog:
    """The rows of one replica. One thread may append at a time; any may read meanwhile.

    A commit is not fsynced. A power cut may take rows from the end of a log; the replica pulls
    them again from the catalog's journal.
    """

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        """Opens the log and verifies its chain from the first row to the last.

        Args:
            check: called again and again while it verifies; what it raises ends that.

        Raises:
            Damaged: the file is not a log of this schema, its chain is broken, or the cluster's id
                is not the one it had.
            Unavailable: the disk does not let it be opened; nothing is said of its rows.
        """
        self._path = path
        self._reading = threading.Lock()
        try:
            with ExitStack() as undo:
                self._writer = undo.enter_context(closing(_connect(path)))
                version = _create_or_check(self._writer)
                _check_writable(self._writer, path)
                self.last_number, self.digest = self._verify(check)
                if version == _WITHOUT_CLUSTER:
                    _execute_all(self._writer, _CLUSTER)
                self.cluster_id = read_cluster_id(self._writer)
                self._reader = undo.enter_context(closing(_connect(path)))
                undo.pop_all()
        except (Damaged, Unavailable) as error:
            raise type(error)(f"{path}: {error.message}") from error
        except sqlite3.DatabaseError as error:
            raise _classify(error, path) from error

    def append(self, rows: Sequence[Order], cluster_id: str = "") -> None:
        """Adds rows that follow the last one, all or none; a log without an id takes this one over.

        Raises:
            sqlite3.Error: the disk is full or fails; the log is as it was.
        """
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            if cluster_id and not self.cluster_id:
                sealed = (cluster_id, seal(cluster_id))
                self._writer.execute("INSERT INTO cluster VALUES (?, ?)", sealed)
            statement = "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._writer.executemany(statement, map(order_values, rows))
            self._writer.execute("COMMIT")
        except sqlite3.Error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        self.cluster_id = self.cluster_id or cluster_id
        if rows:
            self.last_number, self.digest = rows[-1].number, rows[-1].digest

    def row(self, number: int) -> Order | None:
        rows = self.rows(number - 1, 1)
        return rows[0] if rows and rows[0].number == number else None

    def rows(self, after: int, limit: int = _CHUNK) -> list[Order]:
        """The rows above `after`, in order, at most `limit` of them.

        Raises:
            Damaged: a page of the file is bad.
            Unavailable: the disk does not let it be read.
        """
        try:
            with self._reading:
                found = self._reader.execute(
                    f"SELECT {ORDER_COLUMNS} FROM orders WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608 - a constant
                    (after, limit),
                ).fetchall()
        except sqlite3.DatabaseError as error:
            raise _classify(error, self._path) from error
        return [Order(*values) for values in found]

    def chunks(self, after: int) -> Iterator[list[Order]]:
        """All rows above `after`, in chunks, so that no reader holds the log for long."""
        while rows := self.rows(after):
            yield rows
            after = rows[-1].number

    def save(self) -> int:
        """Writes the log as text beside the database, atomically; returns the last number."""
        target = self._path.with_name("stockOrderDB.txt")
        # One name per writing thread: two calls at once must not write into one file.
        draft = target.with_suffix(f".{threading.get_ident()}.tmp")
        try:
            last_number = self._write_text(draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return last_number

    def _write_text(self, path: Path) -> int:
        last_number = 0
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("number", "name", "type", "quantity"))
            for rows in self.chunks(0):
                writer.writerows((row.number, row.name, row.type, row.quantity) for row in rows)
                last_number = rows[-1].number
            file.flush()
            os.fsync(file.fileno())
        return last_number

    def close(self) -> None:
        with self._reading:
            self._reader.close()
        try:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:  # no row is lost: the next start finds the write-ahead log
            logger.warning("the write-ahead log stays: %s", explain(error, self._path))
        self._writer.close()

    def _verify(self, check: Callable[[], None]) -> tuple[int, bytes]:
        # Without it, a damaged log is served ("log verified at start": test_failure_table.py).
        # The chain was read along the rows. This checks that each can be found by its number.
        ((verdict, *_),) = self._writer.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise Damaged(" ".join(verdict.split()))
        return verify_chain(self._path, "orders", check)


def open_log(path: Path, check: Callable[[], None] = lambda: None) -> tuple[OrderLog, str | None]:
    """Opens the log; a damaged one is set aside and replaced by an empty one.

    Args:
        check: as `OrderLog` takes it.

    Returns:
        The log, and what was wrong with the one set aside (None: nothing).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return OrderLog(path, check), None
    except Damaged as damage:
        aside = set_aside(path)
        return OrderLog(path, check), f"{damage.message}; set aside as {aside.name}"


def set_aside(path: Path) -> Path:
    """Gives a closed log another name, which it returns, so that the next one begins empty."""
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    # The log itself comes last: SQLite deletes a write-ahead log that it finds beside a new file.
    for suffix in ("-shm", "-wal", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def _connect(path: Path) -> sqlite3.Connection:
    return open_to_write(path, synchronous="NORMAL")


def _create_or_check(connection: sqlite3.Connection) -> int:
    """Makes the tables in an empty database; returns the version of the schema."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version in (_WITHOUT_CLUSTER, SCHEMA_VERSION):
        return int(version)
    if version != 0 or tables != 0:
        known = f"{_WITHOUT_CLUSTER} to {SCHEMA_VERSION}"
        raise Damaged(f"schema version {version}, but this replica knows {known} only")
    _execute_all(connection, _ORDERS, _CLUSTER)
    return SCHEMA_VERSION


def _execute_all(connection: sqlite3.Connection, *statements: str) -> None:
    """In one transaction, after which the schema is this version's."""
    for statement in (
        "BEGIN IMMEDIATE",
        *statements,
        f"PRAGMA user_version = {SCHEMA_VERSION}",
        "COMMIT",
    ):
        connection.execute(statement)


def _check_writable(connection: sqlite3.Connection, path: Path) -> None:
    """Raises Damaged if the file's header forbids writing though the disk allows it.

    Such a log opens and reads like any other, but can never take a row.
    """
    try:
        connection.execute("BEGIN")  # an immediate one would quietly be for reading only
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sqlite3.OperationalError as error:
        is_forbidden = error.sqlite_errorcode == sqlite3.SQLITE_READONLY
        if is_forbidden and os.access(path, os.W_OK, effective_ids=True):
            raise Damaged("its header forbids writing") from error
        raise
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _classify(error: sqlite3.DatabaseError, path: Path) -> BourseError:
    if isinstance(error, sqlite3.ProgrammingError):
        return Unavailable(f"{path}: {error}")  # closed: the service is stopping
    return (meaning(error) or Damaged)(f"{path}: {explain(error, path)}")
