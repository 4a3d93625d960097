"""Trades on their way to one leader: one call at a time, and what comes meanwhile goes together.

This is group commit (DeWitt et al., 1984) at the sender's end: the busier the leader, the more
trades share a call, and nobody waits for company. No thread of its own does the sending: the
first trade that finds the line idle sends, and who has sent wakes the next to do so.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from operator import attrgetter

from common.errors import BourseError, OutcomeUnknown
from common.records import MAX_TRADES_PER_CALL, Trade
from frontend.model import Decision

Outcome = Decision | BourseError
Send = Callable[[Sequence[Trade], float], Sequence[Outcome]]
Settle = Callable[[Sequence[Trade], Sequence[Outcome]], Sequence[Outcome]]


class NotSent(Exception):
    """The trade was not sent to this leader: the call before it failed, or took too long."""

    def __init__(self, cause: BourseError) -> None:
        super().__init__(cause.message)
        self.cause = cause


class _Turn(Enum):
    WAITS = auto()
    SENDS = auto()  # itself, and others along with it
    IS_SENT = auto()
    IS_OVER = auto()


class _Place:
    """One trade's place in the line."""

    __slots__ = ("_awake", "give_up_at", "outcome", "trade", "turn")

    def __init__(self, trade: Trade, give_up_at: float) -> None:
        self.trade = trade
        self.give_up_at = give_up_at
        self.turn = _Turn.WAITS
        self.outcome: Outcome | NotSent = OutcomeUnknown()  # as it stands while the call is out
        self._awake = threading.Lock()
        self._awake.acquire()

    def wait(self, timeout_s: float) -> None:
        self._awake.acquire(timeout=max(0.0, timeout_s))

    def wake(self, turn: _Turn) -> None:
        self.turn = turn
        self._awake.release()

    def end(self) -> None:
        self.wake(_Turn.IS_OVER)

    def dismiss(self, cause: BourseError) -> None:
        self.outcome = NotSent(cause)
        self.end()


class Line:
    """Sends trades to one leader, from any number of threads.

    Args:
        send: makes one call, within so many seconds; returns the outcome of each trade, in
            order, or raises BourseError when the call as a whole failed.
        settle: gets trades and their outcomes, before anyone learns of them and while the next
            call may already be out; returns the outcomes to give.
        clock: seconds, monotonic.
        call_timeout_s: of one call, counted from when it is sent: a trade that waited for the
            call before it has no less time, or a leader that is merely slow would be doubted.
    """

    def __init__(
        self, send: Send, settle: Settle, clock: Callable[[], float], call_timeout_s: float
    ) -> None:
        self._send = send
        self._settle = settle
        self._clock = clock
        self._call_timeout_s = call_timeout_s
        self._changing = threading.Lock()
        self._waiting: deque[_Place] = deque()  # at most one for each thread
        self._is_busy = False

    def trade(self, trade: Trade, give_up_at: float) -> Decision:
        """How the trade was decided.

        Args:
            give_up_at: when the caller's time is over.

        Raises:
            NotSent: no copy of it left.
            BourseError: what the leader's answer stands for; OutcomeUnknown also when there was
                none in time.
        """
        place = _Place(trade, give_up_at)
        with self._changing:
            if self._is_busy:
                self._waiting.append(place)
            else:
                self._is_busy = True
                place.turn = _Turn.SENDS
        if place.turn is not _Turn.SENDS:
            place.wait(give_up_at - self._clock())
            self._leave(place)
        if place.turn is _Turn.SENDS:
            self._send_with_others(place)
        outcome = place.outcome  # who did not wait to the end may find another one the next time
        if isinstance(outcome, Decision):
            return outcome
        raise outcome

    def _leave(self, place: _Place) -> None:
        """Gives the place up if nothing has become of it in time."""
        with self._changing:
            if place.turn is _Turn.WAITS:
                self._waiting.remove(place)
                place.outcome = NotSent(OutcomeUnknown())

    def _send_with_others(self, mine: _Place) -> None:
        with self._changing:
            others = [
                self._waiting.popleft()
                for _ in range(min(len(self._waiting), MAX_TRADES_PER_CALL - 1))
            ]
            for place in others:
                place.turn = _Turn.IS_SENT
        try:
            self._send_all([mine, *others])
        finally:
            for place in others:
                place.end()

    def _send_all(self, places: Sequence[_Place]) -> None:
        trades = [place.trade for place in places]
        timeout_s = min(self._call_timeout_s, places[0].give_up_at - self._clock())
        try:
            outcomes = self._send(trades, timeout_s)
        except BourseError as failure:
            self._dismiss(failure)
            _note(places, [failure] * len(places))
            return
        except BaseException:
            self._dismiss(OutcomeUnknown())
            raise
        self._go_on()
        _note(places, outcomes)  # for whoever cannot wait until they are settled
        _note(places, self._settle(trades, outcomes))

    def _go_on(self) -> None:
        """Has the next one send."""
        with self._changing:
            self._is_busy = bool(self._waiting)
            if self._is_busy:
                sender = self._next_sender()
                self._waiting.remove(sender)
                sender.wake(_Turn.SENDS)

    def _next_sender(self) -> _Place:
        """The first that has the time for a whole call, else who has the most: a call that ends
        with its sender's time ends for all who go along."""
        call_ends_at = self._clock() + self._call_timeout_s
        for place in self._waiting:
            if place.give_up_at >= call_ends_at:
                return place
        return max(self._waiting, key=attrgetter("give_up_at"))

    def _dismiss(self, failure: BourseError) -> None:
        """Who waited shall not be the next to find out that this leader is gone."""
        with self._changing:
            self._is_busy = False
            while self._waiting:
                self._waiting.popleft().dismiss(failure)


def _note(places: Sequence[_Place], outcomes: Sequence[Outcome]) -> None:
    for place, outcome in zip(places, outcomes, strict=True):
        place.outcome = outcome
