"""Real processes, killed and paused under load: promises hold, and clients get no errors."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import grpc
import pytest

from client.api import Answer, BourseClient, Request, RetryPolicy
from common.domain import EMPTY_DIGEST, Order
from faults.checker import judge
from faults.history import Call, End, Record, Run
from faults.workload import LoadSettings, Workload
from proto import bourse_pb2
from stack.observations import Final, Position, Row
from stack.parts import ORDER_SERVICES
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


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("kill", marks=pytest.mark.slow),
        pytest.param("pause", marks=pytest.mark.slow),
        pytest.param("flush", marks=pytest.mark.slow),
    ],
)
def test_redis_fails_under_load(cluster: Cluster, fault: str) -> None:
    def disturb(load: Load) -> None:
        if fault == "kill":
            cluster.kill("redis")
            let_pass(load, 100)  # trades wait for one lease at most
            cluster.start("redis")
        elif fault == "pause":
            cluster.pause("redis")
            let_pass(load, 100)
            cluster.resume("redis")
        else:
            cluster.flush_redis()

    load = run_load(cluster, disturb)
    cluster.check_promises(load.acknowledged)


@pytest.mark.slow
def test_the_catalog_is_killed_and_comes_back(cluster: Cluster) -> None:
    with BourseClient(cluster.url, retry=RetryPolicy(attempts=1)) as client:
        number = int(client.trade("stock6", 1, "BUY", str(uuid.uuid4())).data["transaction_number"])
        cluster.kill("catalog")
        key = str(uuid.uuid4())
        refused = client.trade("stock6", 1, "BUY", key)
        assert refused.status == 503
        assert refused.headers["Retry-After"] is not None
        # Orders in a log are still found. If no log has an order, the catalog may still have it.
        assert client.order(number).status == 200
        assert client.order(number + 1000).status == 503
        assert client.order(-1).status == 404
        ready = client.send(Request("GET", "/readyz"))
        assert ready.status == 503
        cluster.start("catalog")
        first = _eventually_ok(client, key)
        again = client.trade("stock6", 1, "BUY", key)
    assert again.data == first.data
    cluster.check_promises({key: int(first.data["transaction_number"])})


@pytest.mark.slow
def test_everything_is_killed_at_once(cluster: Cluster) -> None:
    load = Load(cluster.url, CLIENTS)
    with load.running():
        let_pass(load, 200)
        cluster.kill(*cluster.parts)
        cluster.heal()
        let_pass(load, 100)
    # Clients get errors here. But each answer that they got must be true.
    assert not [problem for problem in load.problems if "stale" in problem]
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


# ---------------------------------------------------------------- without keys


@pytest.mark.slow
def test_who_sends_no_keys_notices_no_leader_that_dies(cluster: Cluster) -> None:
    """Uses the load and the checker of the fault injector on processes, without containers."""
    before = opening(cluster)
    records: list[Record] = [before]
    load = LoadSettings(CLIENTS, rate=0, seed=1, run_id="nobody", has_keys=False)
    workload = Workload(cluster.url, load, before.quantities, records.append)
    stopping = threading.Event()
    thread = threading.Thread(target=workload.run, args=(stopping, lambda: None))
    thread.start()
    try:
        for fault in ("kill", "pause"):
            wanted = workload.requests + 200
            wait_for(lambda wanted=wanted: workload.requests > wanted, 30, "requests")  # type: ignore[misc]
            victim = f"order-{cluster.leader_id()}"
            getattr(cluster, fault)(victim)
            wanted = workload.requests + 200
            wait_for(lambda wanted=wanted: workload.requests > wanted, 30, "requests")  # type: ignore[misc]
            cluster.heal()
    finally:
        stopping.set()
        thread.join()
    workload.verify(lambda: None)
    workload.close()
    records += at_the_end(cluster, before.first_number)
    judgement = judge(records)
    assert judgement.held, [one for one in judgement.verdicts if not one.held]
    assert {one.key for one in records if isinstance(one, Call)} == {None}


def opening(cluster: Cluster) -> Run:
    """The state before the run: what the earlier tests left."""
    parts = ("edge", "frontend-1", "catalog", *ORDER_SERVICES, "redis")
    final = final_state(cluster, cluster.journal())
    (end,) = {(said.last_number, said.digest) for said in final.replicas.values()}
    return Run(
        time.monotonic_ns(), cluster.url, "now", "", 1, CLIENTS, parts, *end, final.quantities,
        final.versions,
    )  # fmt: skip


def at_the_end(cluster: Cluster, first_number: int) -> list[Record]:
    """The records of the end: the rows after that number, and the final state."""
    journal = cluster.journal()
    rows = [
        Row(**{**asdict(row), "digest": row.digest.hex()})
        for row in journal
        if row.number > first_number
    ]
    return [*rows, final_state(cluster, journal), End(time.monotonic_ns(), interrupted=False)]


def final_state(cluster: Cluster, journal: list[Order]) -> Final:
    """The state of the catalog and of the replicas, once all replicas have the same log."""
    end = (journal[-1].number, journal[-1].digest) if journal else (0, EMPTY_DIGEST)
    cluster.wait_in_sync(*end)
    with cluster.catalog() as catalog:
        stocks = catalog.call("ListStocks", bourse_pb2.Empty()).stocks
    positions = {
        f"order-{replica_id}": Position(
            said.role, said.epoch, said.leader_id, said.last_number, said.digest.hex()
        )
        for replica_id, said in cluster.statuses().items()
        if said is not None
    }
    return Final(
        time.monotonic_ns(),
        end[0],
        {stock.name: stock.volume for stock in stocks},
        {stock.name: stock.version for stock in stocks},
        positions,
    )
