"""The trades that wait for a batch, and the answer that each of them gets."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from common.domain import Trade
from common.errors import BourseError, Busy, OutcomeUnknown


@dataclass(frozen=True, slots=True)
class TradeAnswer:
    """How the catalog decided a trade."""

    status: int
    number: int  # -1 when not done
    version: int  # of the stock after the trade, 0 when not done
    lease_ms: int  # left of the stock's cache lease when the catalog answered
    decided_at_s: float  # when that answer came, on this process's clock
    replayed: bool

    def __str__(self) -> str:
        return f"status {self.status}, number {self.number}"


@dataclass(slots=True)
class PendingTrade:
    """A trade waiting for its decision until its deadline."""

    trade: Trade
    deadline_s: float
    outcome: Future[TradeAnswer | BourseError] = field(default_factory=Future)

    def result(self, timeout_s: float) -> TradeAnswer | BourseError:
        """How it ended; `OutcomeUnknown` if that is not known within this time."""
        try:
            return self.outcome.result(timeout=max(0.0, timeout_s))
        except TimeoutError:
            return OutcomeUnknown()

    def settle(self, outcome: TradeAnswer | BourseError) -> None:
        self.outcome.set_result(outcome)


class TradeQueue:
    """Where trades collect into the next batch while one is in flight."""

    def __init__(self, capacity: int, batch_limit: int, clock: Callable[[], float]) -> None:
        self._capacity = capacity
        self._batch_limit = batch_limit
        self._clock = clock
        self._waiting: deque[PendingTrade] = deque()
        self._arrived = threading.Condition()
        self._closed = False

    def put(self, *trades: PendingTrade) -> None:
        """Takes all of them, or none and raises Busy."""
        with self._arrived:
            if self._closed:
                raise Busy("stopping")
            if len(self._waiting) + len(trades) > self._capacity:
                raise Busy("too many trades are waiting")
            self._waiting.extend(trades)
            self._arrived.notify()

    def wait(self, timeout_s: float) -> bool:
        """Waits until a trade waits here; False when none came in time."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._closed, timeout_s)
            return bool(self._waiting)

    def gather(self, count: int, timeout_s: float) -> None:
        """Waits until so many trades wait here, but no longer than this."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._waiting) >= count or self._closed, timeout_s)

    def take_batch(self) -> list[PendingTrade]:
        """What waits, oldest first, as far as it fits into a batch.

        A trade whose deadline has passed is not sent: its caller has gone.
        """
        with self._arrived:
            size = min(self._batch_limit, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(size)]
        now = self._clock()
        for late in (pending for pending in taken if pending.deadline_s <= now):
            late.settle(OutcomeUnknown("the deadline passed before the trade was sent"))
        return [pending for pending in taken if pending.deadline_s > now]

    def close(self) -> None:
        """Takes nothing more; what waits is still handed out."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def is_drained(self) -> bool:
        with self._arrived:
            return self._closed and not self._waiting
