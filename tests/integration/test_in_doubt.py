"""Batches of unknown outcome: copies that come late, twice, or after an election change nothing."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from client.api import Answer, BourseClient, RetryPolicy
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import Cluster
from tests.support.load import Load, let_pass
from tests.support.rigged_cluster import RiggedCluster, rigged_cluster

AT_THE_CATALOG = "catalog before update"


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiggedCluster]:
    with rigged_cluster(tmp_path_factory.mktemp("doubt")) as cluster:
        yield cluster


def trade(
    cluster: Cluster, key: str, quantity: int = 1, side: str = "BUY", stock: str = "stock7"
) -> Answer:
    with BourseClient(cluster.url, retry=RetryPolicy(attempts=1)) as client:
        return client.trade(stock, quantity, side, key)


def executed(cluster: Cluster, key: str) -> list[int]:
    return [row.number for row in cluster.journal() if row.request_id == key]


def new_key() -> str:
    return str(uuid.uuid4())


# ---------------------------------------------------------------- one copy is kept on its way


def test_a_copy_that_arrives_late_gets_the_decision_of_the_one_before(
    cluster: RiggedCluster,
) -> None:
    trade(cluster, new_key())
    key = new_key()
    cluster.arm(AT_THE_CATALOG, "HOLD")
    answer = trade(cluster, key)  # the leader sends a second copy when the first one times out
    assert cluster.has_fired(AT_THE_CATALOG)
    trade(cluster, new_key())
    replays = cluster.log("catalog").count("1 replayed")
    cluster.release(AT_THE_CATALOG)
    wait_for(lambda: cluster.log("catalog").count("1 replayed") > replays, 10, "it arrives")
    number = answer.data["transaction_number"]
    assert executed(cluster, key) == [number]
    cluster.check_promises({key: number})


def overtake_by_an_election(cluster: RiggedCluster) -> str:
    """A batch arrives at the catalog after its leader has died and the next leader has traded.

    Returns the key of the trade in the batch. No client sends that trade again.
    """
    trade(cluster, new_key())
    leader = cluster.leader_id()
    key = new_key()
    cluster.arm(AT_THE_CATALOG, "HOLD")
    request = bourse_pb2.TradeRequest(request_id=key, name="stock7", quantity=1)
    with cluster.replica(leader) as replica, contextlib.suppress(grpc.RpcError):
        replica.call("Trade", request, timeout_s=0.3)
    cluster.wait_fired(AT_THE_CATALOG)
    cluster.kill(f"order-{leader}")
    assert trade(cluster, new_key()).status == 200
    batches = cluster.log("catalog").count("batch of")
    cluster.release(AT_THE_CATALOG)
    wait_for(lambda: cluster.log("catalog").count("batch of") > batches, 10, "it is decided")
    cluster.start(f"order-{leader}")
    return key


def test_a_copy_that_arrives_after_an_election_is_refused(cluster: RiggedCluster) -> None:
    key = overtake_by_an_election(cluster)
    assert executed(cluster, key) == []
    number = trade(cluster, key).data["transaction_number"]
    assert executed(cluster, key) == [number]
    cluster.check_promises({key: number})


@pytest.mark.slow
def test_without_the_fence_check_such_a_copy_is_executed(tmp_path: Path) -> None:
    with rigged_cluster(tmp_path, without="fence check") as cluster:
        key = overtake_by_an_election(cluster)
        assert executed(cluster, key) != []
        with pytest.raises(AssertionError, match="a deposed leader had a trade committed"):
            cluster.check_promises({})


# ---------------------------------------------------------------- the whole catalog stands still


@pytest.mark.parametrize("paused_s", [0.7, pytest.param(2.5, marks=pytest.mark.slow)])
def test_the_catalog_is_paused_under_load(cluster: RiggedCluster, paused_s: float) -> None:
    """Once for less than the leader's patience, and once for longer, so that it steps down."""
    load = Load(cluster.url, clients=8)
    with load.running():
        for _ in range(2):
            let_pass(load, 40)
            cluster.pause("catalog")
            time.sleep(paused_s)
            cluster.resume("catalog")
        let_pass(load, 40)
    assert load.problems == []
    if paused_s < 1:
        assert load.traffic.server_errors == 0
    cluster.check_promises(load.acknowledged)
    assert " in doubt, sending it again" in "".join(cluster.log(f"order-{n}") for n in (1, 2, 3))
    replayed = re.findall(r"batch of \d+: .*, (\d+) replayed", cluster.log("catalog"))
    assert any(int(count) for count in replayed), "no copy arrived twice"
    check_one_decision_each(cluster)


def check_one_decision_each(cluster: RiggedCluster) -> None:
    """Checks that no request id is both in the journal and in the refusals."""
    path = cluster.data("catalog") / "catalog.db"
    sql = "SELECT count(*) FROM journal JOIN refusals USING (request_id)"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute(sql).fetchone() == (0,)


# ---------------------------------------------------------------- refusals


def refuse_and_restock(cluster: RiggedCluster) -> Answer:
    """Returns the answer to a repeat of a refused trade, when there is enough stock again.

    Only the catalog knows of the first refusal, because the leader dies before it answers.
    """
    trade(cluster, new_key())
    key = new_key()
    cluster.arm("leader before answer")
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(trade, cluster, key, 1_500_000, "BUY", "stock10")
        cluster.wait_fired("leader before answer")
        cluster.start(cluster.wait_crashed())
    refusal = answer.result(timeout=20)
    assert refusal.status == 404
    assert trade(cluster, new_key(), 1_000_000, "SELL", "stock10").status == 200
    repeat = trade(cluster, key, 1_500_000, "BUY", "stock10")
    assert repeat.body == refusal.body, "a refused trade was executed when it was repeated"
    check_one_decision_each(cluster)
    return repeat


def test_a_refused_trade_stays_refused_though_there_is_stock_again(cluster: RiggedCluster) -> None:
    repeat = refuse_and_restock(cluster)
    assert repeat.headers["Idempotency-Replayed"] == "true"
    assert trade(cluster, new_key(), 1_500_000, "BUY", "stock10").status == 200
    cluster.check_promises({})


@pytest.mark.slow
def test_without_its_record_a_refused_trade_would_be_executed(tmp_path: Path) -> None:
    with (
        rigged_cluster(tmp_path, without="recorded refusals") as cluster,
        pytest.raises(AssertionError, match="executed when it was repeated"),
    ):
        refuse_and_restock(cluster)
