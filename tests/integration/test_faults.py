"""Real processes, killed and paused under load: promises hold, and clients get no errors."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from client.api import Answer, BourseClient
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import REPLICAS, Cluster, running_cluster
from tests.support.load import Load, let_pass

CLIENTS = 8


def run_load(cluster: Cluster, disturb: Callable[[Load], None]) -> Load:
    """Load before, during and after the disturbance. No client may get an error."""
    load = Load(cluster.url, CLIENTS)
    with load.running():
        let_pass(load, 100)
        disturb(load)
        let_pass(load, 100)
    assert load.problems == []
    assert load.traffic.server_errors == 0
    return load


@pytest.mark.slow
def test_the_leader_is_killed_again_and_again(cluster: Cluster) -> None:
    def disturb(load: Load) -> None:
        for _ in range(3):
            victim = f"order-{cluster.leader_id()}"
            cluster.kill(victim)
            let_pass(load, 50)
            cluster.start(victim)
            let_pass(load, 50)

    load = run_load(cluster, disturb)
    cluster.check_promises(load.acknowledged)


@pytest.mark.slow
def test_one_survivor_of_three_serves(cluster: Cluster) -> None:
    def disturb(load: Load) -> None:
        cluster.kill("order-3", "order-2")
        let_pass(load, 100)
        assert cluster.leader_id() == 1
        cluster.start("order-3")
        cluster.start("order-2")

    load = run_load(cluster, disturb)
    cluster.check_promises(load.acknowledged)


def test_a_paused_leader_is_deposed_and_steps_down(cluster: Cluster) -> None:
    with BourseClient(cluster.url) as client:
        client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
    old = cluster.leader_id()

    def disturb(load: Load) -> None:
        cluster.pause(f"order-{old}")
        let_pass(load, 100)
        cluster.resume(f"order-{old}")

    load = run_load(cluster, disturb)
    # Now the old leader, or else the catalog, refuses a trade that reaches the old leader.
    with cluster.replica(old) as replica, pytest.raises(grpc.RpcError) as refusal:
        replica.call("Trade", bourse_pb2.TradeRequest(name="stock5", quantity=1))
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert cluster.leader_id() != old
    status = cluster.status(old)
    assert status is not None
    assert status.role == "follower"
    cluster.check_promises(load.acknowledged)


def test_a_paused_follower_is_not_in_sync_and_returns(cluster: Cluster) -> None:
    with BourseClient(cluster.url) as client:
        client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
    leader = cluster.leader_id()
    follower = next(replica_id for replica_id in REPLICAS if replica_id != leader)

    def in_sync() -> list[int]:
        status = cluster.status(leader)
        return list(status.in_sync) if status else []

    def disturb(load: Load) -> None:
        wait_for(lambda: follower in in_sync(), 10, in_sync)
        cluster.pause(f"order-{follower}")
        let_pass(load, 100)
        wait_for(lambda: follower not in in_sync(), 5, in_sync)
        cluster.resume(f"order-{follower}")
        wait_for(lambda: follower in in_sync(), 10, in_sync)

    load = run_load(cluster, disturb)
    cluster.check_promises(load.acknowledged)


@pytest.mark.slow
def test_redis_is_flushed_under_load(cluster: Cluster) -> None:
    load = run_load(cluster, lambda _load: cluster.flush_redis())
    cluster.check_promises(load.acknowledged)


@pytest.mark.parametrize("damage", ["wiped", pytest.param("scribbled", marks=pytest.mark.slow)])
def test_a_lost_order_log_is_rebuilt(cluster: Cluster, damage: str) -> None:
    with BourseClient(cluster.url) as client:
        client.trade("stock7", 3, "SELL", str(uuid.uuid4()))
    leader = f"order-{cluster.leader_id()}"

    def disturb(load: Load) -> None:
        cluster.kill(leader)
        if damage == "wiped":
            cluster.wipe(leader)
        else:
            database = cluster.data(leader) / "orders.db"
            # Otherwise SQLite would read the newest pages from the write-ahead log.
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            content = bytearray(database.read_bytes())
            content[len(content) // 2 :] = b"\xaa" * (len(content) - len(content) // 2)
            database.write_bytes(content)
        cluster.start(leader)

    load = run_load(cluster, disturb)
    if damage == "scribbled":
        assert "the log is damaged, rebuilding it" in cluster.log(leader)
    cluster.check_promises(load.acknowledged)


@pytest.mark.slow
def test_all_order_logs_are_lost(cluster: Cluster) -> None:
    with BourseClient(cluster.url) as client:
        key = str(uuid.uuid4())
        number = int(client.trade("stock8", 2, "BUY", key).data["transaction_number"])
        names = [f"order-{replica_id}" for replica_id in REPLICAS]
        cluster.kill(*names)
        for name in names:
            cluster.wipe(name)
        for name in names:
            cluster.start(name)
        assert client.order(number).status == 200
        assert client.trade("stock8", 2, "BUY", key).data == {"transaction_number": number}
    cluster.check_promises({key: number})


# ---------------------------------------------------------------- stopping


@pytest.mark.slow
def test_sigterm_ends_each_part_cleanly(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        load = Load(cluster.url, 4)
        with load.running():
            let_pass(load, 50)
            codes = [cluster.stop("frontend")]
        for name in ("order-1", "order-2", "order-3", "catalog"):
            codes.append(cluster.stop(name))
            assert "stopped" in cluster.log(name)
            assert not list(cluster.data(name).glob("*-wal")), f"{name} left a write-ahead log"
        assert codes == [0, 0, 0, 0, 0]
        for name in cluster.parts:
            assert "Traceback" not in cluster.log(name)
        cluster.heal()
        cluster.check_promises(load.acknowledged)


def _eventually_ok(client: BourseClient, key: str) -> Answer:
    def attempt() -> Answer | None:
        answer = client.trade("stock6", 1, "BUY", key)
        return answer if answer.status == 200 else None

    answer = wait_for(attempt, 20, "the trade is done")
    assert answer is not None
    return answer
