"""Logs of replicas that are swapped or damaged, with real processes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import grpc
import pytest

from common.domain import Order
from order.log.log import OrderLog
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import Cluster
from tests.support.loss import (
    APART,
    log_lengths,
    nothing_is_set_aside,
    other_orders,
    said_since,
    trade,
    trade_among,
    wait_apart,
)


def assert_never_wrong(cluster: Cluster, replica_id: int, journal: list[Order]) -> None:
    """Checks that the first orders are served right, or not at all, until the log is complete."""

    def look(number: int) -> None:
        with cluster.replica(replica_id) as replica:
            try:
                found = replica.call("OrderLookup", bourse_pb2.OrderLookupRequest(number=number))
            except grpc.RpcError:
                return
        row = journal[number - 1]
        assert found.status == 0 or (found.name, found.quantity) == (row.name, row.quantity)

    def has_journal() -> bool:
        look(1)
        look(2)
        status = cluster.status(replica_id)
        return status is not None and status.ready and status.digest == journal[-1].digest

    wait_for(has_journal, 30, lambda: cluster.log(f"order-{replica_id}"))


def serves_no_order(cluster: Cluster, replica_id: int) -> bool:
    with cluster.replica(replica_id) as replica, pytest.raises(grpc.RpcError) as refusal:
        replica.call("OrderLookup", bourse_pb2.OrderLookupRequest(number=1))
    return refusal.value.code() is grpc.StatusCode.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("length", "cluster_id"),
    [("shorter", ""), ("longer", "0cc175b9-c0f1-46b6-831c-399e26977266")],
)
def test_a_log_of_another_deployment_serves_nothing_and_is_kept(
    cluster: Cluster, tmp_path: Path, length: str, cluster_id: str
) -> None:
    acknowledged = trade(cluster, 6)
    journal = cluster.journal()
    before = log_lengths(cluster)
    cluster.kill("order-2")
    right = cluster.data("order-2").rename(tmp_path / "right")
    cluster.data("order-2").mkdir()
    count = 3 if length == "shorter" else len(journal) + 5
    orders = other_orders(tmp_path / "other", cluster.directory / "stocks.txt", count)
    with closing(OrderLog(cluster.data("order-2") / "orders.db")) as log:
        log.append(orders, cluster_id)
    cluster.start("order-2", wait=False)
    wait_apart(cluster, 2, before)
    assert serves_no_order(cluster, 2)
    said = f"the log of replica 2 and this catalog {APART}"
    assert said_since(cluster, "catalog", before["catalog"], said)
    for name in ("catalog", "order-2"):
        assert said_since(cluster, name, before[name], cluster_id)
    acknowledged |= trade_among(cluster, 3)  # the others go on
    cluster.kill("order-2")
    with closing(OrderLog(cluster.data("order-2") / "orders.db")) as log:
        assert (log.rows(0), log.cluster_id) == (orders, cluster_id)
    assert nothing_is_set_aside(cluster)
    cluster.wipe("order-2")
    right.rename(cluster.data("order-2"))
    cluster.start("order-2")
    cluster.check_promises(acknowledged | trade(cluster, 2))


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit"])
def test_a_damaged_log_is_set_aside_and_rebuilt(cluster: Cluster, damage: str) -> None:
    acknowledged = trade(cluster, 6)
    journal = cluster.journal()
    assert cluster.stop("order-1") == 0
    path = cluster.data("order-1") / "orders.db"
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        del raw[len(raw) - 4096 :]
    else:
        raw[raw.index(journal[1].request_id.encode())] ^= 4
    path.write_bytes(raw)
    before = len(cluster.log("order-1"))
    cluster.start("order-1", wait=False)
    assert_never_wrong(cluster, 1, journal)
    assert said_since(cluster, "order-1", before, "the log is damaged, rebuilding it")
    assert said_since(cluster, "order-1", before, "set aside as orders.db.damaged-")
    cluster.check_promises(acknowledged | trade(cluster, 2))
