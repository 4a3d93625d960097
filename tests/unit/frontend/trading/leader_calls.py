"""What the tests of the leader's client share: its budgets, its trade and what came of it."""

from __future__ import annotations

from typing import Any

from common.domain import Trade
from common.errors import (
    BourseError,
    Busy,
    Damaged,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    StaleEpoch,
    Unavailable,
    number_of,
)
from frontend.model import Decision
from frontend.trading.leader import LeaderClient
from proto import bourse_pb2
from tests.support.clock import Clock
from tests.support.replica_fakes import Act, Call, Replicas, answers

# On the client's clock, which the tests move. The calls themselves are real and get as long:
# long enough that no stall of the machine makes one fail.
ATTEMPT_S = 15.0
DECISION_S = 90.0
A_WHILE_S = 10.0
HASTY_DECISION_S = 4.5
ROUNDING_S = 0.25  # on the wire a long deadline is a little longer
TRADE = Trade("key-1", "stock1", "SELL", 25)
DONE = Decision(status=1, number=1, version=2, lease_ms=0, replayed=False)

# Whatever the leader says of a copy but a decision, and whether that copy may have been executed.
MAY_BE_REPEATED = [
    (NotLeader, False),
    (Busy, False),
    (Unavailable, True),
    (OutcomeUnknown, True),
    (StaleEpoch, True),
    (Damaged, True),
    (NotFound, True),
]
UNDECIDED = [kind for kind, may_be_executed in MAY_BE_REPEATED if may_be_executed]
NOT_EXECUTED = [kind for kind, may_be_executed in MAY_BE_REPEATED if not may_be_executed]


def decide(client: LeaderClient, elapsed_s: float = 0.0) -> Decision:
    """How the trade was decided, of a request that came so long ago."""
    return client.decide(TRADE, client._clock() - elapsed_s)


def says(*outcomes: bourse_pb2.TradeResponse | BourseError) -> Act:
    """An act: what the leader answers of each trade of a call."""
    messages = [_outcome(outcome) for outcome in outcomes]
    return answers(bourse_pb2.TradeBatchResponse(outcomes=messages, replica_id=3))


def _outcome(outcome: bourse_pb2.TradeResponse | BourseError) -> bourse_pb2.TradeOutcome:
    if isinstance(outcome, BourseError):
        failure = bourse_pb2.TradeFailure(
            grpc_status=number_of(outcome.grpc_status), message=outcome.message
        )
        return bourse_pb2.TradeOutcome(failure=failure)
    return bourse_pb2.TradeOutcome(response=outcome)


def takes(clock: Clock, duration_s: float, act: Act) -> Act:
    """An act that takes its time, on the client's clock."""

    def slow_act(call: Call) -> Any:
        clock.pass_by(duration_s)
        return act(call)

    return slow_act


def trades(replicas: Replicas) -> dict[int, int]:
    """How many copies of the trade have reached each replica."""
    return {replica_id: len(seen) for replica_id, seen in replicas.seen("TradeBatch").items()}
