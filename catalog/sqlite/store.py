"""The catalog's state: what a call has answered is on the disk."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from catalog.decisions import Decision, Failure, OpenBatch, Registration
from catalog.sqlite import schema
from catalog.sqlite.books import SqliteBooks
from catalog.sqlite.database import Database
from catalog.sqlite.transactions import transaction
from catalog.stock import INVALID, Stock
from common.domain import MAX_ORDER_NUMBER, Order, Trade
from common.errors import BourseError, Contradiction, InvalidRequest
from common.on_change import OnChange

logger = logging.getLogger(__name__)

MAX_BATCH = 1_024
MAX_CHUNK = 1_000

REFUSALS_KEPT_S = 24 * 3600
# About 150 MB of them, or 1 GB with the longest names and request ids.
MAX_REFUSALS = 1_000_000
_PURGE_INTERVAL_S = 60
# A step deletes what one batch can add at most, so the purge keeps up with any load.
_PURGE_STEP = MAX_BATCH


class Fencing(NamedTuple):
    """What came of an attempt to register a leader."""

    accepted: bool
    registered: Registration  # after the attempt


class CatalogStore:
    """Stocks, journal, refusals and fence. Safe for use by several threads.

    Every method raises `Unavailable` when the storage fails (nothing is left half done, and
    nothing is told as done), `Busy` when it does not keep up, and `Damaged` when what is stored
    contradicts itself.

    Args:
        clock: the wall clock, in seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._next_purge_s = clock()
        self._refusals: int | None = None  # how many the table has; None: not counted yet
        self._refusals_full = OnChange(logger)

    def lookup(self, name: str) -> Stock | None:
        with self._database.reading() as connection:
            return schema.find_stock(connection, name)

    def stocks(self) -> list[Stock]:
        """All stocks, in the order of the file they came from."""
        with self._database.reading() as connection:
            return schema.all_stocks(connection)

    def registered(self) -> Registration:
        with self._database.reading() as connection:
            return schema.registration(connection)

    def journal(self, after: int, limit: int = MAX_CHUNK) -> list[Order]:
        """The first orders numbered above `after`, at most `limit` and at most MAX_CHUNK."""
        if after >= MAX_ORDER_NUMBER or limit < 1:  # SQLite takes a negative limit for none
            return []
        with self._database.reading() as connection:
            return schema.orders_above(connection, max(0, after), min(limit, MAX_CHUNK))

    @property
    def cluster_id(self) -> str:
        return self._database.cluster_id

    def compare(self, last_number: int, digest: bytes, cluster_id: str = "") -> None:
        """Raises Contradiction if a log that ends so is not a beginning of the journal.

        Args:
            cluster_id: of the log; empty if it has none.
        """
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
        """Registers a leader if `epoch` follows the registered one: a compare-and-set.

        Args:
            last_number: of the candidate's log, and its digest; 0 claims nothing.
            cluster_id: of the candidate's log; empty if it has none.

        Raises:
            Contradiction: the log is not a beginning of the journal; nothing was registered.
        """
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
        """Decides the trades in one transaction; one decision for each, in order.

        Args:
            cluster_id: of the catalog that registered the epoch; empty if that is not known.

        Raises:
            StaleEpoch: `epoch` is not the registered one; nothing was decided.
            Contradiction: another catalog registered it; nothing was decided.
            InvalidRequest: there are more than MAX_BATCH trades; nothing was decided.
        """
        if len(trades) > MAX_BATCH:
            raise InvalidRequest(f"{len(trades)} trades, but a batch holds at most {MAX_BATCH}")
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
        if cluster_id not in ("", self.cluster_id):
            raise Contradiction(
                f"the caller is of cluster {cluster_id}, this catalog of cluster {self.cluster_id}"
            )

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
    """Raises Contradiction unless the log is a beginning of the journal.

    A log takes only committed orders, so it cannot have one that the journal lacks.
    """
    if last_number == 0:
        return
    found = schema.digest_of(connection, last_number)
    if found is None:
        last, _ = schema.last_position(connection)
        raise Contradiction(f"that log has order {last_number}, this journal ends with {last}")
    if found != digest:
        raise Contradiction(
            f"up to order {last_number} that log has digest {digest.hex()}, "
            f"this journal has {found.hex()}"
        )
