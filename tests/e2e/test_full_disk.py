"""Disks that fill up: others serve or trades wait, nothing is half done, all comes back."""

from __future__ import annotations

import uuid

import pytest

from stack.parts import ORDER_SERVICES
from stack.waiting import wait_for
from tests.e2e.inside import leader, statuses
from tests.e2e.promises import check_promises, records
from tests.e2e.small_disks import (
    FULL,
    files,
    fill,
    free,
    lines,
    trade,
    trade_until_refused,
    wait_for_line,
)
from tests.e2e.stack import Stack
from tests.support.load import Load, let_pass

# With a stack of its own; the errors themselves are made in the unit tests.
pytestmark = pytest.mark.slow

CLIENTS = 4
CATALOG_CLIENTS = 16


def assert_nobody_noticed(load: Load) -> None:
    assert load.problems == []
    assert load.traffic.server_errors == 0


def test_a_leader_with_a_full_log_gives_way(small: Stack) -> None:
    full = leader(small)
    load = Load(small.url, CLIENTS)
    with load.running():
        let_pass(load, 20)
        fill(small, full)
        wait_for(lambda: leader(small) != full, 20, lambda: statuses(small))
        let_pass(load, 50)
        assert lines(small, full, "-> follower", f"cannot append: {FULL}")
        free(small, full)
        wait_for_line(small, full, "appending to the log again")
    assert_nobody_noticed(load)
    # Said once, however often it was tried.
    assert len(lines(small, full, "ERROR", "cannot append to the log", FULL)) == 1
    check_promises(small, load.acknowledged)


def test_a_follower_with_a_full_log_is_left_behind_and_caught_up(small: Stack) -> None:
    leading = leader(small)
    full = next(name for name in ORDER_SERVICES if name != leading)
    load = Load(small.url, CLIENTS)
    with load.running():
        fill(small, full)
        wait_for_line(small, leading, f"replica {full[-1]} is not kept in sync", FULL)
        let_pass(load, 20)
        free(small, full)
    assert_nobody_noticed(load)
    assert leader(small) == leading
    check_promises(small, load.acknowledged)


def test_all_logs_full_is_503_and_comes_back_by_itself(small: Stack) -> None:
    fill(small, *ORDER_SERVICES, spare_kib=8)
    acknowledged = trade_until_refused(small)
    epochs = max(int(status["epoch"]) for status in statuses(small).values())
    refused = str(uuid.uuid4())
    assert trade(small, refused)[0] == 503
    # Nobody was elected in vain meanwhile: a replica that cannot write asks for no epoch.
    assert max(int(status["epoch"]) for status in statuses(small).values()) == epochs
    for number in acknowledged.values():
        assert small.get(f"/orders?order-number={number}")[0] == 200
    assert small.get("/stocks?stockname=stock2")[0] == 200
    journal = records(small).journal
    assert refused not in {row.request_id for row in journal}
    free(small, *ORDER_SERVICES)
    number = trade(small, refused)[2]["data"]["transaction_number"]
    assert trade(small, refused)[2]["data"]["transaction_number"] == number
    check_promises(small, {**acknowledged, refused: number})


def test_a_replica_stops_and_waits_for_room_on_a_full_disk(small: Stack) -> None:
    service = "order-1"
    assert small.stop(service) == 0
    fill(small, service)
    small.start(service)
    wait_for_line(small, service, "CRITICAL", "cannot start", "the disk is full, 0 KiB are left")
    assert trade(small)[0] == 200
    free(small, service)
    small.wait_healthy(service)  # by the restart policy alone
    assert trade(small)[0] == 200
    check_promises(small, {})


def test_a_replica_with_a_full_log_stops_cleanly(small: Stack) -> None:
    full = leader(small)
    fill(small, full)
    for _ in range(30):
        assert trade(small)[0] == 200
    wait_for_line(small, full, "cannot append")
    assert small.stop(full) == 0
    assert lines(small, full, "WARNING", "the write-ahead log stays", FULL)
    assert not lines(small, full, "Traceback")
    small.start(full)  # nothing is missing but room, and with its files there it needs none
    small.wait_healthy(full)
    free(small, full)
    assert trade(small)[0] == 200
    check_promises(small, {})


SAVE = """
import grpc
from proto import bourse_pb2, bourse_pb2_grpc
stub = bourse_pb2_grpc.OrderServiceStub(grpc.insecure_channel("127.0.0.1:50051"))
try:
    print(stub.Save(bourse_pb2.Empty(), timeout=5).last_number)
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


def test_a_log_is_not_saved_as_text_without_room(small: Stack) -> None:
    before = files(small, "order-2") | {"filler"}
    fill(small, "order-2")
    said = small.execute("order-2", "python", "-c", SAVE)
    assert said.startswith("UNAVAILABLE cannot write the log as text"), said
    assert "No space left on device" in said
    assert files(small, "order-2") == before
    free(small, "order-2")
    assert int(small.execute("order-2", "python", "-c", SAVE)) >= 1
    assert "stockOrderDB.txt" in files(small, "order-2")


# ------------------------------------------------------------ the catalog's disk


def test_a_full_catalog_refuses_trades_until_there_is_room(small: Stack) -> None:
    load = Load(small.url, CATALOG_CLIENTS)
    with load.running():
        let_pass(load, 50)
        fill(small, "catalog", spare_kib=20)  # so that it ends in the middle of a batch
        wait_for_line(small, "catalog", "ERROR", f"storage failure: {FULL}")
        key = str(uuid.uuid4())
        status, headers, _ = trade(small, key)
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert small.get("/stocks?stockname=stock7")[0] == 200
        assert small.get("/orders?order-number=1")[0] == 200
        assert small.get("/orders?order-number=1000000")[0] == 404
        free(small, "catalog")
        # The clients repeat under their keys, and are served again.
        let_pass(load, 50)
    assert load.problems == []
    assert set(load.traffic.answers) <= {200, 404, 503}
    number = trade(small, key)[2]["data"]["transaction_number"]
    assert trade(small, key)[2]["data"]["transaction_number"] == number
    check_promises(small, {**load.acknowledged, key: number})


def test_nobody_leads_with_a_full_catalog(small: Stack) -> None:
    old = leader(small)
    fill(small, "catalog")
    acknowledged = trade_until_refused(small)
    registered = len(lines(small, "catalog", "fence", "accepted"))
    small.kill(old)
    assert trade(small)[0] == 503
    assert len(lines(small, "catalog", "fence", "accepted")) == registered
    free(small, "catalog")
    wait_for(lambda: trade(small)[0] == 200, 10, lambda: statuses(small))
    assert leader(small) != old
    small.start(old)
    check_promises(small, acknowledged)


def test_a_catalog_stops_and_waits_for_room_on_a_full_disk(small: Stack) -> None:
    number = trade(small)[2]["data"]["transaction_number"]
    assert small.stop("catalog") == 0
    fill(small, "catalog")
    small.start("catalog")
    wait_for_line(small, "catalog", "CRITICAL", "the disk is full, 0 KiB are left")
    assert trade(small)[0] == 503
    assert small.get(f"/orders?order-number={number}")[0] == 200
    free(small, "catalog")
    small.wait_healthy("catalog")  # by the restart policy alone
    wait_for(lambda: trade(small)[0] == 200, 10, lambda: statuses(small))
    check_promises(small, {})
