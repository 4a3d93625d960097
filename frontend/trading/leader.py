"""The leader as the frontend sees it: one call that gets a trade decided, even if leaders die."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from common import logs
from common.domain import MAX_TRADES_PER_CALL, Trade
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
from common.retries import Backoff
from common.rpc_client import Conversation
from common.wire import trade_to_request
from frontend.model import Decision
from frontend.trading.batching import BatchSender, NotSent
from frontend.trading.election import CatalogDown, Election, Leadership, NoLeader
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(first_s=0.02, longest_s=0.4)

# The time limit of one call. A connection can die silently. Without this limit a call over it would
# last as long as its trades may, and later trades would wait for it.
_LONGEST_CALL_S = 2.0
# Trades in one sender's queue: at most one for each thread, and some whose thread has given up.
_QUEUE_LIMIT = 256

# When the only catalog has been away for this long, new trades fail at once. Earlier trades wait,
# because it may return. If all trades waited, no thread would be left for reads.
RIDE_OUT_S = 1.0

# The edge repeats a request after 3 s of silence, and then little of its time may be left. A repeat
# has time for an election all the same, and an answer is still there within 10 s.
# Without it, two faults at once are an error ("a repeat's time": test_leader_budget.py).
_REPEAT_S = 2.5
_LATEST_S = 8.0

# A repeat cannot change these answers for one trade. After any other error it is sent again.
# Without it, a dead leader is an error ("repeat at the next leader": test_failure_table.py).
_FINAL = (KeyReused, InvalidRequest, Internal)
# These errors say that this copy was not executed. All others leave the outcome unknown.
_NOT_EXECUTED = (NotLeader, Busy)

Sender = BatchSender[Trade, Decision]


class LeaderClient:
    """Sends a trade to the leader, and again under the same request id until it is decided.

    A repeat is safe even if an earlier copy was executed: the catalog decides each request id once.

    Trades for one leader share its calls, one call at a time. A leader that is late is asked
    whether it still leads, and if it does, the call goes on. So an overloaded leader is not taken
    for dead, and does not get more copies to decide.

    Args:
        patience_s: how long to wait for an answer before asking whether the leader still leads.
        decision_timeout_s: how long `decide` may take, from the request's arrival. A request that
            came long ago gets 2.5 s, but none after 8 s.
        clock: seconds, monotonic.
        pause: waits between two attempts; takes seconds.
        longest_call_s: the time limit of one call.
        ride_out_s: for so long after the catalog went away, new trades still wait for it.
    """

    def __init__(
        self,
        election: Election,
        patience_s: float,
        decision_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        *,
        longest_call_s: float = _LONGEST_CALL_S,
        ride_out_s: float = RIDE_OUT_S,
    ) -> None:
        self._election = election
        self._patience_s = patience_s
        self._decision_timeout_s = decision_timeout_s
        self._clock = clock
        self._pause = pause
        self._longest_call_s = longest_call_s
        self._ride_out_s = ride_out_s
        self._senders: dict[int, tuple[int, Sender]] = {}  # by replica, with the epoch it led
        self._changing = threading.Lock()

    def decide(self, trade: Trade, arrived_at: float) -> Decision:
        """The catalog's decision on the trade.

        Args:
            arrived_at: when the request came, on this object's clock.

        Raises:
            KeyReused: the request id was decided for another trade.
            Internal: this trade alone failed, and was not executed.
            OutcomeUnknown: the time is over. A copy may have executed, or may still execute.
            Unavailable: the time is over. No copy from here was executed.
        """
        repeat_ends_at = self._clock() + min(_REPEAT_S, self._decision_timeout_s)
        give_up_at = max(
            arrived_at + self._decision_timeout_s, min(repeat_ends_at, arrived_at + _LATEST_S)
        )
        doubted: Leadership | None = None
        failures, is_gone, in_doubt = 0, False, False
        while self._clock() < give_up_at:
            failures += 1
            try:
                leader = self._election.find(doubted, give_up_at, is_gone=is_gone)
            except NoLeader as error:
                logger.info("no leader: %s", error.message)
                if isinstance(error, CatalogDown) and arrived_at > error.since + self._ride_out_s:
                    break
                self._back_off(failures, give_up_at)
                continue
            try:
                return self._ask(leader, trade, give_up_at)
            except _FINAL as error:
                if in_doubt and isinstance(error, Internal):
                    break  # this copy failed, but an earlier one may still be executed
                raise
            except NotSent as not_sent:
                failure = not_sent.cause
            except BourseError as error:
                failure = error
                in_doubt = in_doubt or not isinstance(error, _NOT_EXECUTED)
            logger.info("%s, epoch %d: %s", leader.peer, leader.epoch, failure.message)
            is_gone = isinstance(failure, Unavailable)
            doubted = None if isinstance(failure, Busy) else leader
            # After a first failure another replica can be asked at once.
            if failures > 1 or isinstance(failure, _NOT_EXECUTED):
                self._back_off(failures, give_up_at)
        if in_doubt:
            raise OutcomeUnknown
        raise Unavailable("no order replica can take trades now")

    def close(self) -> None:
        with self._changing:
            for _, sender in self._senders.values():
                sender.close()

    def _ask(self, leader: Leadership, trade: Trade, give_up_at: float) -> Decision:
        """This leader's decision. Waits for a slow leader as long as it leads.

        Raises:
            NotSent: the leader got no copy from here.
            BourseError: the leader's answer. OutcomeUnknown: it did not answer in time, or
                another replica leads.
        """
        sender = self._sender_to(leader)
        answer = sender.put(trade, give_up_at)
        while (left_s := give_up_at - self._clock()) > 0:
            try:
                return answer.result(min(self._patience_s, left_s))
            except TimeoutError:
                confirmed = self._confirmed(leader, give_up_at)
                if confirmed is None:
                    sender.dismiss(OutcomeUnknown())
                    break
                leader = confirmed
        if answer.cancel():
            raise NotSent(OutcomeUnknown())
        try:
            return answer.result(0)
        except TimeoutError:
            raise OutcomeUnknown from None

    def _confirmed(self, leader: Leadership, give_up_at: float) -> Leadership | None:
        """The leadership if it still holds; None if another replica leads, or none."""
        if self._clock() >= give_up_at:
            return leader
        try:
            found = self._election.find(leader, give_up_at)
        except NoLeader:
            return None
        return found if found == leader else None

    def _sender_to(self, leader: Leadership) -> Sender:
        """The replica's sender. It gets a new one when it leads in a newer epoch, because a call
        of the epoch before may still be out."""
        replica_id = leader.peer.replica_id
        with self._changing:
            epoch, sender = self._senders.get(replica_id, (0, None))
            if sender is None or leader.epoch > epoch:
                if sender is not None:
                    sender.close()
                sender = self._new_sender(leader.peer)
                self._senders[replica_id] = leader.epoch, sender
            return sender

    def _new_sender(self, peer: ReplicaPeer) -> Sender:
        trades = peer.conversation("Trades", "TradeBatch")
        return BatchSender(
            f"trades-{peer.replica_id}",
            partial(_send, trades, self._longest_call_s),
            batch_limit=MAX_TRADES_PER_CALL,
            queue_limit=_QUEUE_LIMIT,
            clock=self._clock,
            on_end=trades.close,
        )

    def _back_off(self, failures: int, give_up_at: float) -> None:
        self._pause(max(0.0, min(_BACKOFF.pause_s(failures), give_up_at - self._clock())))


def _send(
    leader: Conversation, longest_s: float, trades: Sequence[Trade], timeout_s: float
) -> list[Decision | BourseError]:
    """One call to a leader; raises BourseError when it failed for all of them."""
    logs.request_id.set(trades[0].request_id)
    timeout_s = min(longest_s, timeout_s)
    batch = bourse_pb2.TradeBatchRequest(
        trades=map(trade_to_request, trades), timeout_ms=round(timeout_s * 1000)
    )
    try:
        outcomes = leader.ask(batch, timeout_s).outcomes
    except _FINAL as error:
        # It is the error of the whole call, so it decides none of its trades.
        raise OutcomeUnknown from error
    return [_outcome(message) for message in outcomes]


def _outcome(message: bourse_pb2.TradeOutcome) -> Decision | BourseError:
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
