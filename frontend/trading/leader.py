"""The leader as the frontend sees it: one call that gets a trade decided, whoever dies."""

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
from common.wire import trade_to_request
from frontend.model import Decision
from frontend.trading.batching import BatchSender, NotSent
from frontend.trading.election import CatalogDown, Election, Leadership, NoLeader
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(first_s=0.02, longest_s=0.4)

# Of one call. Over a connection that died without a word it would last as long as its trades, and
# keep the next ones from a newer connection.
_LONGEST_CALL_S = 2.0
# Of one sender. At most one trade waits for each thread, and some whose thread has given up.
_QUEUE_LIMIT = 256

# Who comes when the catalog has been away for longer than this is told at once. Whoever came
# before may see it return; if all waited, no thread would be left for reads.
_RIDE_OUT_S = 1.0

# What the leader says of one trade and no repeat can change. All else is sent again.
# Without it, a dead leader is an error ("repeat at the next leader": test_failure_table.py).
_FINAL = (KeyReused, InvalidRequest, Internal)
# What says that this copy was not executed. All else leaves the outcome unknown.
_NOT_EXECUTED = (NotLeader, Busy)

Sender = BatchSender[Trade, Decision]


class LeaderClient:
    """Sends a trade to the leader, and again under the same request id until it is decided.

    That is safe whatever became of the earlier copies: the catalog decides each request id once.

    Trades for one leader share its calls, one call at a time. A leader that is late is asked
    whether it still leads, and if it does, the call goes on. So overload is not taken for death,
    and does not multiply the copies that the leader has to decide.

    Args:
        patience_s: for an answer, before the leader is asked whether it still leads.
        decision_timeout_s: of `decide`.
        clock: seconds, monotonic.
        pause: between two attempts, in seconds.
        longest_call_s: of one call.
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
    ) -> None:
        self._election = election
        self._patience_s = patience_s
        self._decision_timeout_s = decision_timeout_s
        self._clock = clock
        self._pause = pause
        self._longest_call_s = longest_call_s
        self._senders: dict[int, tuple[int, Sender]] = {}  # by replica, with the epoch it led
        self._changing = threading.Lock()

    def decide(self, trade: Trade, arrived_at: float) -> Decision:
        """The catalog's decision on the trade.

        Args:
            arrived_at: when the request came, on this object's clock.

        Raises:
            KeyReused: the request id was decided for another trade.
            Internal: the trade failed by itself and was not executed.
            OutcomeUnknown: the time is over; a copy may have been executed, or may yet be.
            Unavailable: the time is over; no copy from here was executed.
        """
        give_up_at = arrived_at + self._decision_timeout_s
        doubted: Leadership | None = None
        failures, is_gone, in_doubt = 0, False, False
        while self._clock() < give_up_at:
            failures += 1
            try:
                leader = self._election.find(doubted, give_up_at, is_gone=is_gone)
            except NoLeader as error:
                logger.info("no leader: %s", error.message)
                if isinstance(error, CatalogDown) and arrived_at > error.since + _RIDE_OUT_S:
                    break
                self._back_off(failures, give_up_at)
                continue
            try:
                return self._ask(leader, trade, give_up_at)
            except _FINAL as error:
                if in_doubt and isinstance(error, Internal):
                    break  # this copy failed, an earlier one may yet be executed
                raise
            except NotSent as not_sent:
                failure = not_sent.cause
            except BourseError as error:
                failure = error
                in_doubt = in_doubt or not isinstance(error, _NOT_EXECUTED)
            logger.info("%s, epoch %d: %s", leader.peer, leader.epoch, failure.message)
            is_gone = isinstance(failure, Unavailable)
            doubted = None if isinstance(failure, Busy) else leader
            # After a first failure there is somebody else to ask, at once.
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
        """What this leader says of the trade, however slow it is, as long as it leads.

        Raises:
            NotSent: it got no copy from here.
            BourseError: what its answer stands for; OutcomeUnknown if there was none in time, or
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
        """The same leadership, found again; None if there is another, or none."""
        if self._clock() >= give_up_at:
            return leader
        try:
            found = self._election.find(leader, give_up_at)
        except NoLeader:
            return None
        return found if found == leader else None

    def _sender_to(self, leader: Leadership) -> Sender:
        """One for each replica, and a new one when it takes office again: the last call of its
        office before may still be out."""
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
        return BatchSender(
            f"trades-{peer.replica_id}",
            partial(_send, peer, self._longest_call_s),
            batch_limit=MAX_TRADES_PER_CALL,
            queue_limit=_QUEUE_LIMIT,
            clock=self._clock,
        )

    def _back_off(self, failures: int, give_up_at: float) -> None:
        self._pause(max(0.0, min(_BACKOFF.pause_s(failures), give_up_at - self._clock())))


def _send(
    peer: ReplicaPeer, longest_s: float, trades: Sequence[Trade], timeout_s: float
) -> list[Decision | BourseError]:
    """One call to a leader; raises BourseError when it failed for all of them."""
    logs.request_id.set(trades[0].request_id)
    batch = bourse_pb2.TradeBatchRequest(trades=map(trade_to_request, trades))
    try:
        outcomes = peer.call("TradeBatch", batch, min(longest_s, timeout_s)).outcomes
    except _FINAL as error:
        # Said of the call as a whole, it is final for none of its trades.
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
