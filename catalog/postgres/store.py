"""One term of being the active catalog: what its calls have answered is safe in the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from catalog.decisions import Decision, Failure, OpenBatch, Registration
from catalog.leases import Leases
from catalog.postgres.books import Acknowledged, BatchBooks
from catalog.postgres.office import Beats, Office
from catalog.postgres.session import DATA_ERRORS, Changes, Loaded, Opened, Session, SessionLost
from catalog.refusals import RefusalLimit, room_beside
from catalog.stock import INVALID, Stock
from catalog.store import (
    MAX_CHUNK,
    Fencing,
    check_beginning,
    check_cluster,
    check_size,
)
from common.domain import Order, Trade
from common.errors import BourseError, Busy, NotActive, Unavailable

logger = logging.getLogger(__name__)

# How long a caller waits for its turn. While a database stalls, waiting calls must leave threads
# free.
TURN_WAIT_S = 2.0

_UNKNOWN = "the database did not confirm the commit; it may have taken effect"
_NOTHING = Changes()

Result = TypeVar("Result")


class Turn(Protocol):
    """A lock: one thread at a time writes."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


class PostgresStore:
    """A `Store` of one term. Three rules carry its promises:

    - Every write transaction begins with a new beat in the office's row, of this generation. Who
      finds another generation there is not active any more.
    - Whenever the connection is lost, or a COMMIT's outcome is in doubt, the term is over.
    - Only what acknowledged COMMITs of this term cover is shown. It is in memory.

    Args:
        session: the connection on which the office was taken. `close` closes it.
        generation: the term's.
        began_s: when the transaction began that took the office, on `clock`.
        loaded: what the session loaded after that.
        office: shared with whoever takes and leaves it.
        leases: made before the office was taken, after it was seen to be free.
        clock: the clock of the tenure, in seconds.
        wall_clock: in seconds.
        turn: a fresh lock.
    """

    def __init__(
        self,
        *,
        session: Session,
        generation: int,
        began_s: float,
        loaded: Loaded,
        office: Office,
        leases: Leases,
        beats: Beats,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        turn: Turn,
    ) -> None:
        self.generation = generation
        self._began_s = began_s  # of the last transaction that was acknowledged
        self._session = session
        self._cluster_id = loaded.cluster_id
        self._known: Acknowledged | None = Acknowledged(loaded)  # None: the term is over
        self._office = office
        self._leases = leases
        self._beats = beats
        self._clock = clock
        self._wall_clock = wall_clock
        self._turn = turn
        self._is_closing = False
        self._refusals = RefusalLimit(wall_clock, loaded.refusals)

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @property
    def leases(self) -> Leases:
        return self._leases

    @property
    def node(self) -> str:
        """The database node that it writes to."""
        return self._session.node

    # ------------------------------------------------------------ reads

    def check_active(self) -> None:
        now_s = self._clock()
        if not self._office.step(lambda tenure: tenure.is_valid(self.generation, now_s)):
            raise NotActive

    def lookup(self, name: str) -> Stock | None:
        # Without it, a lost trade is in the cache ("shown from memory": test_takeovers.py).
        return self._shown().find_stock(name)

    def stocks(self) -> list[Stock]:
        return self._shown().all_stocks()

    def registered(self) -> Registration:
        return self._shown().registration

    def journal(self, after: int, limit: int = MAX_CHUNK) -> list[Order]:
        after = max(0, after)
        wanted = min(limit, MAX_CHUNK, self._journal_end() - after)
        if wanted < 1:
            return []
        with self._using_session(NotActive):
            return self._session.journal(after, wanted)

    def _journal_end(self) -> int:
        """The database may have more: rows whose COMMIT nobody acknowledged, and may be lost."""
        # Without it, a replica gets a row that is lost ("acknowledged rows": test_takeovers.py).
        return self._shown().position[0]

    def compare(self, last_number: int, digest: bytes, cluster_id: str = "") -> None:
        check_cluster(cluster_id, self._cluster_id)
        if last_number == 0:
            return
        end, end_digest = self._shown().position
        found = end_digest if last_number == end else None
        if 0 < last_number < end:
            with self._using_session(NotActive):
                found = self._session.digest_of(last_number)
        # Without it, others get the numbers of lost rows ("digests compared": test_lost_rows.py).
        check_beginning(last_number, digest, found, end)

    def _shown(self) -> Acknowledged:
        known = self._known
        if known is None:
            raise NotActive
        return known

    # ------------------------------------------------------------ writes

    def fence(
        self,
        epoch: int,
        leader_id: int,
        last_number: int = 0,
        digest: bytes = b"",
        cluster_id: str = "",
    ) -> Fencing:
        with self._writing():
            self.compare(last_number, digest, cluster_id)
            return self._transact((), lambda opened: _fence(opened, epoch, leader_id))

    def update(self, epoch: int, trades: Sequence[Trade], cluster_id: str = "") -> list[Decision]:
        check_size(trades)
        check_cluster(cluster_id, self._cluster_id)
        with self._writing():
            # A transaction even if all of them are repeats: what a query finds may be lost yet.
            # Without it, a repeat vouches for a lost row ("repeats write too": test_takeovers.py).
            try:
                decisions = self._decide(epoch, trades)
            except BourseError:
                raise
            except Exception:
                logger.exception("a batch of %d failed; deciding each trade alone", len(trades))
                decisions = self._decide_each_alone(epoch, trades)
            self._refusals.purge(self._delete_refusals)
        return decisions

    def beat(self, after_s: float) -> None:
        """Keeps the term valid, if nothing was acknowledged that began less than `after_s` ago.

        Raises:
            NotActive, Unavailable: the term is over.
        """
        if self._clock() - self._began_s < after_s or not self._turn.acquire(blocking=False):
            return  # somebody who has the turn writes a beat
        with self._having_turn():
            self._transact((), lambda _opened: (_NOTHING, None))

    def release(self) -> None:
        """Tells the others that they need not wait. Call it after the tenure was left."""
        with self._taking_turn():
            try:
                self._session.release(self.generation, self._beats.fresh())
            except SessionLost as error:
                logger.warning("cannot release the office, so the next catalog waits: %s", error)
            self._known = None

    def close(self) -> None:
        """Closes the session, when nobody writes in it any more. It does not wait for that."""
        self._is_closing = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        """Called after the wish to close, and after each turn: the later of them closes."""
        if self._is_closing and self._turn.acquire(blocking=False):
            try:
                self._session.close()
            finally:
                self._turn.release()

    @contextmanager
    def _taking_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=TURN_WAIT_S):
            raise Busy("the catalog's database does not keep up")
        with self._having_turn():
            yield

    @contextmanager
    def _having_turn(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._turn.release()
            self._close_if_unused()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._taking_turn():
            if not self._office.step(lambda tenure: tenure.holds(self.generation)):
                raise NotActive
            yield

    def _decide(self, epoch: int, trades: Sequence[Trade]) -> list[Decision]:
        # What is malformed was never decided, and may be what a database cannot compare.
        request_ids = [trade.request_id for trade in trades if trade.is_well_formed()]
        known, recorded = self._shown(), self._refusals.count or 0

        def work(opened: Opened) -> tuple[Changes, list[Decision]]:
            books = BatchBooks(known, opened)
            batch = OpenBatch(books, epoch, room_beside(recorded))
            decisions = [batch.decide(trade) for trade in trades]
            return books.changes(self._wall_clock()), decisions

        return self._transact(request_ids, work)

    def _decide_each_alone(self, epoch: int, trades: Sequence[Trade]) -> list[Decision]:
        """If the term ends after some of them, those stay decided: the caller must not hear that
        nothing was done. The batch that is sent again is told so."""
        decisions: list[Decision] = []
        for trade in trades:
            try:
                decisions += self._decide(epoch, [trade])
            except NotActive as error:
                raise Unavailable(_UNKNOWN) if decisions else error from None
            except BourseError:
                raise
            except Exception:
                logger.exception("%r failed by itself", trade)
                decisions.append(Decision(INVALID, failure=Failure.INTERNAL))
        return decisions

    def _delete_refusals(self, until_s: float, limit: int) -> int:
        def work(_opened: Opened) -> tuple[Changes, int]:
            with self._using_session(NotActive):
                return _NOTHING, self._session.delete_refusals(until_s, limit)

        return self._transact((), work)

    # ------------------------------------------------------------ one transaction

    def _transact(
        self, request_ids: Sequence[str], work: Callable[[Opened], tuple[Changes, Result]]
    ) -> Result:
        """Runs a write transaction, which is a beat as well. The caller has the turn.

        Args:
            work: returns what is to be written, and what to return once it is acknowledged.

        Raises:
            NotActive: the term is over, nothing was done.
            Unavailable: the term is over, and the COMMIT may have taken effect.
        """
        known, began_s = self._shown(), self._clock()
        opened = self._begin(known, request_ids)
        try:
            changes, result = work(opened)
        except BaseException:
            self._roll_back()
            raise
        self._commit(changes)
        self._office.step(lambda tenure: tenure.renew(self.generation, began_s))
        self._began_s = began_s
        # Before anybody looks up leases: who is granted one from now on reads the new values.
        known.add(changes)
        self._refusals.counted((self._refusals.count or 0) + len(changes.refusals))
        return result

    def _begin(self, known: Acknowledged, request_ids: Sequence[str]) -> Opened:
        with self._using_session(NotActive):
            # Without it, two catalogs decide ("generation check": test_takeovers.py).
            opened = self._session.begin(self.generation, self._beats.fresh(), request_ids)
        if opened is None:
            self._end("another catalog has taken the office")
            raise NotActive
        if opened.registration != known.registration:
            self._roll_back()
            self._end(f"{opened.registration} is registered, and this catalog did not do it")
            raise NotActive
        return opened

    def _commit(self, changes: Changes) -> None:
        with self._using_session(Unavailable, _UNKNOWN):
            self._session.commit(changes)

    def _roll_back(self) -> None:
        """What was to be said goes before what may fail here: that ends the term, no more."""
        try:
            with self._using_session(NotActive):
                self._session.roll_back()
        except NotActive:
            logger.debug("rolled back by the end of the connection")

    @contextmanager
    def _using_session(
        self, error: type[BourseError], message: str | None = None
    ) -> Iterator[None]:
        """Ends the term if the session fails in any way but for the data that it is given.

        Raises:
            BourseError: `error`, when the session failed.
        """
        try:
            yield
        except DATA_ERRORS:
            raise
        except SessionLost as lost:
            self._end_in_doubt(lost.message)
            raise error(message) from lost
        except Exception as defect:
            logger.exception("a session failed in a way that it must not")
            self._end_in_doubt(repr(defect))
            raise error(message) from defect
        except BaseException as interruption:
            self._end_in_doubt(repr(interruption))
            raise

    def _end_in_doubt(self, why: str) -> None:
        # Without it, it decides on what it does not know ("over when in doubt": test_takeovers.py).
        self._end(why)

    def _end(self, why: str) -> None:
        """Drops everything: what this term knows may be the past."""
        self._known = None
        if self._office.step(lambda tenure: tenure.end(self.generation)):
            logger.warning("generation %d is over: %s", self.generation, why)


def _fence(opened: Opened, epoch: int, leader_id: int) -> tuple[Changes, Fencing]:
    registered = opened.registration
    asked = Registration(epoch, leader_id)
    if not asked.may_follow(registered):
        return _NOTHING, Fencing(False, registered)
    return Changes(registration=asked), Fencing(True, asked)
