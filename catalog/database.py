"""The SQLite database: a directory of its own, one writer and a bounded set of readers."""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from catalog import schema
from catalog.transactions import translated_errors
from common.disk import explain
from common.errors import Busy, Unavailable

logger = logging.getLogger(__name__)

_FILE_NAME = "catalog.db"
_LOCK_NAME = "catalog.lock"

# Nobody else writes; only SQLite's own recovery and checkpoints can make a connection wait.
_SQLITE_WAIT_S = 1.0

# A stalled disk must not pile up waiting calls until none is left to serve lookups.
_TURN_WAIT_S = 2.0


class CannotOpen(Exception):
    """The database cannot be used; the message says which and why."""


class Database:
    """An open catalog database. It has the directory to itself: a second one is refused.

    Args:
        directory: where the database lives; made when missing.
        stocks_file: what an empty database is filled from.

    Raises:
        CannotOpen: the directory or the database in it cannot be used.
        MalformedStockFile: the database is empty and the stocks file wrong.
    """

    def __init__(self, directory: Path, stocks_file: Path, readers: int = 8) -> None:
        path = directory / _FILE_NAME
        with _explaining(path), ExitStack() as undo:
            directory.mkdir(parents=True, exist_ok=True)
            undo.callback(os.close, _lock(directory / _LOCK_NAME))
            self._writer = undo.enter_context(closing(_connect(path)))
            schema.prepare(self._writer, stocks_file)
            self._readers = undo.enter_context(closing(_ReaderPool(path, readers)))
            self._resources = undo.pop_all()
        self._turn = threading.Lock()
        self._closed = False

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The turn to write: nobody else writes until it is over.

        Raises:
            Busy: others had their turn for too long; nothing was done.
            Unavailable: the database is closed.
        """
        if not self._turn.acquire(timeout=_TURN_WAIT_S):
            raise Busy("the catalog's disk does not keep up")
        try:
            if self._closed:
                raise Unavailable("the catalog is stopping")
            yield self._writer
        finally:
            self._turn.release()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees what was committed, and does not wait for the writer.

        Raises:
            Busy, Unavailable, Damaged
        """
        with self._readers.borrow() as connection, translated_errors():
            yield connection

    def close(self) -> None:
        """Closes everything; the last connection leaves the write-ahead log empty."""
        with self.writing():
            self._closed = True
            self._resources.close()


class _ReaderPool:
    def __init__(self, path: Path, size: int) -> None:
        self._size = size
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._resources = ExitStack()
        for _ in range(size):
            connection = self._resources.enter_context(closing(_connect(path)))
            connection.execute("PRAGMA query_only = ON")
            self._idle.put(connection)

    @contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.get(timeout=_TURN_WAIT_S)
        except queue.Empty:
            raise Busy("too many reads at once") from None
        try:
            yield connection
        finally:
            self._idle.put(connection)

    def close(self) -> None:
        """Waits for the reads in progress, each of which is short, and ends the rest."""
        try:
            for _ in range(self._size):
                self._idle.get(timeout=_TURN_WAIT_S)
        except queue.Empty:
            logger.warning("closing while something is being read")
        self._resources.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=_SQLITE_WAIT_S,
        isolation_level=None,  # transactions begin where the code says so
        check_same_thread=False,  # each connection has one user at a time all the same
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise CannotOpen(f"{path}: no write-ahead log on this file system")
    except BaseException:
        connection.close()
        raise
    return connection


def _lock(path: Path) -> int:
    """Locks the directory for this process. The lock ends with it, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise CannotOpen(f"{path.parent}: another catalog has it open") from None
    return descriptor


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, schema.OtherSchema) as error:
        raise CannotOpen(f"{path}: {explain(error, path)}") from error
