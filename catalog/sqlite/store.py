"""The catalog's state: what a call has answered is on the disk."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence

from catalog.decisions import Decision, Failure, OpenBatch, Registration
from catalog.leases import Leases
from catalog.sqlite import schema
from catalog.sqlite.books import SqliteBooks
from catalog.sqlite.database import Database
from catalog.sqlite.transactions import transaction
from catalog.stock import INVALID, Stock
from catalog.store import (
    MAX_BATCH,
    MAX_CHUNK,
    MAX_REFUSALS,
    REFUSALS_KEPT_S,
    Fencing,
    check_beginning,
    check_cluster,
    check_size,
)
from common.domain import MAX_ORDER_NUMBER, Order, Trade
from common.errors import BourseError
from common.on_change import OnChange

logger = logging.getLogger(__name__)

_PURGE_INTERVAL_S = 60
# A step deletes what one batch can add at most, so the purge keeps up with any load.
_PURGE_STEP = MAX_BATCH


class SqliteStore:
    """A `Store` of one term that lasts as long as the process: the directory is locked for it.

    Args:
        clock: the wall clock, in seconds.
        leases: made after the database was locked.

    Attributes:
        leases: those that this catalog granted.
    """

    def __init__(self, database: Database, clock: Callable[[], float], leases: Leases) -> None:
        self.leases = leases
        self._database = database
        self._clock = clock
        self._next_purge_s = clock()
        self._refusals: int | None = None  # how many the table has; None: not counted yet
        self._refusals_full = OnChange(logger)

    @property
    def cluster_id(self) -> str:
        return self._database.cluster_id

    def check_active(self) -> None:
        """There is no other catalog: it would not get the directory."""

    def lookup(self, name: str) -> Stock | None:
        with self._database.reading() as connection:
            return schema.find_stock(connection, name)

    def stocks(self) -> list[Stock]:
        with self._database.reading() as connection:
            return schema.all_stocks(connection)

    def registered(self) -> Registration:
        with self._database.reading() as connection:
            return schema.registration(connection)

    def journal(self, after: int, limit: int = MAX_CHUNK) -> list[Order]:
        if after >= MAX_ORDER_NUMBER or limit < 1:  # SQLite takes a negative limit for none
            return []
        with self._database.reading() as connection:
            return schema.orders_above(connection, max(0, after), min(limit, MAX_CHUNK))

    def compare(self, last_number: int, digest: bytes, cluster_id: str = "") -> None:
        self._check_cluster(cluster_id)
        with self._database.reading() as connection:
            _check_belongs(connection, last_number, digest)

    def fence(
        self,
        epoch: int,
        leader_id: int,
        last_number: int = 0,
        digest: bytes = b"",
        cluster_id: str = "",
    ) -> Fencing:
        self._check_cluster(cluster_id)
        asked = Registration(epoch, leader_id)
        with self._database.writing() as connection, transaction(connection):
            _check_belongs(connection, last_number, digest)
            registered = schema.registration(connection)
            if epoch != registered.epoch + 1 or not 1 <= leader_id < 2**63:
                return Fencing(False, registered)
            schema.save_registration(connection, asked)
        return Fencing(True, asked)

    def update(self, epoch: int, trades: Sequence[Trade], cluster_id: str = "") -> list[Decision]:
        check_size(trades)
        self._check_cluster(cluster_id)
        with self._database.writing() as connection:
            try:
                decisions = self._decide(connection, epoch, trades)
            except BourseError:
                raise
            except Exception:
                # If the storage fails after some of them, those stay decided, and the batch that is
                # sent again is told so.
                logger.exception("a batch of %d failed; deciding each trade alone", len(trades))
                decisions = [self._decide_alone(connection, epoch, trade) for trade in trades]
            self._purge_refusals(connection)
            self._database.shorten_log(connection)
        return decisions

    def _check_cluster(self, cluster_id: str) -> None:
        """Raises Contradiction if a log or an epoch belongs to another catalog than this."""
        # Without it, another catalog decides a leader's trades ("cluster id": test_cluster_id.py).
        check_cluster(cluster_id, self.cluster_id)

    def _decide(
        self, connection: sqlite3.Connection, epoch: int, trades: Sequence[Trade]
    ) -> list[Decision]:
        kept, self._refusals = self._refusals, None  # if the COMMIT fails, they are counted anew
        with transaction(connection):
            if kept is None:
                kept = schema.count_refusals(connection)
            books = SqliteBooks(connection, self._clock())
            batch = OpenBatch(books, epoch, MAX_REFUSALS - kept)
            decisions = [batch.decide(trade) for trade in trades]
        self._refusals = kept + batch.refusals
        self._say_whether_full(self._refusals)
        return decisions

    def _decide_alone(self, connection: sqlite3.Connection, epoch: int, trade: Trade) -> Decision:
        try:
            return self._decide(connection, epoch, [trade])[0]
        except BourseError:
            raise
        except Exception:
            logger.exception("%r failed by itself", trade)
            return Decision(INVALID, failure=Failure.INTERNAL)

    def _say_whether_full(self, refusals: int) -> None:
        if refusals < MAX_REFUSALS:
            self._refusals_full.over("refusals are recorded again")
        else:
            self._refusals_full.trouble(
                "%d refusals are recorded, which is the limit: what would have to be refused for "
                "lack of volume is answered as not executed, until the oldest are a day old",
                refusals,
            )

    def _purge_refusals(self, connection: sqlite3.Connection) -> None:
        now_s = self._clock()
        if now_s < self._next_purge_s:
            return
        try:
            with transaction(connection):
                deleted = schema.delete_refusals(connection, now_s - REFUSALS_KEPT_S, _PURGE_STEP)
        except BourseError as error:  # the decisions were committed before, and must be told
            logger.warning("cannot delete old refusals: %s", error)
            deleted = 0
            self._refusals = None
        if self._refusals is not None:
            self._refusals -= deleted
        if deleted < _PURGE_STEP:
            self._next_purge_s = now_s + _PURGE_INTERVAL_S


def _check_belongs(connection: sqlite3.Connection, last_number: int, digest: bytes) -> None:
    """Raises Contradiction unless a log that ends so is a beginning of the journal."""
    if last_number == 0:
        return
    found = schema.digest_of(connection, last_number)
    last, _ = schema.last_position(connection)
    check_beginning(last_number, digest, found, last)
