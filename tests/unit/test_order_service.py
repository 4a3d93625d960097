"""A replica over gRPC, in this process, on a free port: each call, and what it is refused with."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.errors import OutcomeUnknown
from common.records import EMPTY_DIGEST, Order, order_to_item
from order import publisher as publisher_module
from order import service as service_module
from order.replica import Role
from proto import bourse_pb2
from tests.unit.order_fakes import (
    LEASE_MS,
    TIMEOUT_S,
    FakeCatalog,
    RunningReplica,
    eventually,
    lost,
    make_rows,
    peer_of,
    refusing_rows,
    running_replica,
)

ROWS = make_rows(30)
Status = grpc.StatusCode


@pytest.fixture(autouse=True)
def _quick_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_POLL_S", 0.01)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[RunningReplica]:
    """Replica 1, a follower with ten rows."""
    with running_replica(tmp_path, ROWS[:10]) as made:
        yield made


@pytest.fixture
def leader(replica: RunningReplica) -> RunningReplica:
    """Leads epoch 1."""
    replica.lead()
    replica.start_pipeline()
    return replica


def trade(request_id: str = "", **fields: Any) -> bourse_pb2.TradeRequest:
    return bourse_pb2.TradeRequest(
        request_id=request_id, **{"name": "stock1", "quantity": 1, **fields}
    )


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), str(caught.value.details())


def batch(*rows: Order, leader_id: int = 0, epoch: int = 0) -> bourse_pb2.OrderBatch:
    return bourse_pb2.OrderBatch(
        rows=[order_to_item(row) for row in rows], leader_id=leader_id, epoch=epoch
    )


def leader_and_epoch(replica: RunningReplica) -> tuple[int, int]:
    answer = replica.call("GetLeader")
    assert answer.replica_id == 1
    return answer.leader_id, answer.epoch


# ------------------------------------------------------------ Trade


def test_a_trade_is_decided_appended_and_answered(leader: RunningReplica) -> None:
    answer = leader.call("Trade", trade("a", type=bourse_pb2.SELL, quantity=7))
    assert (answer.status, answer.transaction_number, answer.version) == (1, 11, 11)
    assert (answer.replayed, answer.replica_id) == (False, 1)
    row = leader.log.row(11)
    assert row is not None
    assert (row.request_id, row.name, row.type, row.quantity) == ("a", "stock1", "SELL", 7)


def test_a_repeat_gets_the_same_answer(leader: RunningReplica) -> None:
    first = leader.call("Trade", trade("a"))
    again = leader.call("Trade", trade("a"))
    assert (again.transaction_number, again.version) == (first.transaction_number, first.version)
    assert (first.replayed, again.replayed) == (False, True)


def test_a_trade_without_an_id_is_another_each_time(leader: RunningReplica) -> None:
    numbers = [leader.call("Trade", trade()).transaction_number for _ in range(3)]
    assert numbers == [11, 12, 13]


@pytest.mark.parametrize(("fields", "status"), [({"quantity": 5_000}, 0), ({"name": "nosuch"}, -1)])
def test_a_trade_that_is_refused(
    leader: RunningReplica, fields: dict[str, Any], status: int
) -> None:
    answer = leader.call("Trade", trade("a", **fields))
    assert (answer.status, answer.transaction_number, answer.version) == (status, -1, 0)
    assert answer.replica_id == 1


INVALID = {
    "no quantity": trade("a", quantity=0),
    "a negative quantity": trade("a", quantity=-1),
    "too large a quantity": trade("a", quantity=10**9 + 1),
    "the largest quantity there is": trade("a", quantity=2**63 - 1),
    "no name": trade("a", name=""),
    "too long a name": trade("a", name="n" * 65),
    "a name of several lines": trade("a", name="stock1\nstock2"),
    "a type that is none": trade("a", type=2),
    "too long an id": trade("i" * 256),
    "a space in the id": trade("a b"),
    "an id that is not ASCII": trade("ä"),
}


@pytest.mark.parametrize("case", INVALID)
def test_there_is_no_such_trade(leader: RunningReplica, case: str) -> None:
    answer = leader.call("Trade", INVALID[case])
    assert answer == bourse_pb2.TradeResponse(status=-1, transaction_number=-1, replica_id=1)
    assert leader.catalog.sent == []


def test_the_longest_that_there_can_be(leader: RunningReplica) -> None:
    request = trade("~" * 255, name="n" * 64, quantity=1_000)
    assert leader.call("Trade", request).status == 1


def test_an_id_of_another_trade_is_a_conflict(leader: RunningReplica) -> None:
    leader.call("Trade", trade("a"))
    code, _ = refusal(lambda: leader.call("Trade", trade("a", quantity=2)))
    assert code is Status.ALREADY_EXISTS


def test_a_follower_does_not_take_trades(replica: RunningReplica) -> None:
    code, details = refusal(lambda: replica.call("Trade", trade("a")))
    assert (code, details) == (Status.FAILED_PRECONDITION, "replica 1 is not the leader")
    assert not replica.queue.arrivals.acquire(blocking=False)


def test_a_deposed_leader_says_so(leader: RunningReplica) -> None:
    leader.catalog.registered = (2, 3)
    code, _ = refusal(lambda: leader.call("Trade", trade("a")))
    assert code is Status.FAILED_PRECONDITION
    assert leader_and_epoch(leader) == (0, 1)


def test_a_trade_waits_while_the_replica_is_promoting(replica: RunningReplica) -> None:
    replica.catalog.registered = (1, 1)
    replica.node.step(lambda machine: machine.stand(1))
    replica.node.step(lambda machine: machine.fence_accepted(1))
    replica.start_pipeline()
    answer = replica.stub.Trade.future(trade("a"), timeout=TIMEOUT_S)
    assert replica.queue.arrivals.acquire(timeout=TIMEOUT_S)
    replica.node.step(lambda machine: machine.caught_up(1))
    assert answer.result().status == 1


def test_a_trade_without_a_decision_in_time_has_an_unknown_outcome(
    replica: RunningReplica,
) -> None:
    replica.lead()  # and its pipeline hangs
    code, _ = refusal(lambda: replica.call("Trade", trade("a"), timeout_s=0.2))
    assert code is Status.DEADLINE_EXCEEDED


def test_a_trade_whose_time_is_over_is_not_sent(replica: RunningReplica) -> None:
    replica.lead()
    refusal(lambda: replica.call("Trade", trade("a"), timeout_s=0.2))
    replica.start_pipeline()
    assert replica.call("Trade", trade("b")).transaction_number == 11
    assert [ids for _, ids, _ in replica.catalog.sent] == [["b"]]


def test_a_trade_without_a_deadline_gets_the_default_one(
    replica: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_DEFAULT_DEADLINE_S", 0.05)
    replica.lead()
    waiting = replica.stub.Trade.future(trade("a"))
    try:
        with pytest.raises(grpc.RpcError) as caught:
            waiting.result(timeout=1)
        assert caught.value.code() is Status.DEADLINE_EXCEEDED
    finally:
        waiting.cancel()


@pytest.mark.parametrize(("age_s", "most"), [(0.0, 5_000), (2.0, 3_000), (9.0, 0)])
def test_the_lease_has_run_on_since_the_catalog_answered(
    leader: RunningReplica, age_s: float, most: int
) -> None:
    leader.catalog.clock = lambda: time.monotonic() - age_s
    lease_ms = leader.call("Trade", trade("a")).lease_ms
    assert max(0, most - LEASE_MS // 2) <= lease_ms <= most


def test_a_stopping_replica_takes_no_trades(leader: RunningReplica) -> None:
    leader.queue.close()
    code, details = refusal(lambda: leader.call("Trade", trade("a")))
    assert (code, details) == (Status.RESOURCE_EXHAUSTED, "stopping")


# ------------------------------------------------------------ OrderLookup, Save


def test_an_order_that_is_there(replica: RunningReplica) -> None:
    answer = replica.call("OrderLookup", bourse_pb2.OrderLookupRequest(number=4))
    assert answer == bourse_pb2.OrderLookupResponse(
        status=1, number=4, name="stock1", type=bourse_pb2.BUY, quantity=4, replica_id=1
    )


@pytest.mark.parametrize("number", [0, 11, -1, -(2**63), 2**63 - 1])
def test_an_order_that_is_not_there(replica: RunningReplica, number: int) -> None:
    answer = replica.call("OrderLookup", bourse_pb2.OrderLookupRequest(number=number))
    assert answer == bourse_pb2.OrderLookupResponse(status=0, number=number, replica_id=1)


def test_save_writes_the_log_as_text(replica: RunningReplica, tmp_path: Path) -> None:
    answer = replica.call("Save")
    assert answer == bourse_pb2.SaveResponse(replica_id=1, last_number=10)
    with (tmp_path / "stockOrderDB.txt").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[1:] == [[str(n), f"stock{n % 3}", "BUY", str(n)] for n in range(1, 11)]


def test_a_log_that_cannot_be_saved_is_unavailable(replica: RunningReplica, tmp_path: Path) -> None:
    (tmp_path / "stockOrderDB.txt").mkdir()
    code, details = refusal(lambda: replica.call("Save"))
    assert code is Status.UNAVAILABLE
    assert "cannot write the log as text" in details


# ------------------------------------------------------------ SyncOrderDB


def synced(replica: RunningReplica, last_number: int = 0, limit: int = 0) -> list[bytes]:
    request = bourse_pb2.SyncRequest(last_number=last_number, limit=limit)
    return [item.SerializeToString() for item in replica.stream("SyncOrderDB", request)]


def test_an_empty_request_streams_the_whole_log(replica: RunningReplica) -> None:
    items = list(replica.stream("SyncOrderDB", bourse_pb2.SyncRequest()))
    assert items == [order_to_item(row) for row in ROWS[:10]]


@pytest.mark.parametrize(
    ("last_number", "limit", "first", "last"),
    [
        (7, 0, 8, 10),
        (0, 3, 1, 3),
        (4, 3, 5, 7),
        (8, 3, 9, 10),
        (0, 10, 1, 10),
        (-5, 2, 1, 2),
        (-(2**63), 0, 1, 10),
        (0, -1, 1, 10),
        (0, 2**63 - 1, 1, 10),
    ],
)
def test_a_part_of_the_log(
    replica: RunningReplica, last_number: int, limit: int, first: int, last: int
) -> None:
    expected = [order_to_item(row).SerializeToString() for row in ROWS[first - 1 : last]]
    assert synced(replica, last_number, limit) == expected


@pytest.mark.parametrize("last_number", [10, 11, 2**63 - 1])
def test_beyond_the_end_there_is_nothing(replica: RunningReplica, last_number: int) -> None:
    assert synced(replica, last_number) == []


@pytest.mark.parametrize("limit", [999, 1_000, 1_001, 2_400])
def test_a_limit_across_chunks(tmp_path: Path, limit: int) -> None:
    rows = make_rows(2_300)
    with running_replica(tmp_path, rows) as replica:
        expected = [order_to_item(row).SerializeToString() for row in rows[100 : 100 + limit]]
        assert synced(replica, 100, limit) == expected


def test_replicas_with_the_same_rows_stream_the_same_bytes(tmp_path: Path) -> None:
    """However the rows got there."""
    with ExitStack() as stack:
        leader, other = (
            stack.enter_context(running_replica(tmp_path / str(one), replica_id=one))
            for one in (2, 3)
        )
        leader.lead(epoch=4)
        leader.start_pipeline()
        for index in range(20):
            leader.call("Trade", trade(f"request-{index}", name=f"stock{index % 4}"))
        for item in leader.stream("SyncOrderDB", bourse_pb2.SyncRequest(limit=12)):
            other.call("SyncOrderRequest", item)
        rest = list(leader.stream("SyncOrderDB", bourse_pb2.SyncRequest(last_number=12)))
        other.call("SyncOrderBatch", bourse_pb2.OrderBatch(rows=rest, leader_id=2, epoch=4))
        assert synced(leader) == synced(other)
        assert len(synced(other)) == 20
        statuses = [one.call("Status") for one in (leader, other)]
        assert statuses[0].digest == statuses[1].digest != EMPTY_DIGEST


# ------------------------------------------------------------ SyncOrderRequest, SyncOrderBatch


def test_one_row_is_appended(replica: RunningReplica) -> None:
    answer = replica.call("SyncOrderRequest", order_to_item(ROWS[10]))
    assert answer == bourse_pb2.SyncResponse(replica_id=1, last_number=11)
    assert replica.log.rows(0) == ROWS[:11]


def test_a_batch_is_appended_and_its_sender_heard_of(replica: RunningReplica) -> None:
    answer = replica.call("SyncOrderBatch", batch(*ROWS[8:13], leader_id=3, epoch=5))
    assert answer == bourse_pb2.SyncResponse(replica_id=1, last_number=13)
    assert replica.log.rows(0) == ROWS[:13]
    assert leader_and_epoch(replica) == (3, 5)


def test_rows_of_a_deposed_leader_are_right_but_it_does_not_lead(replica: RunningReplica) -> None:
    replica.call("SyncOrderBatch", batch(ROWS[10], leader_id=3, epoch=5))
    answer = replica.call("SyncOrderBatch", batch(ROWS[11], leader_id=2, epoch=4))
    assert answer.last_number == 12
    assert leader_and_epoch(replica) == (3, 5)


def test_a_leader_that_gets_rows_of_a_newer_one_steps_down(leader: RunningReplica) -> None:
    leader.call("SyncOrderBatch", batch(ROWS[10], leader_id=3, epoch=5))
    assert leader_and_epoch(leader) == (3, 5)
    code, _ = refusal(lambda: leader.call("Trade", trade("a")))
    assert code is Status.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "request_", [batch(), batch(*ROWS[:10]), batch(*ROWS[3:6], leader_id=2, epoch=1)]
)
def test_nothing_new_is_a_question_where_the_log_ends(
    replica: RunningReplica, request_: bourse_pb2.OrderBatch
) -> None:
    assert replica.call("SyncOrderBatch", request_).last_number == 10
    assert replica.log.rows(0) == ROWS[:10]


def test_a_gap_is_answered_with_where_the_log_ends(replica: RunningReplica) -> None:
    assert replica.call("SyncOrderBatch", batch(*ROWS[11:14])).last_number == 10
    assert replica.call("SyncOrderRequest", order_to_item(ROWS[20])).last_number == 10
    assert replica.log.rows(0) == ROWS[:10]


def test_rows_that_contradict_the_log_are_refused_loudly(
    replica: RunningReplica, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = replace(ROWS[4], quantity=77)
    code, details = refusal(lambda: replica.call("SyncOrderBatch", batch(wrong, leader_id=2)))
    assert code is Status.DATA_LOSS
    assert "row 5 is not the one in the log" in details
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert replica.log.rows(0) == ROWS[:10]


def test_rows_that_the_disk_does_not_take(replica: RunningReplica) -> None:
    with refusing_rows(replica.log):
        code, details = refusal(lambda: replica.call("SyncOrderBatch", batch(ROWS[10])))
    assert code is Status.UNAVAILABLE
    assert "cannot append" in details
    assert replica.call("SyncOrderBatch", batch(ROWS[10])).last_number == 11


def test_a_row_of_a_type_that_is_none_is_an_invalid_request(replica: RunningReplica) -> None:
    item = order_to_item(ROWS[10])
    item.type = 7  # type: ignore[assignment]
    code, _ = refusal(lambda: replica.call("SyncOrderRequest", item))
    assert code is Status.INVALID_ARGUMENT


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
    """Who elects must never wait behind trades and streams."""
    assert replica.call("IsAlive", timeout_s=5).last_number == replica.log.last_number
    assert replica.call("GetLeader", timeout_s=5).replica_id == 1
    assert replica.call("Status", timeout_s=5).replica_id == 1


def has_place(call: Callable[[], object]) -> bool:
    """False while the thread that kept the place has not noticed that its caller went."""
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

    eventually(lambda: has_place(lambda: replica.call("Trade", trade())), lambda: "busy")


def test_subscribers_are_bounded(leader: RunningReplica) -> None:
    streams = [subscribed(leader), subscribed(leader)]
    code, details = refusal(lambda: list(leader.stream("StreamDBUpdates")))
    assert (code, details) == (Status.RESOURCE_EXHAUSTED, "too many streams at once")
    assert_still_there(leader)
    assert synced(leader) != []  # who catches up has places of its own
    assert leader.call("Trade", trade("a")).status == 1
    streams.pop().cancel()

    def is_subscribed() -> bool:
        streams.append(leader.stream("StreamDBUpdates"))
        return leader.hub.subscriptions.acquire(timeout=0.05)

    eventually(is_subscribed, lambda: "busy")
    leader.call("Trade", trade("b"))
    assert taken(streams[-1], 1) == [("stock1", 12)]
    for stream in streams:
        stream.cancel()


def test_streams_of_rows_are_bounded(tmp_path: Path) -> None:
    """A reader that does not read keeps its place, but never that of another kind of call."""
    with running_replica(tmp_path, make_rows(20_000)) as replica:
        streams = [replica.stream("SyncOrderDB", bourse_pb2.SyncRequest()) for _ in range(2)]
        for stream in streams:
            next(stream)
        code, details = refusal(lambda: synced(replica))
        assert (code, details) == (Status.RESOURCE_EXHAUSTED, "too many streams at once")
        assert_still_there(replica)
        streams.pop().cancel()

        eventually(lambda: has_place(lambda: synced(replica, limit=3)), lambda: "busy")
        streams.pop().cancel()


# ------------------------------------------------------------ leadership


def test_is_alive(replica: RunningReplica) -> None:
    assert replica.call("IsAlive") == bourse_pb2.AliveResponse(replica_id=1, last_number=10)


def test_who_knows_no_leader_says_so(replica: RunningReplica) -> None:
    assert leader_and_epoch(replica) == (0, 0)


def test_the_replica_that_is_named_takes_office(replica: RunningReplica) -> None:
    replica.catalog.rows += ROWS[10:12]
    replica.catalog.registered = (6, 2)
    answer = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=1, epoch=4))
    assert answer == bourse_pb2.SetLeaderResponse(replica_id=1, leader_id=1, epoch=7)
    assert replica.catalog.registered == (7, 1)
    assert leader_and_epoch(replica) == (1, 7)
    assert replica.log.rows(0) == ROWS[:12]
    again = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=1, epoch=9))
    assert again == answer


def test_the_others_hear_of_it(replica: RunningReplica) -> None:
    answer = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=3, epoch=4))
    assert answer == bourse_pb2.SetLeaderResponse(replica_id=1, leader_id=3, epoch=4)
    late = replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=2, epoch=3))
    assert late == answer
    assert replica.catalog.asked == []


def test_a_candidate_that_cannot_take_office_says_so(replica: RunningReplica) -> None:
    with refusing_rows(replica.log):
        refusal(lambda: replica.call("SyncOrderBatch", batch(ROWS[10])))
        replica.catalog.rows += ROWS[10:]
        request = bourse_pb2.SetLeaderRequest(leader_id=1, epoch=1)
        code, details = refusal(lambda: replica.call("SetLeader", request))
    assert code is Status.UNAVAILABLE
    assert "the log takes no rows" in details
    assert leader_and_epoch(replica) == (0, 0)


@pytest.mark.parametrize(
    ("leader_id", "epoch"),
    [(4, 1), (0, 1), (-1, 1), (2, -1), (2, 2**62 + 1), (1, -1), (1, 2**63 - 1)],
)
def test_news_of_what_cannot_be_is_refused(
    replica: RunningReplica, leader_id: int, epoch: int
) -> None:
    request = bourse_pb2.SetLeaderRequest(leader_id=leader_id, epoch=epoch)
    code, _ = refusal(lambda: replica.call("SetLeader", request))
    assert code is Status.INVALID_ARGUMENT
    assert leader_and_epoch(replica) == (0, 0)
    assert replica.catalog.asked == []


def test_rows_of_a_leader_that_cannot_be_are_refused(replica: RunningReplica) -> None:
    for leader_id, epoch in [(4, 1), (2, -1), (2, 2**63 - 1)]:
        request = batch(ROWS[10], leader_id=leader_id, epoch=epoch)
        code, _ = refusal(lambda one=request: replica.call("SyncOrderBatch", one))
        assert code is Status.INVALID_ARGUMENT
    assert replica.log.last_number == 10


def test_a_leader_whose_disk_hangs_does_not_say_that_it_leads(leader: RunningReplica) -> None:
    """Nobody else could say it: the thread that should hangs."""
    leader.batch_age_s = 60.0
    assert leader_and_epoch(leader) == (0, 1)


def test_a_replica_whose_disk_hangs_takes_no_office(leader: RunningReplica) -> None:
    leader.batch_age_s = 60.0
    request = bourse_pb2.SetLeaderRequest(leader_id=1, epoch=2)
    code, details = refusal(lambda: leader.call("SetLeader", request))
    assert code is Status.UNAVAILABLE
    assert "nothing has moved" in details
    assert leader.catalog.asked == []


class GoneCaller:
    """The context of a call that waited for a thread until nobody waited for its answer."""

    def time_remaining(self) -> float:
        return 0.0


def test_no_office_is_taken_for_a_caller_that_has_gone_on(replica: RunningReplica) -> None:
    request = bourse_pb2.SetLeaderRequest(leader_id=1, epoch=1)
    with pytest.raises(OutcomeUnknown):
        replica.servicer.SetLeader(request, GoneCaller())  # type: ignore[arg-type]
    assert replica.catalog.asked == []
    assert leader_and_epoch(replica) == (0, 0)


# ------------------------------------------------------------ Status


def test_the_status_of_a_follower(replica: RunningReplica) -> None:
    replica.call("SetLeader", bourse_pb2.SetLeaderRequest(leader_id=3, epoch=4))
    assert replica.call("Status") == bourse_pb2.StatusResponse(
        replica_id=1,
        role="follower",
        epoch=4,
        leader_id=3,
        last_number=10,
        digest=ROWS[9].digest,
        ready=False,
    )
    replica.is_ready.set()
    assert replica.call("Status").ready


def test_the_status_of_a_leader_names_who_is_in_sync(tmp_path: Path) -> None:
    with ExitStack() as stack:
        follower = stack.enter_context(running_replica(tmp_path / "follower", replica_id=3))
        peers = stack.enter_context(peer_of(follower))
        leader = stack.enter_context(running_replica(tmp_path / "leader", ROWS, peers=peers))
        leader.lead(epoch=4)
        leader.replicator.start()
        eventually(lambda: list(leader.call("Status").in_sync) == [3], leader.node.view)
        status = leader.call("Status")
        assert (status.role, status.epoch, status.leader_id) == ("leader", 4, 1)
        leader.node.step(lambda machine: machine.step_down(4))
        assert list(leader.call("Status").in_sync) == []


def test_number_and_digest_of_a_status_are_of_one_moment(replica: RunningReplica) -> None:
    digests = {row.number: row.digest for row in ROWS}
    seen = set()
    for row in ROWS[10:]:
        appending = replica.stub.SyncOrderRequest.future(order_to_item(row), timeout=TIMEOUT_S)
        while not appending.done():
            status = replica.call("Status")
            assert status.digest == digests[status.last_number]
            seen.add(status.last_number)
        assert appending.result().last_number == row.number
    assert len(seen) > 1


# ------------------------------------------------------------ defects


def test_a_defect_is_told_to_nobody_but_the_log(
    leader: RunningReplica, caplog: pytest.LogCaptureFixture
) -> None:
    leader.catalog.update_script.append(lost(ZeroDivisionError("secret")))
    code, details = refusal(lambda: leader.call("Trade", trade("a")))
    assert code is Status.DEADLINE_EXCEEDED
    assert "secret" not in details
    assert "ZeroDivisionError" in caplog.text
    assert leader.node.view().role is Role.FOLLOWER


def test_a_contradiction_between_catalog_and_log_stops_the_process(tmp_path: Path) -> None:
    with running_replica(tmp_path, ROWS[:10], catalog=FakeCatalog(ROWS[:9])) as replica:
        replica.lead()
        replica.start_pipeline()
        code, details = refusal(lambda: replica.call("Trade", trade("a")))
        assert code is Status.DATA_LOSS
        assert "row 10 is not the one in the log" in details
        assert len(replica.halted) == 1
