"""The catalog's gRPC service: translates messages for the store, and decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import grpc

from catalog.decisions import Decision, Failure
from catalog.stock import Stock
from catalog.store import MAX_CHUNK, Store
from common.domain import Trade, is_valid_name
from common.errors import (
    BourseError,
    Busy,
    Contradiction,
    Internal,
    InvalidRequest,
    KeyReused,
    StaleEpoch,
)
from common.on_change import OnChange
from common.rpc_server import Slots
from common.wire import order_to_item, trade_from_request
from proto import bourse_pb2, bourse_pb2_grpc

logger = logging.getLogger(__name__)

_FAILURES = {
    Failure.NONE: bourse_pb2.UpdateResponse.NONE,
    Failure.MISMATCH: bourse_pb2.UpdateResponse.MISMATCH,
    Failure.INTERNAL: bourse_pb2.UpdateResponse.INTERNAL,
    Failure.FULL: bourse_pb2.UpdateResponse.FULL,
}

# The error of a call that has only one trade, by that trade's failure.
_ERRORS: dict[bourse_pb2.UpdateResponse.Failure.ValueType, Callable[[], BourseError]] = {
    bourse_pb2.UpdateResponse.MISMATCH: KeyReused,
    bourse_pb2.UpdateResponse.INTERNAL: Internal,
    bourse_pb2.UpdateResponse.FULL: partial(
        Busy, "no more refusals can be recorded; this trade was not executed"
    ),
}

# So few rows fit into one message, so a slow reader cannot hold the thread. Looking up one order is
# such a read.
_SHORT_READ_ROWS = 16
_REPLICAS_KEPT = 100


class CatalogService(bourse_pb2_grpc.CatalogServiceServicer):
    """
    Every call takes the store once, when it begins, and stays with it: so it is answered by one
    term of this catalog, or not at all.

    Args:
        current: gives the store of this catalog's term; raises NotActive while there is none.
        max_streams: journal streams served at once; each keeps a thread busy while it lasts.
        max_update_streams: the same of the streams that leaders keep.
    """

    def __init__(
        self, current: Callable[[], Store], max_streams: int, max_update_streams: int
    ) -> None:
        self._current = current
        self._streams = Slots(max_streams, "too many journal streams at once")
        self._update_streams = Slots(max_update_streams, "too many streams of updates at once")
        self._contradictions: dict[int, OnChange] = {}  # by replica

    def Lookup(
        self, request: bourse_pb2.LookupRequest, _context: grpc.ServicerContext
    ) -> bourse_pb2.LookupResponse:
        store = self._reading()
        stock = _find(store, request.name, request.will_fill)
        if stock is None:
            return bourse_pb2.LookupResponse(
                name=request.name, price=-1, volume=-1, cluster_id=store.cluster_id
            )
        return bourse_pb2.LookupResponse(
            name=stock.name,
            price=float(stock.price),
            volume=stock.volume,
            version=stock.version,
            cluster_id=store.cluster_id,
        )

    def _reading(self) -> Store:
        """The store to read from; raises NotActive if what it has may be old."""
        store = self._current()
        store.check_active()
        return store

    def Update(
        self, request: bourse_pb2.UpdateRequest, _context: grpc.ServicerContext
    ) -> bourse_pb2.UpdateResponse:
        store = self._current()
        (result,) = _decide(store, request, [trade_from_request(request)])
        if result.failure in _ERRORS:
            raise _ERRORS[result.failure]()
        result.cluster_id = store.cluster_id
        return result

    def UpdateBatch(
        self, request: bourse_pb2.UpdateBatchRequest, _context: grpc.ServicerContext
    ) -> bourse_pb2.UpdateBatchResponse:
        store = self._current()
        trades = [trade_from_request(trade) for trade in request.trades]
        return bourse_pb2.UpdateBatchResponse(
            results=_decide(store, request, trades), cluster_id=store.cluster_id
        )

    def Updates(
        self, requests: Iterator[bourse_pb2.UpdateBatchRequest], context: grpc.ServicerContext
    ) -> Iterator[bourse_pb2.UpdateBatchResponse]:
        with self._update_streams.taken():
            for request in requests:
                yield self.UpdateBatch(request, context)

    def Fence(
        self, request: bourse_pb2.FenceRequest, _context: grpc.ServicerContext
    ) -> bourse_pb2.FenceResponse:
        store = self._current()
        with self._telling_contradictions(request.leader_id):
            accepted, registered = store.fence(
                request.epoch,
                request.leader_id,
                request.last_number,
                request.digest,
                request.cluster_id,
            )
        logger.info(
            "fence (epoch %d, leader %d) %s; registered is epoch %d of leader %d",
            request.epoch,
            request.leader_id,
            "accepted" if accepted else "refused",
            registered.epoch,
            registered.leader_id,
        )
        return bourse_pb2.FenceResponse(
            accepted=accepted,
            epoch=registered.epoch,
            leader_id=registered.leader_id,
            cluster_id=store.cluster_id,
        )

    def Compare(
        self, request: bourse_pb2.CompareRequest, _context: grpc.ServicerContext
    ) -> bourse_pb2.CompareResponse:
        store = self._reading()
        with self._telling_contradictions(request.replica_id):
            store.compare(request.last_number, request.digest, request.cluster_id)
        return bourse_pb2.CompareResponse(cluster_id=store.cluster_id)

    @contextmanager
    def _telling_contradictions(self, replica_id: int) -> Iterator[None]:
        """Logs that a replica's log contradicts the journal; the same contradiction only once."""
        if replica_id not in self._contradictions and len(self._contradictions) >= _REPLICAS_KEPT:
            self._contradictions.clear()
        said = self._contradictions.setdefault(replica_id, OnChange(logger))
        try:
            yield
        except Contradiction as error:
            said.trouble(
                "the log of replica %d and this catalog do not belong together: %s. "
                "See OPERATIONS.md, Damage and loss",
                replica_id,
                error,
                cause=error.message,
                level=logging.CRITICAL,
            )
            raise
        said.over("the log of replica %d and this catalog belong together again", replica_id)

    def Journal(
        self, request: bourse_pb2.SyncRequest, _context: grpc.ServicerContext
    ) -> Iterator[bourse_pb2.OrderBatch]:
        if request.last_number < 0 or request.limit < 0:
            raise InvalidRequest("last_number and limit are 0 or more")
        store = self._reading()
        is_short = 0 < request.limit <= _SHORT_READ_ROWS
        with nullcontext() if is_short else self._streams.taken():
            yield from _chunks(store, request.last_number, request.limit)

    def ListStocks(
        self, _request: bourse_pb2.Empty, _context: grpc.ServicerContext
    ) -> bourse_pb2.ListStocksResponse:
        store = self._reading()
        return bourse_pb2.ListStocksResponse(
            stocks=[
                bourse_pb2.Stock(
                    name=stock.name,
                    price=float(stock.price),
                    volume=stock.volume,
                    version=stock.version,
                )
                for stock in store.stocks()
            ],
            cluster_id=store.cluster_id,
        )


def _find(store: Store, name: str, will_fill: bool) -> Stock | None:
    if not is_valid_name(name):
        return None
    if will_fill:
        # A trade that commits after the read finds the lease.
        # Without it, the cache keeps an old value ("lease before the read": test_takeovers.py).
        store.leases.grant(name)
    return store.lookup(name)


def _decide(
    store: Store,
    request: bourse_pb2.UpdateRequest | bourse_pb2.UpdateBatchRequest,
    trades: Sequence[Trade],
) -> list[bourse_pb2.UpdateResponse]:
    try:
        decisions = store.update(request.epoch, trades, request.cluster_id)
    except (StaleEpoch, Contradiction) as refusal:
        logger.warning("batch of %d: %s", len(trades), refusal.message)
        raise
    _log(request.epoch, trades, decisions)
    # After the commit: every lease of a reader of the old value is noted by now.
    return [
        _result(decision, store.leases.remaining_ms(trade.name))
        for trade, decision in zip(trades, decisions, strict=True)
    ]


def _chunks(store: Store, last_number: int, limit: int) -> Iterator[bourse_pb2.OrderBatch]:
    """Batches of at most MAX_CHUNK rows, each read by itself, until the limit or the end."""
    left = limit or None
    while left is None or left > 0:
        wanted = MAX_CHUNK if left is None else min(left, MAX_CHUNK)
        orders = store.journal(last_number, wanted)
        if orders:
            yield bourse_pb2.OrderBatch(
                rows=map(order_to_item, orders), cluster_id=store.cluster_id
            )
        if len(orders) < wanted:
            return
        last_number = orders[-1].number
        left = left and left - wanted


def _result(decision: Decision, lease_ms: int) -> bourse_pb2.UpdateResponse:
    return bourse_pb2.UpdateResponse(
        status=decision.status,
        transaction_number=decision.number,
        lease_ms=lease_ms,
        replayed=decision.replayed,
        row=order_to_item(decision.order) if decision.order else None,
        failure=_FAILURES[decision.failure],
    )


def _log(epoch: int, trades: Sequence[Trade], decisions: Sequence[Decision]) -> None:
    """One line for the batch, with the request ids of all its trades."""
    numbers = [one.number for one in decisions if one.order and not one.replayed]
    logger.info(
        "epoch %d, batch of %d: %s, %d replayed, %d failed",
        epoch,
        len(trades),
        f"orders {numbers[0]} to {numbers[-1]}" if numbers else "no new order",
        sum(one.replayed for one in decisions),
        sum(one.failure is not Failure.NONE for one in decisions),
        extra={"request_id": " ".join(trade.request_id or "-" for trade in trades)},
    )
    if logger.isEnabledFor(logging.DEBUG):
        for trade, decision in zip(trades, decisions, strict=True):
            logger.debug("%s: %s", trade, decision, extra={"request_id": trade.request_id or "-"})
