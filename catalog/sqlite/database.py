"""The SQLite database: a directory of its own, one writer and a bounded set of readers."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from catalog.decisions import Registration
from catalog.sqlite import schema
from catalog.sqlite.files import CannotOpen, DamagedCatalog, Directory
from catalog.sqlite.transactions import transaction, translated_errors
from catalog.sqlite.verification import verify
from catalog.stock_file import read_stocks
from common.errors import Busy, Damaged, Unavailable
from common.sqlite import LOG_LIMIT_BYTES, WAIT_S, explain, open_to_write

logger = logging.getLogger(__name__)

# How long a caller waits for its turn. While a disk stalls, waiting calls must leave threads free.
_TURN_WAIT_S = 2.0

# SQLite starts its write-ahead log anew only while nobody reads. With many readers there is always
# one, so the writer waits for a moment without readers when the log is long.
_LOG_LIMIT_BYTES = LOG_LIMIT_BYTES
_READERS_WAIT_MS = 100


class Database:
    """An open catalog database. A second one on the same directory is refused.

    The whole of it is verified before anything is served or changed.

    Attributes:
        cluster_id: a UUID that the database got when it was made.

    Args:
        directory: where the database lives; made when missing.
        stocks_file: what the first start fills the database from.

    Raises:
        CannotOpen: the directory or the database in it cannot be used; it is as it was.
        MalformedStockFile: this is the first start and the stocks file wrong.
    """

    def __init__(self, directory: Path, stocks_file: Path, readers: int = 8) -> None:
        with _explaining(directory), ExitStack() as undo:
            home = undo.enter_context(closing(Directory(directory)))
            path = home.database
            if not home.has_database():
                _fill(home, stocks_file)
            with _explaining(path):
                verified = verify(path)
                home.note_database()
                self._writer = undo.enter_context(closing(_connect(path)))
                if verified.schema_version != schema.VERSION:
                    schema.migrate(self._writer, verified.schema_version, verified.initial_volumes)
                    logger.info("%s: brought to schema version %d", path, schema.VERSION)
                self.cluster_id = schema.cluster_id(self._writer)
                self._readers = undo.enter_context(closing(_ReaderPool(path, readers)))
            self._log = path.with_name(path.name + "-wal")
            self._log_limit_bytes = _LOG_LIMIT_BYTES
            self._resources = undo.pop_all()
        logger.info(
            "%s is whole, last number %d, cluster %s", path, verified.last_number, self.cluster_id
        )
        self._turn = threading.Lock()
        self._closed = False

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The turn to write: nobody else writes until the block is over.

        Raises:
            Busy: the turn did not come in time; nothing was done.
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

    def shorten_log(self, connection: sqlite3.Connection) -> None:
        """Moves a long write-ahead log into the database, if the readers leave a moment for that.

        If they do not, nothing is lost: it is tried again when the log has grown as much again.
        Call it in the turn to write, outside of a transaction.
        """
        try:
            size = self._log.stat().st_size
            if size > self._log_limit_bytes:
                kept = 0 if _truncate_log(connection) else size
                self._log_limit_bytes = kept + _LOG_LIMIT_BYTES
        except (OSError, sqlite3.Error) as error:
            logger.warning("cannot shorten the write-ahead log: %s", error)

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
    return open_to_write(path, synchronous="FULL")


def _truncate_log(connection: sqlite3.Connection) -> bool:
    """False if readers were in the way all the time."""
    connection.execute(f"PRAGMA busy_timeout = {_READERS_WAIT_MS}")
    try:
        ((is_busy, _, _),) = schema.rows(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(WAIT_S * 1000)}")
    return not is_busy


def _fill(home: Directory, stocks_file: Path) -> None:
    stocks = read_stocks(stocks_file)
    with (
        home.new_database() as draft,
        closing(_connect(draft)) as connection,
        transaction(connection),
    ):
        schema.create(connection, stocks, Registration(0, 0))


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except Damaged as error:
        raise DamagedCatalog(path, error.message) from error
    except (OSError, sqlite3.Error, Unavailable, schema.OtherSchema) as error:
        raise CannotOpen(f"{path}: {explain(error, path)}") from error
