"""Trades on their way to one leader: what comes while a call is out goes together in the next.

This is group commit (DeWitt et al., 1984) at the sender's end: the busier the leader, the more
trades share a call, and nobody waits for company. No thread of its own does the sending: the
first trade that finds the line idle sends, and who has sent wakes the next to do so. A call
that takes long is overtaken: behind a slow disk trades shall collect at the leader, not here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from common.domain import MAX_TRADES_PER_CALL, Trade
from common.errors import BourseError, OutcomeUnknown
from frontend.model import Decision

# For a call that is out. While the leader and its disk are well it takes less.
_LONGEST_WAIT_S = 0.05

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
        self._awaited: _Place | None = None  # whose call the others wait for

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
            if self._awaited is None:
                self._awaited = place
                place.turn = _Turn.SENDS
            else:
                self._waiting.append(place)
        if place.turn is not _Turn.SENDS:
            place.wait(min(_LONGEST_WAIT_S, give_up_at - self._clock()))
            self._overtake(place)
        if place.turn is _Turn.SENDS:
            self._send_with_others(place)
        elif place.turn is _Turn.IS_SENT:
            place.wait(give_up_at - self._clock())
        outcome = place.outcome  # who did not wait to the end may find another one the next time
        if isinstance(outcome, Decision):
            return outcome
        raise outcome

    def _overtake(self, place: _Place) -> None:
        """Has a place send that waited for long enough, if its time is not over."""
        with self._changing:
            if place.turn is not _Turn.WAITS:
                return
            self._waiting.remove(place)
            if self._clock() < place.give_up_at:
                self._awaited = place
                place.turn = _Turn.SENDS
            else:
                place.outcome = NotSent(OutcomeUnknown())

    def _send_with_others(self, mine: _Place) -> None:
        timeout_s = min(self._call_timeout_s, mine.give_up_at - self._clock())
        # A call that ends with its sender's time would end for all who went along.
        room = MAX_TRADES_PER_CALL - 1 if timeout_s == self._call_timeout_s else 0
        with self._changing:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), room))]
            for place in others:
                place.turn = _Turn.IS_SENT
        try:
            self._send_all([mine, *others], timeout_s)
        finally:
            for place in others:
                place.end()

    def _send_all(self, places: Sequence[_Place], timeout_s: float) -> None:
        sender, trades = places[0], [place.trade for place in places]
        try:
            outcomes = self._send(trades, timeout_s)
        except BourseError as failure:
            self._dismiss(sender, failure)
            _note(places, [failure] * len(places))
            return
        except BaseException:
            self._dismiss(sender, OutcomeUnknown())
            raise
        self._go_on(sender)
        _note(places, outcomes)  # for whoever cannot wait until they are settled
        _note(places, self._settle(trades, outcomes))

    def _go_on(self, sender: _Place) -> None:
        """Has the next one send, unless this call was overtaken."""
        with self._changing:
            if self._awaited is sender:
                self._awaited = self._waiting.popleft() if self._waiting else None
                if self._awaited is not None:
                    self._awaited.wake(_Turn.SENDS)

    def _dismiss(self, sender: _Place, failure: BourseError) -> None:
        """Who waited for this call shall not be the next to find out that this leader is gone."""
        with self._changing:
            if self._awaited is sender:
                self._awaited = None
                while self._waiting:
                    self._waiting.popleft().dismiss(failure)


def _note(places: Sequence[_Place], outcomes: Sequence[Outcome]) -> None:
    for place, outcome in zip(places, outcomes, strict=True):
        place.outcome = outcome
