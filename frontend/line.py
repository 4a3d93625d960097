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

    __slots__ = ("_awake", "outcome", "trade", "turn")

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.turn = _Turn.WAITS
        self.outcome: Outcome | NotSent = OutcomeUnknown()  # as it stands while the call is out
        self._awake = threading.Lock()
        self._awake.acquire()

    def wait(self, timeout_s: float) -> None:
        self._awake.acquire(timeout=max(0.0, timeout_s))

    def wake(self, turn: _Turn) -> None:
        self.turn = turn
        self._awake.release()

    def end(self, outcome: Outcome | NotSent) -> None:
        self.outcome = outcome
        self.wake(_Turn.IS_OVER)


class Line:
    """Sends trades to one leader, from any number of threads.

    Args:
        send: makes one call, within so many seconds; returns the outcome of each trade, in
            order, or raises BourseError when the call as a whole failed.
        settle: gets trades and their outcomes, before anyone learns of them and while the next
            call may already be out; returns the outcomes to give.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        send: Send,
        settle: Settle,
        clock: Callable[[], float],
    ) -> None:
        self._send = send
        self._settle = settle
        self._clock = clock
        self._changing = threading.Lock()
        self._waiting: deque[_Place] = deque()  # at most one for each thread
        self._is_busy = False

    def trade(self, trade: Trade, give_up_at: float) -> Decision:
        """How the trade was decided.

        Args:
            give_up_at: when the caller's patience with this leader is over.

        Raises:
            NotSent: no copy of it left.
            BourseError: what the leader's answer stands for; OutcomeUnknown also when there was
                none in time.
        """
        place = _Place(trade)
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
            self._send_with_others(place, give_up_at - self._clock())
        if isinstance(place.outcome, Decision):
            return place.outcome
        raise place.outcome

    def _leave(self, place: _Place) -> None:
        """Gives the place up if nothing has become of it in time."""
        with self._changing:
            if place.turn is _Turn.WAITS:
                self._waiting.remove(place)
                place.outcome = NotSent(OutcomeUnknown())

    def _send_with_others(self, mine: _Place, timeout_s: float) -> None:
        with self._changing:
            others = [
                self._waiting.popleft()
                for _ in range(min(len(self._waiting), MAX_TRADES_PER_CALL - 1))
            ]
            for place in others:
                place.turn = _Turn.IS_SENT
        trades = [mine.trade, *(place.trade for place in others)]
        outcomes: Sequence[Outcome] = [OutcomeUnknown()] * len(trades)
        try:
            outcomes = self._sent(trades, timeout_s)
        finally:
            mine.outcome = outcomes[0]
            for place, outcome in zip(others, outcomes[1:], strict=True):
                place.end(outcome)

    def _sent(self, trades: Sequence[Trade], timeout_s: float) -> Sequence[Outcome]:
        try:
            outcomes = self._send(trades, timeout_s)
        except BourseError as failure:
            self._dismiss(failure)
            return [failure] * len(trades)
        except BaseException:
            self._dismiss(OutcomeUnknown())
            raise
        self._go_on()
        return self._settle(trades, outcomes)

    def _go_on(self) -> None:
        """Has the next one send."""
        with self._changing:
            self._is_busy = bool(self._waiting)
            if self._is_busy:
                self._waiting.popleft().wake(_Turn.SENDS)

    def _dismiss(self, failure: BourseError) -> None:
        """Who waited shall not be the next to find out that this leader is gone."""
        with self._changing:
            self._is_busy = False
            while self._waiting:
                self._waiting.popleft().end(NotSent(failure))
