"""The leader as the frontend sees it: one call that gets a trade decided, whoever dies."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from common.domain import Trade
from common.errors import (
    BourseError,
    Busy,
    Internal,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
    from_number,
)
from common.replicas import ReplicaPeer
from common.wire import trade_to_request
from frontend.model import Decision
from frontend.trading.batching import Line, NotSent, Outcome, Settle
from frontend.trading.election import CatalogDown, Election, Leadership
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.4

# Who asks when the catalog has been away for longer than this is told at once. Whoever came
# before may see it return; were all to wait, nobody else would find a thread.
_RIDE_OUT_S = 1.0

# What no repeat can change. All else is sent again.
# Without it, a dead leader is an error ("repeat at the next leader": test_failure_table.py).
_FINAL = (KeyReused, InvalidRequest, Internal)
# What says that this copy was not executed. All else leaves the outcome unknown.
_NOT_EXECUTED = (NotLeader, Busy)


def _as_they_are(_trades: Sequence[Trade], outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    return outcomes


class LeaderClient:
    """Sends a trade to the leader, and again under the same request id until it is decided.

    That is safe whatever became of the earlier copies: the catalog decides each request id once.

    Args:
        attempt_timeout_s: of one call to a leader.
        decision_timeout_s: of `decide`.
        settle: see `Line`.
    """

    def __init__(
        self,
        election: Election,
        attempt_timeout_s: float,
        decision_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        *,
        settle: Settle = _as_they_are,
    ) -> None:
        self._election = election
        self._attempt_timeout_s = attempt_timeout_s
        self._decision_timeout_s = decision_timeout_s
        self._clock = clock
        self._pause = pause
        self._settle = settle
        self._line: tuple[Line | None, Leadership | None] = None, None

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
            if self._clock() >= give_up_at:
                break
            try:
                return self._line_to(leader).trade(trade, give_up_at)
            except _FINAL:
                raise
            except NotSent as not_sent:
                failure, may_be_executed = not_sent.cause, False
            except BourseError as error:
                failure, may_be_executed = error, not isinstance(error, _NOT_EXECUTED)
            logger.info("%s, epoch %d: %s", leader.peer, leader.epoch, failure.message)
            in_doubt = in_doubt or may_be_executed
            is_gone = isinstance(failure, Unavailable)
            failed = None if isinstance(failure, Busy) else leader
            # After a first failure there is somebody else to ask, at once.
            if attempt > 0 or isinstance(failure, _NOT_EXECUTED):
                self._back_off(attempt, give_up_at)
            attempt += 1
        if in_doubt:
            raise OutcomeUnknown
        raise Unavailable("no order replica can take trades now; this one was not executed")

    def _line_to(self, leader: Leadership) -> Line:
        line, its_leader = self._line
        if line is None or its_leader is not leader:
            # Two threads may get here at once; the trades that follow share the line made last.
            send = partial(_send, leader.peer)
            line = Line(send, self._settle, self._clock, self._attempt_timeout_s)
            self._line = line, leader
        return line

    def _back_off(self, attempt: int, give_up_at: float) -> None:
        """Full jitter, so that the workers of all frontends do not come back at once."""
        longest_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt)
        pause_s = random.uniform(0, longest_s)  # noqa: S311 - not a secret
        self._pause(max(0.0, min(pause_s, give_up_at - self._clock())))


def _send(peer: ReplicaPeer, trades: Sequence[Trade], timeout_s: float) -> Sequence[Outcome]:
    """One call to a leader; raises BourseError when it failed for all of them."""
    requests = [trade_to_request(trade) for trade in trades]
    try:
        if len(requests) == 1:
            return [_decision(peer.call("Trade", requests[0], timeout_s))]
        batch = bourse_pb2.TradeBatchRequest(trades=requests)
        outcomes = peer.call("TradeBatch", batch, timeout_s).outcomes
    except _FINAL as error:
        if len(requests) == 1:
            return [error]
        # Said of the call, it is none of them in particular that it is final for.
        raise OutcomeUnknown from error
    if len(outcomes) != len(requests):
        logger.error("%d outcomes of %d trades from %s", len(outcomes), len(requests), peer)
        raise OutcomeUnknown
    return [_outcome(message) for message in outcomes]


def _outcome(message: bourse_pb2.TradeOutcome) -> Outcome:
    match message.WhichOneof("outcome"):
        case "response":
            return _decision(message.response)
        case "failure":
            return from_number(message.failure.grpc_status, message.failure.message)
    return OutcomeUnknown()


def _decision(answer: bourse_pb2.TradeResponse) -> Decision:
    return Decision(
        status=answer.status,
        number=answer.transaction_number,
        version=answer.version,
        lease_ms=answer.lease_ms,
        replayed=answer.replayed,
    )
