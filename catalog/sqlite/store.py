"""The catalog's state: what a call has answered is on the disk."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

from catalog.decisions import Decision, Failure, OpenBatch, Registration
from catalog.leases import Leases
from catalog.refusals import RefusalLimit, room_beside
from catalog.sqlite import schema
from catalog.sqlite.books import SqliteBooks
from catalog.sqlite.database import Database
from catalog.sqlite.transactions import transaction
from catalog.stock import INVALID, Stock
from catalog.store import (
    MAX_CHUNK,
    Fencing,
    check_beginning,
    check_cluster,
    check_size,
)
from common.domain import MAX_ORDER_NUMBER, Order, Trade
from common.errors import BourseError

logger = logging.getLogger(__name__)


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
        self._refusals = RefusalLimit(clock)

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
            if not asked.may_follow(registered):
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
            self._refusals.purge(partial(self._delete_refusals, connection))
            self._database.shorten_log(connection)
        return decisions

    def _check_cluster(self, cluster_id: str) -> None:
        """Raises Contradiction if a log or an epoch belongs to another catalog than this."""
        # Without it, another catalog decides a leader's trades ("cluster id": test_cluster_id.py).
        check_cluster(cluster_id, self.cluster_id)

    def _decide(
        self, connection: sqlite3.Connection, epoch: int, trades: Sequence[Trade]
    ) -> list[Decision]:
        kept, self._refusals.count = self._refusals.count, None  # if the COMMIT fails
        with transaction(connection):
            if kept is None:
                kept = schema.count_refusals(connection)
            books = SqliteBooks(connection, self._clock())
            batch = OpenBatch(books, epoch, room_beside(kept))
            decisions = [batch.decide(trade) for trade in trades]
        self._refusals.counted(kept + batch.refusals)
        return decisions

    def _decide_alone(self, connection: sqlite3.Connection, epoch: int, trade: Trade) -> Decision:
        try:
            return self._decide(connection, epoch, [trade])[0]
        except BourseError:
            raise
        except Exception:
            logger.exception("%r failed by itself", trade)
            return Decision(INVALID, failure=Failure.INTERNAL)

    def _delete_refusals(self, connection: sqlite3.Connection, until_s: float, limit: int) -> int:
        with transaction(connection):
            return schema.delete_refusals(connection, until_s, limit)


def _check_belongs(connection: sqlite3.Connection, last_number: int, digest: bytes) -> None:
    """Raises Contradiction unless a log that ends so is a beginning of the journal."""
    if last_number == 0:
        return
    found = schema.digest_of(connection, last_number)
    last, _ = schema.last_position(connection)
    check_beginning(last_number, digest, found, last)
