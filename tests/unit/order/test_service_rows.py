"""The rows of a replica over gRPC: they are looked up, saved, streamed, and appended."""

from __future__ import annotations

import csv
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from common.domain import EMPTY_DIGEST
from common.errors import Contradiction
from common.wire import order_to_item
from proto import bourse_pb2
from tests.unit.order.calls import (
    ROWS,
    Status,
    batch,
    leader_and_epoch,
    refusal,
    synced,
    trade,
)
from tests.unit.order.fakes import CLUSTER, OTHER_CLUSTER, make_rows, refusing_rows
from tests.unit.order.replicas import RunningReplica, running_replica

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


@pytest.mark.parametrize(
    ("last_number", "limit", "sizes"),
    [
        (0, 0, [1_000, 1_000, 300]),
        (1_500, 0, [800]),
        (-7, 1_001, [1_000, 1]),
        (0, 1_000, [1_000]),
        (2_300, 0, []),
    ],
)
def test_the_batch_form_streams_the_same_rows_in_chunks(
    tmp_path: Path, last_number: int, limit: int, sizes: list[int]
) -> None:
    with running_replica(tmp_path, make_rows(2_300)) as replica:
        request = bourse_pb2.SyncRequest(last_number=last_number, limit=limit)
        chunks = list(replica.stream("SyncOrderDBBatch", request))
        items = [item.SerializeToString() for chunk in chunks for item in chunk.rows]
        assert items == synced(replica, last_number, limit)
        assert [len(chunk.rows) for chunk in chunks] == sizes


def test_replicas_with_the_same_rows_stream_the_same_bytes(tmp_path: Path) -> None:
    """One has the rows from trades, the other one from its leader."""
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


def test_it_says_while_it_catches_up_by_itself(replica: RunningReplica) -> None:
    replica.is_ready.clear()
    answer = replica.call("SyncOrderBatch", batch(ROWS[10]))
    assert answer == bourse_pb2.SyncResponse(replica_id=1, last_number=11, catching_up=True)


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
    assert code is Status.OUT_OF_RANGE
    assert "row 5 is not the one in the log" in details
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    assert replica.log.rows(0) == ROWS[:10]


def test_a_contradiction_that_is_sent_again_and_again_is_said_once(
    replica: RunningReplica, caplog: pytest.LogCaptureFixture
) -> None:
    """Between its rows, a leader that is refused asks where the log ends."""
    wrong = batch(replace(ROWS[4], quantity=77), leader_id=2)
    for request in (wrong, batch(leader_id=2), wrong):
        with suppress(grpc.RpcError):
            replica.call("SyncOrderBatch", request)
    assert [record.levelname for record in caplog.records].count("CRITICAL") == 1


def test_rows_of_another_cluster_are_refused_and_their_sender_is_no_leader(
    replica: RunningReplica, caplog: pytest.LogCaptureFixture
) -> None:
    of_this = batch(ROWS[10], leader_id=3, epoch=5)
    of_this.cluster_id = CLUSTER
    assert replica.call("SyncOrderBatch", of_this).last_number == 11
    assert replica.call("Status").cluster_id == CLUSTER
    for rows in (ROWS[11:13], []):
        of_another = batch(*rows, leader_id=2, epoch=9)
        of_another.cluster_id = OTHER_CLUSTER
        code, details = refusal(lambda one=of_another: replica.call("SyncOrderBatch", one))
        assert code is Status.OUT_OF_RANGE
        assert CLUSTER in details
        assert OTHER_CLUSTER in details
    assert leader_and_epoch(replica) == (3, 5)
    assert replica.log.rows(0) == ROWS[:11]
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "CRITICAL"]
    assert "refused rows of leader 2" in line


def test_a_log_that_the_catalog_denies_serves_no_orders(replica: RunningReplica) -> None:
    replica.denial = Contradiction("they do not belong together")
    for call in (
        lambda: replica.call("OrderLookup", bourse_pb2.OrderLookupRequest(number=1)),
        lambda: list(replica.stream("SyncOrderDB", bourse_pb2.SyncRequest())),
        lambda: list(replica.stream("SyncOrderDBBatch", bourse_pb2.SyncRequest())),
    ):
        assert refusal(call)[0] is Status.OUT_OF_RANGE


def test_chunks_of_a_log_say_of_which_cluster_it_is(replica: RunningReplica) -> None:
    replica.ledger.join_cluster(CLUSTER)
    (chunk,) = replica.stream("SyncOrderDBBatch", bourse_pb2.SyncRequest())
    assert (len(chunk.rows), chunk.cluster_id) == (10, CLUSTER)


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
