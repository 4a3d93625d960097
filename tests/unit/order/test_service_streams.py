"""A replica's updates over gRPC, and the limits on calls that run at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.replicas import ReplicaPeer
from common.wire import order_to_item
from order.trading import publisher as publisher_module
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.unit.order.calls import (
    ROWS,
    Status,
    batch,
    refusal,
    synced,
    trade,
)
from tests.unit.order.fakes import TIMEOUT_S, make_rows
from tests.unit.order.replicas import LIMITS, RunningReplica, running_replica


@pytest.fixture(autouse=True)
def _quick_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_POLL_S", 0.01)


# ------------------------------------------------------------ StreamDBUpdates


def subscribed(replica: RunningReplica) -> Any:
    stream = replica.stream("StreamDBUpdates")
    assert replica.hub.subscriptions.acquire(timeout=TIMEOUT_S)
    return stream


def taken(stream: Any, count: int) -> list[tuple[str, int]]:
    changes = [next(stream) for _ in range(count)]
    return [(change.name, change.version) for change in changes]


def test_every_subscriber_gets_every_update(leader: RunningReplica) -> None:
    streams = [subscribed(leader), subscribed(leader)]
    for name in ("stock1", "stock2", "stock1"):
        leader.call("Trade", trade(name=name))
    for stream in streams:
        assert taken(stream, 3) == [("stock1", 11), ("stock2", 12), ("stock1", 13)]
        stream.cancel()


def test_a_followers_subscribers_get_what_it_is_sent(replica: RunningReplica) -> None:
    stream = subscribed(replica)
    replica.call("SyncOrderBatch", batch(*ROWS[8:12]))  # two rows are new
    replica.call("SyncOrderRequest", order_to_item(ROWS[12]))
    assert taken(stream, 3) == [("stock2", 11), ("stock0", 12), ("stock1", 13)]
    stream.cancel()


def test_a_subscriber_that_is_too_slow_is_told(
    replica: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_STREAM_CAPACITY", 2)
    stream = subscribed(replica)
    replica.call("SyncOrderBatch", batch(*ROWS[10:20]))  # three stocks at once
    code, details = refusal(lambda: list(stream))
    assert (code, details) == (Status.RESOURCE_EXHAUSTED, "too slow: updates were lost")


def test_streams_end_when_the_service_stops(replica: RunningReplica) -> None:
    stream = subscribed(replica)
    replica.is_stopping.set()
    assert list(stream) == []


# ------------------------------------------------------------ bounds


def assert_still_there(replica: RunningReplica) -> None:
    """Checks that calls for an election do not wait for trades and streams."""
    assert replica.call("IsAlive", timeout_s=5).last_number == replica.log.last_number
    assert replica.call("GetLeader", timeout_s=5).replica_id == 1
    assert replica.call("Status", timeout_s=5).replica_id == 1


def has_place(call: Callable[[], object]) -> bool:
    """False as long as the thread of a cancelled call still holds the place."""
    try:
        call()
    except grpc.RpcError as error:
        if error.code() is not Status.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


def test_trades_are_bounded(replica: RunningReplica) -> None:
    replica.lead()
    waiting = [
        replica.stub.Trade.future(trade(f"request-{index}"), timeout=TIMEOUT_S)
        for index in range(4)
    ]
    for _ in waiting:
        assert replica.queue.arrivals.acquire(timeout=TIMEOUT_S)
    code, details = refusal(lambda: replica.call("Trade", trade("too-many")))
    assert (code, details) == (Status.RESOURCE_EXHAUSTED, "too many trades at once")
    assert_still_there(replica)
    replica.start_pipeline()
    assert sorted(one.result().transaction_number for one in waiting) == [11, 12, 13, 14]
    assert replica.call("Trade", trade("one-more")).transaction_number == 15


def test_places_of_trades_that_failed_are_free_again(replica: RunningReplica) -> None:
    replica.lead()
    for _ in range(6):
        refusal(lambda: replica.call("Trade", trade(), timeout_s=0.05))
    replica.start_pipeline()

    wait_for(lambda: has_place(lambda: replica.call("Trade", trade())), TIMEOUT_S, lambda: "busy")


def test_subscribers_are_bounded(leader: RunningReplica) -> None:
    streams = [subscribed(leader), subscribed(leader)]
    code, details = refusal(lambda: list(leader.stream("StreamDBUpdates")))
    assert (code, details) == (Status.RESOURCE_EXHAUSTED, "too many streams at once")
    assert_still_there(leader)
    assert synced(leader) != []  # streams for catching up have a separate limit
    assert leader.call("Trade", trade("a")).status == 1
    streams.pop().cancel()

    def is_subscribed() -> bool:
        streams.append(leader.stream("StreamDBUpdates"))
        return leader.hub.subscriptions.acquire(timeout=0.05)

    wait_for(is_subscribed, TIMEOUT_S, lambda: "busy")
    leader.call("Trade", trade("b"))
    assert taken(streams[-1], 1) == [("stock1", 12)]
    for stream in streams:
        stream.cancel()


def test_streams_of_trades_are_bounded(leader: RunningReplica) -> None:
    with ExitStack() as peers:
        conversations = [
            peers.enter_context(closing(ReplicaPeer(1, leader.address))).conversation(
                "Trades", "TradeBatch"
            )
            for _ in range(LIMITS.trade_streams + 1)
        ]
        request = bourse_pb2.TradeBatchRequest(trades=[trade("a")], timeout_ms=5_000)
        for one in conversations:  # the last one by a call
            assert one.ask(request, TIMEOUT_S).outcomes[0].response.transaction_number == 11
        code, details = refusal(lambda: next(leader.stub.Trades(iter([request]))))
        assert (code, details) == (
            Status.RESOURCE_EXHAUSTED,
            "too many streams of trades at once",
        )
        assert_still_there(leader)
        conversations[0].close()

        def has_place_now() -> bool:
            return has_place(lambda: next(leader.stub.Trades(iter([request]))))

        wait_for(has_place_now, TIMEOUT_S, lambda: "busy")


def test_streams_of_rows_are_bounded(tmp_path: Path) -> None:
    """A reader that does not read holds a place for streams, but no place for other calls."""
    with running_replica(tmp_path, make_rows(20_000)) as replica:
        streams = [replica.stream("SyncOrderDB", bourse_pb2.SyncRequest()) for _ in range(2)]
        for stream in streams:
            next(stream)
        code, details = refusal(lambda: synced(replica))
        assert (code, details) == (Status.RESOURCE_EXHAUSTED, "too many streams at once")
        code, _ = refusal(lambda: list(replica.stream("SyncOrderDBBatch")))
        assert code is Status.RESOURCE_EXHAUSTED
        assert_still_there(replica)
        streams.pop().cancel()

        wait_for(lambda: has_place(lambda: synced(replica, limit=3)), TIMEOUT_S, lambda: "busy")
        streams.pop().cancel()


def test_a_disk_that_hangs_keeps_nobody_from_asking_who_leads(replica: RunningReplica) -> None:
    """Callers give up and call again, while the threads of their first calls still hang."""
    calls_of_a_kind = 20
    with replica.log._reading, replica.ledger._appending:
        calls = [
            start(request, timeout=TIMEOUT_S)
            for start, request in (
                (replica.stub.OrderLookup.future, bourse_pb2.OrderLookupRequest(number=1)),
                (replica.stub.Save.future, bourse_pb2.Empty()),
                (replica.stub.SyncOrderBatch.future, batch(ROWS[10])),
            )
            for _ in range(calls_of_a_kind)
        ]
        waiting = LIMITS.lookups + LIMITS.saves + LIMITS.appends
        wait_for(
            lambda: sum(not call.done() for call in calls) <= waiting, TIMEOUT_S, lambda: calls
        )
        assert_still_there(replica)
    codes = [call.code() for call in calls]
    assert codes.count(Status.OK) == waiting
    assert codes.count(Status.RESOURCE_EXHAUSTED) == len(calls) - waiting
