"""A trade, start to end: decide → invalidate → wait → answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from common.domain import Trade
from common.errors import OutcomeUnknown
from frontend.model import DONE, Decision

# Counted from the request's arrival. Every request is answered within 10 s. A trade that is not
# safe by then is answered as unknown.
_SAFE_WITHIN_S = 9.5


class Leader(Protocol):
    def decide(self, trade: Trade, arrived_at: float) -> Decision:
        """The decision on the trade. Raises the errors of `frontend.model.Trades`."""


class Invalidation(Protocol):
    def invalidate(self, name: str, version: int, until: float) -> bool:
        """Whether Redis confirmed, before `until`, that no older version can be read."""


class Trading:
    """Has a trade decided, and holds its answer back until no lookup can find an older quote.

    An old entry in the cache was filled under a lease that the catalog knew when it decided the
    trade. When Redis confirms the invalidation, the entry is gone. When the lease has run out, the
    entry has expired, whatever happened to Redis.

    Args:
        clock: seconds, monotonic.
        sleep: takes seconds.
    """

    def __init__(
        self,
        leader: Leader,
        invalidation: Invalidation,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._leader = leader
        self._invalidation = invalidation
        self._clock = clock
        self._sleep = sleep

    def trade(self, trade: Trade, elapsed_s: float) -> Decision:
        """As `frontend.model.Trades.trade`. A repeat of a done trade waits for the cache too,
        because its first copy may not have waited."""
        arrived_at = self._clock() - elapsed_s
        decision = self._leader.decide(trade, arrived_at)
        if decision.status == DONE:
            # Without it, a stale quote follows a 200 ("lease wait": test_failure_table.py).
            lease_ends_at = self._clock() + decision.lease_ms / 1000
            until = min(lease_ends_at, arrived_at + _SAFE_WITHIN_S)
            if not self._invalidation.invalidate(trade.name, decision.version, until):
                self._wait(until)
                if until < lease_ends_at:
                    raise OutcomeUnknown
        return decision

    def _wait(self, until: float) -> None:
        while (left_s := until - self._clock()) > 0:
            self._sleep(left_s)
