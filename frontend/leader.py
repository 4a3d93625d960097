"""The leader as the frontend sees it: one call that gets a trade decided, whoever dies."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from common.errors import (
    BourseError,
    Busy,
    Internal,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
)
from common.records import Trade
from frontend.election import CatalogDown, Election, Leadership
from frontend.model import Decision
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.4

# Who asks when the catalog has been away for longer than this is told at once. Whoever came
# before may see it return; were all to wait, nobody else would find a thread.
_RIDE_OUT_S = 1.0

# What no repeat can change. All else is sent again.
# Needed ("repeat at the next leader"): test_failure_table.py.
_FINAL = (KeyReused, InvalidRequest, Internal)
# What says that this copy was not executed. All else leaves the outcome unknown.
_NOT_EXECUTED = (NotLeader, Busy)


class LeaderClient:
    """Sends a trade to the leader, and again under the same request id until it is decided.

    That is safe whatever became of the earlier copies: the catalog decides each request id once.
    """

    def __init__(
        self,
        election: Election,
        attempt_timeout_s: float,
        decision_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._election = election
        self._attempt_timeout_s = attempt_timeout_s
        self._decision_timeout_s = decision_timeout_s
        self._clock = clock
        self._pause = pause

    def decide(self, trade: Trade, waited_s: float = 0.0) -> Decision:
        """The catalog's decision on the trade.

        Args:
            waited_s: how much of the time for it has passed already.

        Raises:
            KeyReused: the request id was decided for another trade.
            Internal: the trade failed by itself and was not executed.
            OutcomeUnknown: the time is over; a copy may have been executed, or may yet be.
            Unavailable: the time is over; no copy was executed.
        """
        asked_at = self._clock() - waited_s
        give_up_at = asked_at + self._decision_timeout_s
        failed: Leadership | None = None
        is_gone = in_doubt = False
        attempt = 0
        while self._clock() < give_up_at:
            try:
                leader = self._election.find(failed, give_up_at, is_gone=is_gone)
            except Unavailable as error:
                logger.info("no leader: %s", error.message)
                if isinstance(error, CatalogDown) and asked_at > error.since + _RIDE_OUT_S:
                    break
                self._back_off(attempt, give_up_at)
                attempt += 1
                continue
            timeout_s = min(self._attempt_timeout_s, give_up_at - self._clock())
            if timeout_s <= 0:
                break
            try:
                return self._send(leader, trade, timeout_s)
            except _FINAL:
                raise
            except BourseError as error:
                logger.info("%s, epoch %d: %s", leader.peer, leader.epoch, error.message)
                in_doubt = in_doubt or not isinstance(error, _NOT_EXECUTED)
                is_gone = isinstance(error, Unavailable)
                failed = None if isinstance(error, Busy) else leader
                # After a first failure there is somebody else to ask, at once.
                if attempt > 0 or isinstance(error, _NOT_EXECUTED):
                    self._back_off(attempt, give_up_at)
                attempt += 1
        if in_doubt:
            raise OutcomeUnknown
        raise Unavailable("no order replica can take trades now; this one was not executed")

    def _send(self, leader: Leadership, trade: Trade, timeout_s: float) -> Decision:
        request = bourse_pb2.TradeRequest(
            request_id=trade.request_id,
            name=trade.name,
            type=bourse_pb2.TradeType.Value(trade.type),
            quantity=trade.quantity,
        )
        answer = leader.peer.call("Trade", request, timeout_s)
        return Decision(
            status=answer.status,
            number=answer.transaction_number,
            version=answer.version,
            lease_ms=answer.lease_ms,
            replayed=answer.replayed,
        )

    def _back_off(self, attempt: int, give_up_at: float) -> None:
        """Full jitter, so that the workers of all frontends do not come back at once."""
        longest_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt)
        pause_s = random.uniform(0, longest_s)  # noqa: S311 - not a secret
        self._pause(max(0.0, min(pause_s, give_up_at - self._clock())))
