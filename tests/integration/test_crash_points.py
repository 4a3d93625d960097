"""A process dies at an exact point: each promise holds, and a repeat gets the same answer."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from client.api import BourseClient
from stack.waiting import wait_for
from tests.support.cluster import REPLICAS
from tests.support.load import Load, let_pass
from tests.support.points import POINTS
from tests.support.rigged_cluster import RiggedCluster, rigged_cluster

CLIENTS = 6
STOCK, SHARES = "stock9", 5
# Passed every second, whether anybody trades or not; test_lost_rows.py holds the leader there.
LOOK = "leader before look"
# The points that every trade passes. The others are passed only after a leader has died.
OF_A_TRADE = [point for point in POINTS if not point.startswith("promotion") and point != LOOK]


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiggedCluster]:
    with rigged_cluster(tmp_path_factory.mktemp("crashes")) as cluster:
        yield cluster


def trade(cluster: RiggedCluster, key: str, *, may_be_refused: bool = True) -> int:
    """The order number. The client repeats the trade under its key until it gets the number.

    Args:
        may_be_refused: whether an attempt may get a 5xx before that.
    """
    with BourseClient(cluster.url) as client:
        answer = client.trade(STOCK, SHARES, "BUY", key)
    assert answer.status == 200, answer.body
    assert may_be_refused or client.traffic.server_errors == 0
    return int(answer.data["transaction_number"])


def quantity(cluster: RiggedCluster) -> int:
    with BourseClient(cluster.url) as client:
        return int(client.lookup(STOCK).data["quantity"])


def wait_all_in_sync(cluster: RiggedCluster) -> int:
    """Waits until every follower is in sync. Returns the leader."""
    trade(cluster, str(uuid.uuid4()))
    leader = cluster.leader_id()

    def all_in_sync() -> bool:
        status = cluster.status(leader)
        return status is not None and len(status.in_sync) == len(REPLICAS) - 1

    wait_for(all_in_sync, 10, cluster.statuses)
    return leader


def revive(cluster: RiggedCluster, point: str) -> None:
    """Starts the part again that died at the point. gunicorn restarts a frontend's worker."""
    cluster.wait_fired(point)
    if POINTS[point].service != "frontend":
        cluster.start(cluster.wait_crashed())


def check_repeats(cluster: RiggedCluster, acknowledged: dict[str, int], sample: int = 50) -> None:
    """The last trades, sent again under their keys, get the same order numbers."""
    with BourseClient(cluster.url) as client:
        for key, number in list(acknowledged.items())[-sample:]:
            row = cluster.order(number)
            answer = client.trade(row.name, row.quantity, row.type, key)
            assert (answer.status, answer.data) == (200, {"transaction_number": number})


@pytest.mark.parametrize("point", OF_A_TRADE)
def test_the_trade_in_flight_is_executed_once(cluster: RiggedCluster, point: str) -> None:
    wait_all_in_sync(cluster)
    before = len(cluster.journal())
    key = str(uuid.uuid4())
    left = quantity(cluster)  # now it is cached
    cluster.arm(point)
    may_be_refused = POINTS[point].service == "catalog"
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(trade, cluster, key, may_be_refused=may_be_refused)
        revive(cluster, point)
        number = answer.result(timeout=60)
    assert quantity(cluster) == left - SHARES
    assert number == before + 1
    assert trade(cluster, key) == number
    assert len(cluster.check_promises({key: number})) == before + 1


@pytest.mark.slow
@pytest.mark.parametrize("point", OF_A_TRADE)
def test_under_load_nothing_is_lost_or_done_twice(cluster: RiggedCluster, point: str) -> None:
    wait_all_in_sync(cluster)
    load = Load(cluster.url, CLIENTS)
    with load.running():
        let_pass(load, 50)
        cluster.arm(point)
        revive(cluster, point)
        let_pass(load, 100)
    check_repeats(cluster, load.acknowledged)
    cluster.check_promises(load.acknowledged)
    assert load.problems == []
    if POINTS[point].service != "catalog":  # without the catalog, clients may get a 5xx
        assert load.traffic.server_errors == 0


@pytest.mark.slow
@pytest.mark.parametrize("point", ["promotion after fence", "promotion during pull"])
def test_a_candidate_dies_while_promoting(cluster: RiggedCluster, point: str) -> None:
    leader = wait_all_in_sync(cluster)
    candidate = max(replica_id for replica_id in REPLICAS if replica_id != leader)
    load = Load(cluster.url, CLIENTS)
    with load.running():
        cluster.pause(f"order-{candidate}")  # so that it has something to pull
        let_pass(load, 100)
        cluster.arm(point)
        cluster.kill(f"order-{leader}")
        cluster.resume(f"order-{candidate}")
        revive(cluster, point)
        cluster.start(f"order-{leader}")
        let_pass(load, 100)
    check_repeats(cluster, load.acknowledged)
    cluster.check_promises(load.acknowledged)
    assert load.problems == []
    assert load.traffic.server_errors == 0


def test_every_point_was_tried() -> None:
    assert {*OF_A_TRADE, "promotion after fence", "promotion during pull", LOOK} == set(POINTS)
