"""The gRPC face of a replica: it translates, the parts behind it decide."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import grpc

from common import domain, logs
from common.domain import MAX_EPOCH, MAX_REQUEST_ID_LENGTH, MAX_TRADES_PER_CALL, Order
from common.errors import (
    BourseError,
    Damaged,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
    number_of,
)
from common.on_change import OnChange
from common.rpc_server import Slots
from common.wire import TYPE_NUMBERS, order_to_item, orders_from_items, trade_from_request
from order.leadership.node import Node
from order.leadership.promotion import Promotion
from order.leadership.replica import LEADING, Gap
from order.log.ledger import AppendFailed, Ledger
from order.log.log import OrderLog
from order.log.replication import Replicator
from order.settings import CallLimits
from order.trading.publisher import Publisher, UpdateHub
from order.trading.queue import PendingTrade, TradeAnswer, TradeQueue
from proto import bourse_pb2, bourse_pb2_grpc

logger = logging.getLogger(__name__)

# A trade keeps its thread no longer than this, even if its caller would wait.
_DEFAULT_DEADLINE_S = 5.0
# An answer takes this long to travel back to a caller that has a deadline.
_ANSWER_MARGIN_S = 0.02
_INVALID = -1


class OrderServicer(bourse_pb2_grpc.OrderServiceServicer):
    def __init__(
        self,
        *,
        node: Node,
        log: OrderLog,
        ledger: Ledger,
        queue: TradeQueue,
        promotion: Promotion,
        replica_ids: Collection[int],
        replicator: Replicator,
        hub: UpdateHub,
        stream_publisher: Publisher,
        limits: CallLimits,
        is_ready: Callable[[], bool],
        check_orders: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._node = node
        self._log = log
        self._ledger = ledger
        self._queue = queue
        self._promotion = promotion
        self._replica_ids = frozenset(replica_ids)
        self._replicator = replicator
        self._hub = hub
        self._stream_publisher = stream_publisher
        # When the disk hangs, all of these calls wait. GetLeader must still find a thread.
        self._trades = Slots(limits.trades, "too many trades at once")
        self._trade_streams = Slots(limits.trade_streams, "too many streams of trades at once")
        self._lookups = Slots(limits.lookups, "too many lookups at once")
        self._appends = Slots(limits.appends, "too many appends at once")
        self._saves = Slots(limits.saves, "too many saves at once")
        self._log_streams = Slots(limits.streams, "too many streams at once")
        self._update_streams = Slots(limits.streams, "too many streams at once")
        self._is_ready = is_ready
        self._check_orders = check_orders
        self._is_stopping = is_stopping
        self._refusing = OnChange(logger)  # a leader sends its rows again and again
        self._replica_id = node.view().replica_id
        self._invalid = bourse_pb2.TradeResponse(
            status=_INVALID, transaction_number=-1, replica_id=self._replica_id
        )

    # ------------------------------------------------------------ trades

    def Trade(
        self, request: bourse_pb2.TradeRequest, context: grpc.ServicerContext
    ) -> bourse_pb2.TradeResponse:
        (outcome,) = self._outcomes([request], _time_left_s(context))
        if isinstance(outcome, BourseError):
            raise outcome
        return outcome

    def TradeBatch(
        self, request: bourse_pb2.TradeBatchRequest, context: grpc.ServicerContext
    ) -> bourse_pb2.TradeBatchResponse:
        return self._batch(request, _time_left_s(context))

    def Trades(
        self, requests: Iterator[bourse_pb2.TradeBatchRequest], context: grpc.ServicerContext
    ) -> Iterator[bourse_pb2.TradeBatchResponse]:
        with self._trade_streams.taken():
            for request in requests:
                logs.request_id.set(_first_id(request))
                yield self._batch(request, min(request.timeout_ms / 1000, _DEFAULT_DEADLINE_S))

    def _batch(
        self, request: bourse_pb2.TradeBatchRequest, time_left_s: float
    ) -> bourse_pb2.TradeBatchResponse:
        if len(request.trades) > MAX_TRADES_PER_CALL:
            raise InvalidRequest(f"more than {MAX_TRADES_PER_CALL} trades in one call")
        return bourse_pb2.TradeBatchResponse(
            outcomes=map(_outcome_message, self._outcomes(request.trades, time_left_s)),
            replica_id=self._replica_id,
        )

    def _outcomes(
        self, requests: Sequence[bourse_pb2.TradeRequest], time_left_s: float
    ) -> list[bourse_pb2.TradeResponse | BourseError]:
        """One for each trade, in order."""
        trades = [_trade(request) for request in requests]
        well_formed = [trade for trade in trades if trade is not None]
        outcomes = iter(self._decide(well_formed, time_left_s))
        return [
            self._response(next(outcomes)) if trade is not None else self._invalid
            for trade in trades
        ]

    def _decide(
        self, trades: Sequence[domain.Trade], time_left_s: float
    ) -> list[TradeAnswer | BourseError]:
        if not trades:
            return []
        if self._node.view().role not in LEADING:
            raise NotLeader(f"replica {self._replica_id} is not the leader")
        deadline_s = time.monotonic() + time_left_s - _ANSWER_MARGIN_S
        pending = [PendingTrade(trade, deadline_s) for trade in trades]
        with self._trades.taken():
            self._queue.put(*pending)
            outcomes = [one.result(deadline_s - time.monotonic()) for one in pending]
        for trade, outcome in zip(trades, outcomes, strict=True):
            logger.debug("%s: %s", trade, outcome, extra={"request_id": trade.request_id})
        return outcomes

    def _response(
        self, outcome: TradeAnswer | BourseError
    ) -> bourse_pb2.TradeResponse | BourseError:
        if isinstance(outcome, BourseError):
            return outcome
        elapsed_ms = int((time.monotonic() - outcome.decided_at_s) * 1000)
        return bourse_pb2.TradeResponse(
            status=outcome.status,
            transaction_number=outcome.number,
            version=outcome.version,
            lease_ms=max(0, outcome.lease_ms - elapsed_ms),
            replayed=outcome.replayed,
            replica_id=self._replica_id,
        )

    # ------------------------------------------------------------ the log

    def OrderLookup(
        self, request: bourse_pb2.OrderLookupRequest, context: grpc.ServicerContext
    ) -> bourse_pb2.OrderLookupResponse:
        self._check_orders()
        with self._lookups.taken():
            order = self._log.row(request.number) if request.number >= 1 else None
        if order is None:
            return bourse_pb2.OrderLookupResponse(
                status=0, number=request.number, replica_id=self._replica_id
            )
        return bourse_pb2.OrderLookupResponse(
            status=1,
            number=order.number,
            name=order.name,
            type=TYPE_NUMBERS[order.type],
            quantity=order.quantity,
            replica_id=self._replica_id,
        )

    def Save(
        self, request: bourse_pb2.Empty, context: grpc.ServicerContext
    ) -> bourse_pb2.SaveResponse:
        try:
            with self._saves.taken():
                last_number = self._log.save()
        except OSError as error:
            raise Unavailable(f"cannot write the log as text: {error}") from error
        return bourse_pb2.SaveResponse(replica_id=self._replica_id, last_number=last_number)

    def SyncOrderRequest(
        self, request: bourse_pb2.OrderDBItem, context: grpc.ServicerContext
    ) -> bourse_pb2.SyncResponse:
        return self.SyncOrderBatch(bourse_pb2.OrderBatch(rows=[request]), context)

    def SyncOrderBatch(
        self, request: bourse_pb2.OrderBatch, context: grpc.ServicerContext
    ) -> bourse_pb2.SyncResponse:
        try:
            self._ledger.check_cluster(request.cluster_id)
            if request.leader_id:
                self._hear_of(request.leader_id, request.epoch)
            with self._appends.taken():
                rows = orders_from_items(request.rows)
                appended = self._ledger.append(rows, request.cluster_id)
            self._stream_publisher.publish(appended)
            if appended:
                self._refusing.over("taking rows of leader %d again", request.leader_id)
        except ValueError as error:
            raise InvalidRequest(f"no row of a log: {error}") from error
        except Gap:
            logger.info("rows up to %d are missing here", request.rows[0].number - 1)
        except AppendFailed as failure:
            raise Unavailable(f"cannot append: {failure}") from failure
        except Damaged as error:
            # This replica cannot tell which side is wrong, so it takes no row of that leader.
            self._refusing.trouble(
                "refused rows of leader %d: %s. See OPERATIONS.md, Damage and loss",
                request.leader_id,
                error,
                cause=(request.leader_id, error.message),
                level=logging.CRITICAL,
            )
            raise
        return bourse_pb2.SyncResponse(
            replica_id=self._replica_id,
            last_number=self._node.view().position,
            catching_up=not self._is_ready(),
        )

    def SyncOrderDB(
        self, request: bourse_pb2.SyncRequest, context: grpc.ServicerContext
    ) -> Iterator[bourse_pb2.OrderDBItem]:
        for rows in self._chunks(request):
            for row in rows:
                yield order_to_item(row)

    def SyncOrderDBBatch(
        self, request: bourse_pb2.SyncRequest, context: grpc.ServicerContext
    ) -> Iterator[bourse_pb2.OrderBatch]:
        for rows in self._chunks(request):
            yield bourse_pb2.OrderBatch(
                rows=map(order_to_item, rows), cluster_id=self._ledger.cluster_id
            )

    def _chunks(self, request: bourse_pb2.SyncRequest) -> Iterator[list[Order]]:
        self._check_orders()
        left = request.limit if request.limit > 0 else None
        with self._log_streams.taken():
            for rows in self._log.chunks(max(0, request.last_number)):
                yield rows[:left]
                if left is not None and (left := left - len(rows)) <= 0:
                    return

    def StreamDBUpdates(
        self, request: bourse_pb2.Empty, context: grpc.ServicerContext
    ) -> Iterator[bourse_pb2.CacheInvalidateRequest]:
        with self._update_streams.taken(), self._hub.subscribe() as stream:
            while context.is_active() and not self._is_stopping():
                if (change := stream.take()) is not None:
                    yield bourse_pb2.CacheInvalidateRequest(name=change[0], version=change[1])

    # ------------------------------------------------------------ leadership

    def IsAlive(
        self, request: bourse_pb2.Empty, context: grpc.ServicerContext
    ) -> bourse_pb2.AliveResponse:
        return bourse_pb2.AliveResponse(
            replica_id=self._replica_id, last_number=self._node.view().position
        )

    def GetLeader(
        self, request: bourse_pb2.Empty, context: grpc.ServicerContext
    ) -> bourse_pb2.GetLeaderResponse:
        view = self._node.view()
        return bourse_pb2.GetLeaderResponse(
            replica_id=self._replica_id, leader_id=view.leader_id, epoch=view.epoch
        )

    def SetLeader(
        self, request: bourse_pb2.SetLeaderRequest, context: grpc.ServicerContext
    ) -> bourse_pb2.SetLeaderResponse:
        if request.leader_id == self._replica_id:
            self._check_epoch(request.epoch)
            if _time_left_s(context) <= 0:
                raise OutcomeUnknown("the caller has gone on to another candidate")
            self._promotion.lead(request.epoch)
        else:
            self._hear_of(request.leader_id, request.epoch)
        view = self._node.view()
        return bourse_pb2.SetLeaderResponse(
            replica_id=self._replica_id, leader_id=view.leader_id, epoch=view.epoch
        )

    def Status(
        self, request: bourse_pb2.Empty, context: grpc.ServicerContext
    ) -> bourse_pb2.StatusResponse:
        view = self._node.view()
        return bourse_pb2.StatusResponse(
            replica_id=view.replica_id,
            role=view.role.value,
            epoch=view.epoch,
            leader_id=view.leader_id,
            last_number=view.position,
            digest=view.digest,
            in_sync=self._replicator.in_sync(),
            ready=self._is_ready(),
            cluster_id=self._ledger.cluster_id,
        )

    def _check_epoch(self, epoch: int) -> None:
        if not 0 <= epoch <= MAX_EPOCH:
            raise InvalidRequest(f"there can be no epoch {epoch}")

    def _hear_of(self, leader_id: int, epoch: int) -> None:
        self._check_epoch(epoch)
        if leader_id not in self._replica_ids:
            raise InvalidRequest(f"there is no replica {leader_id}")
        self._node.step(
            lambda replica: replica.hear_of(leader_id, epoch), f"replica {leader_id} leads"
        )


def _trade(request: bourse_pb2.TradeRequest) -> domain.Trade | None:
    """The requested trade; None if no such trade is possible."""
    trade = trade_from_request(request)
    if not trade.request_id:
        trade = replace(trade, request_id=str(uuid.uuid4()))
    return trade if trade.is_well_formed() else None


def _first_id(request: bourse_pb2.TradeBatchRequest) -> str:
    """For the log; a trade that is not well-formed can have any."""
    identifier = request.trades[0].request_id if request.trades else ""
    return identifier[:MAX_REQUEST_ID_LENGTH] or "-"


def _outcome_message(
    outcome: bourse_pb2.TradeResponse | BourseError,
) -> bourse_pb2.TradeOutcome:
    if isinstance(outcome, BourseError):
        failure = bourse_pb2.TradeFailure(
            grpc_status=number_of(outcome.grpc_status), message=outcome.message
        )
        return bourse_pb2.TradeOutcome(failure=failure)
    return bourse_pb2.TradeOutcome(response=outcome)


def _time_left_s(context: grpc.ServicerContext) -> float:
    # Without a deadline gRPC gives a very long time, or None.
    time_left_s = context.time_remaining()
    return _DEFAULT_DEADLINE_S if time_left_s is None else min(time_left_s, _DEFAULT_DEADLINE_S)
