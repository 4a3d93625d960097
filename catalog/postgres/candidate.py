"""One catalog process's way to being active and back: connect, watch, take, keep, leave."""

from __future__ import annotations

import logging
from collections.abc import Callable

from catalog.leases import Leases
from catalog.postgres.office import Beats, Office
from catalog.postgres.session import OfficeRow, Session
from catalog.postgres.store import PostgresStore, Turn
from catalog.postgres.tenure import Tenure
from common.errors import BourseError, Busy, Damaged, NotActive
from common.on_change import OnChange

logger = logging.getLogger(__name__)

# As parts of V, for which one acknowledged transaction keeps the office.
_WATCH = 1 / 8
_BEAT = 1 / 4

_REST_AFTER_DEFECT_S = 2.0

# Opens a session with a database node that takes writes; that node only if there is no other. It
# tries for a bounded time. Raises SessionLost.
Connect = Callable[[str], Session]


class Candidate:
    """Makes this process the active catalog when it may be. One thread runs it.

    Args:
        holder: what this process calls itself to people.
        office_s: V.
        clock: in seconds; goes on while the machine sleeps.
        wall_clock: in seconds.
        wait: waits for so many seconds; True, at once, when the process is to stop.
        on_change: is told when this process becomes active, and when it is so no more.
        make_turn: makes a lock.
    """

    def __init__(
        self,
        *,
        connect: Connect,
        holder: str,
        office_s: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        wait: Callable[[float], bool],
        on_change: Callable[[bool], None],
        make_turn: Callable[[], Turn],
    ) -> None:
        self._connect = connect
        self._holder = holder
        self._office_s = office_s
        self._office = Office(Tenure(holder, office_s))
        self._clock = clock
        self._wall_clock = wall_clock
        self._wait = wait
        self._on_change = on_change
        self._make_turn = make_turn
        self._session: Session | None = None  # while standing by; a term keeps its own
        self._term: PostgresStore | None = None
        self._avoided = ""  # the node where the last session failed
        self._said_of = 0  # the generation that the log names as another's
        self._trouble = OnChange(logger)

    def current(self) -> PostgresStore:
        """The store of this process's term.

        Raises:
            NotActive: it stands by.
        """
        term = self._term
        if term is None:
            raise NotActive
        return term

    def run(self) -> None:
        """Stands by and is active in turns, until the process is to stop."""
        rest_s = 0.0
        while not self._wait(rest_s):
            try:
                rest_s = self._do_what_is_due()
            except Exception:
                logger.exception("standing by anew, after an unexpected error")
                self._stop_serving()
                self._disconnect()
                rest_s = _REST_AFTER_DEFECT_S
        self._leave()

    def _do_what_is_due(self) -> float:
        """Returns for how long to rest."""
        if self._term is not None:
            self._keep(self._term)
        return self._stand_by() if self._term is None else self._office_s * _WATCH

    # ------------------------------------------------------------ standing by

    def _stand_by(self) -> float:
        """Returns for how long to rest."""
        try:
            if self._session is None:
                self._session = self._connect(self._avoided)
            self._watch(self._session)
        except Damaged as error:
            self._disconnect()
            self._trouble.trouble(
                "cannot be active: %s. See OPERATIONS.md, Damage and loss",
                error,
                cause=error.message,
                level=logging.CRITICAL,
            )
            return _REST_AFTER_DEFECT_S
        except BourseError as error:
            self._trouble.trouble("standing by without a database: %s", error, cause=error.message)
            self._disconnect()
        else:
            self._trouble.over("the database answers again")
        return self._office_s * _WATCH

    def _watch(self, session: Session) -> None:
        row = session.observe()
        now_s = self._clock()  # after the answer: the row may have been new when it was sent
        self._office.step(
            lambda tenure: tenure.observe(row.generation, row.beat, row.holder, row.released, now_s)
        )
        if self._office.step(lambda tenure: tenure.may_take(now_s)):
            self._take(session, row, now_s)
        elif row.generation != self._said_of:
            self._said_of = row.generation
            logger.info("standing by: generation %d is held by %s", row.generation, row.holder)

    def _take(self, session: Session, row: OfficeRow, now_s: float) -> None:
        generation = self._office.step(lambda tenure: tenure.begin_take(now_s))
        # All that others granted was granted before now. So the lease on everything covers it.
        leases, beats = Leases(self._clock), Beats()
        began_s = self._clock()
        taken = False
        try:
            taken = session.take(row, beats.fresh(), self._holder)
        finally:
            if not taken:
                self._office.step(lambda tenure: tenure.not_taken())
        if taken:
            self._office.step(lambda tenure: tenure.taken(began_s))
            self._begin_term(session, generation, began_s, leases, beats)
            logger.info(
                "active in generation %d at %s: %s", generation, session.node, self._why(row)
            )

    def _why(self, row: OfficeRow) -> str:
        if not row.holder:
            return "nobody was before"
        if row.released:
            return f"{row.holder} has left"
        return "again" if row.holder == self._holder else f"{row.holder} is silent"

    def _begin_term(
        self, session: Session, generation: int, began_s: float, leases: Leases, beats: Beats
    ) -> None:
        loaded = None
        try:
            loaded = session.load()
        finally:
            if loaded is None:
                self._office.step(lambda tenure: tenure.end(generation))
        self._session = None
        self._term = PostgresStore(
            session=session,
            generation=generation,
            began_s=began_s,
            loaded=loaded,
            office=self._office,
            leases=leases,
            beats=beats,
            clock=self._clock,
            wall_clock=self._wall_clock,
            turn=self._make_turn(),
        )
        self._on_change(True)

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._avoided = session.node
            session.close()

    # ------------------------------------------------------------ being active

    def _keep(self, term: PostgresStore) -> None:
        try:
            term.beat(self._office_s * _BEAT)
        except BourseError as error:
            logger.debug("no beat: %s", error)  # the term has said why it is over
        if not self._office.step(lambda tenure: tenure.holds(term.generation)):
            self._stop_serving()

    def _stop_serving(self, release: bool = False) -> None:
        term, self._term = self._term, None
        if term is None:
            return
        self._office.step(lambda tenure: tenure.end(term.generation))
        self._on_change(False)
        self._avoided = term.node
        try:
            if release:
                term.release()
        except Busy as error:
            logger.warning("cannot release the office, so the next catalog waits: %s", error)
        term.close()

    # ------------------------------------------------------------ leaving

    def _leave(self) -> None:
        """Stops serving first: the next catalog does not wait once it sees that this one left."""
        was_active = self._office.step(lambda tenure: tenure.leave())
        self._stop_serving(release=was_active)
        self._disconnect()
