"""A trade, start to end: decided by the leader, then safe to acknowledge."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from common.domain import Trade
from frontend.model import DONE, Decision

# With it a trade that was decided is answered within 10 s, or not as done.
_SAFE_WITHIN_S = 9.5


class Leader(Protocol):
    def decide(self, trade: Trade, waited_s: float) -> Decision:
        """How the trade was decided; raises what `frontend.model.Trades` raises."""


class Safety(Protocol):
    def wait_until_safe(
        self, name: str, version: int, lease_ms: int, answered_at: float, give_up_at: float
    ) -> None:
        """Returns once no lookup can find the stock as it was before `version`; raises
        OutcomeUnknown if that takes too long."""


class AcknowledgedTrades:
    """Every trade that was done, a repeat too, waits for the cache before it is acknowledged."""

    def __init__(
        self, leader: Leader, safety: Safety, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._leader = leader
        self._safety = safety
        self._clock = clock

    def trade(self, trade: Trade, elapsed_s: float) -> Decision:
        give_up_at = self._clock() - elapsed_s + _SAFE_WITHIN_S
        decision = self._leader.decide(trade, elapsed_s)
        if decision.status == DONE:
            answered_at = self._clock()
            self._safety.wait_until_safe(
                trade.name, decision.version, decision.lease_ms, answered_at, give_up_at
            )
        return decision
