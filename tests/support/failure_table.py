"""The failure table, row by row: what dies, what must come of it, and what that rests on.

A scenario raises AssertionError when what it promises does not hold. Its clients do not repeat
anything, unless the row says that they are to.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from client.api import Answer, BourseClient, RetryPolicy
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import REPLICAS
from tests.support.rigged_cluster import RiggedCluster

NOWHERE = "127.0.0.1:1"
STOCK = "stock8"


@dataclass(frozen=True)
class Row:
    dies: str
    scenario: Callable[[RiggedCluster], None]
    mechanism: str  # without which the scenario fails
    failure: str  # as a pattern: how


def trade(cluster: RiggedCluster, key: str = "", attempts: int = 1) -> Answer:
    """One share of the stock, by a client that goes to the frontend once, if not told otherwise."""
    with BourseClient(cluster.url, retry=RetryPolicy(attempts=attempts)) as client:
        return client.trade(STOCK, 1, "BUY", key or str(uuid.uuid4()))


def acknowledged(answer: Answer) -> int:
    assert answer.status == 200, f"answered {answer.status}: {answer.body!r}"
    return int(answer.data["transaction_number"])


def quantity(cluster: RiggedCluster) -> int:
    with BourseClient(cluster.url, retry=RetryPolicy(attempts=1)) as client:
        return int(client.lookup(STOCK).data["quantity"])


def have_a_leader(cluster: RiggedCluster) -> int:
    acknowledged(trade(cluster, attempts=12))
    return cluster.leader_id()


def followers_of(leader: int) -> list[int]:
    return [replica_id for replica_id in REPLICAS if replica_id != leader]


# ---------------------------------------------------------------- the leader


def _dies_at(cluster: RiggedCluster, point: str) -> None:
    have_a_leader(cluster)
    before = len(cluster.journal())
    key = str(uuid.uuid4())
    cluster.arm(point)
    number = acknowledged(trade(cluster, key))
    cluster.start(cluster.wait_crashed())
    assert acknowledged(trade(cluster, key)) == number
    assert len(cluster.check_promises({key: number})) == before + 1


def leader_before_commit(cluster: RiggedCluster) -> None:
    _dies_at(cluster, "leader before commit")


def leader_after_commit(cluster: RiggedCluster) -> None:
    _dies_at(cluster, "leader after commit")


def leader_paused(cluster: RiggedCluster) -> None:
    """It stands still with a batch in its hand, which it sends when another leads."""
    leader = have_a_leader(cluster)
    orphan = str(uuid.uuid4())
    cluster.arm("leader before commit", "STOP")
    request = bourse_pb2.TradeRequest(request_id=orphan, name=STOCK, quantity=1)
    with cluster.replica(leader) as replica, contextlib.suppress(grpc.RpcError):
        replica.call("Trade", request, timeout_s=0.3)
    cluster.note_stopped(f"order-{leader}")
    acknowledged(trade(cluster))
    batches = cluster.log("catalog").count("batch of")
    cluster.resume(f"order-{leader}")
    wait_for(lambda: cluster.log("catalog").count("batch of") > batches, 10, "its batch arrives")
    journal = cluster.check_promises({})
    assert orphan not in [row.request_id for row in journal]
    status = cluster.status(leader)
    assert status is not None
    assert status.role == "follower"


def leader_cut_off(cluster: RiggedCluster) -> None:
    """First from the catalog; then, as another leads, that one from the frontends."""
    everybody = [f"order-{replica_id}" for replica_id in REPLICAS]
    cluster.kill(*everybody)
    cluster.start("order-3", CATALOG_ADDRESS=NOWHERE)
    cluster.start("order-2")
    cluster.start("order-1")
    acknowledged(trade(cluster))
    assert cluster.leader_id() == 2
    cluster.kill("frontend")
    addresses = {n: f"127.0.0.1:{cluster.parts[f'order-{n}'].port}" for n in (1, 3)}
    replicas = f"1={addresses[1]},2={NOWHERE},3={addresses[3]}"
    cluster.start("frontend", ORDER_REPLICAS=replicas)
    acknowledged(trade(cluster))
    assert cluster.leader_id() == 1
    with cluster.replica(2) as replica:
        try:
            replica.call("Trade", bourse_pb2.TradeRequest(name=STOCK, quantity=1))
        except grpc.RpcError as refusal:
            assert refusal.code() is grpc.StatusCode.FAILED_PRECONDITION  # noqa: PT017 - and else
        else:
            raise AssertionError("a leader that was replaced took a trade")
    cluster.kill("order-3", "frontend")
    cluster.heal()
    cluster.check_promises({})


# ---------------------------------------------------------------- followers


def follower_away(cluster: RiggedCluster) -> None:
    leader = have_a_leader(cluster)
    follower = followers_of(leader)[0]

    def in_sync() -> list[int]:
        status = cluster.status(leader)
        return list(status.in_sync) if status else []

    for leave, come_back in ((cluster.pause, cluster.resume), (cluster.kill, cluster.start)):
        wait_for(lambda: follower in in_sync(), 10, in_sync)
        leave(f"order-{follower}")
        acknowledged(trade(cluster))
        wait_for(lambda: follower not in in_sync(), 5, "the silent follower is called in sync")
        acknowledged(trade(cluster))
        come_back(f"order-{follower}")
    wait_for(lambda: follower in in_sync(), 10, in_sync)
    cluster.check_promises({})


def two_of_three(cluster: RiggedCluster) -> None:
    leader = have_a_leader(cluster)
    survivor = followers_of(leader)[0]
    cluster.kill(*(f"order-{replica_id}" for replica_id in REPLICAS if replica_id != survivor))
    acknowledged(trade(cluster))
    assert cluster.leader_id() == survivor
    cluster.heal()
    cluster.check_promises({})


# ---------------------------------------------------------------- the others


def catalog(cluster: RiggedCluster) -> None:
    """It dies with half a trade in its hand."""
    have_a_leader(cluster)
    number = acknowledged(trade(cluster))
    left = quantity(cluster)
    key = str(uuid.uuid4())
    cluster.arm("catalog inside transaction")
    with (
        BourseClient(cluster.url, retry=RetryPolicy(attempts=1)) as client,
        ThreadPoolExecutor(1) as executor,
    ):
        answer = executor.submit(trade, cluster, key)
        assert cluster.wait_crashed() == "catalog"
        cached = client.lookup(STOCK)
        assert (cached.status, cached.headers["X-Cache"]) == (200, "HIT")
        assert cached.data["quantity"] == left
        refused = answer.result()
        assert (refused.status, "Retry-After" in refused.headers) == (503, True)
        wait_for(lambda: client.lookup(STOCK).status == 503, 10, "its quote dies with its lease")
        assert client.order(number).status == 200
        assert client.order(number + 1_000_000).status == 503
        assert client.lookup("stock2").status == 503  # which nobody has looked up before
    cluster.start("catalog")
    again = acknowledged(trade(cluster, key, attempts=12))
    cluster.check_promises({key: again})


def redis(cluster: RiggedCluster) -> None:
    """It stands still, with an old quote in it; the replicas do not reach it at all."""
    for replica_id in REPLICAS:
        cluster.kill(f"order-{replica_id}")
        cluster.start(f"order-{replica_id}", REDIS_URL=f"redis://{NOWHERE}/0")
    have_a_leader(cluster)
    left = quantity(cluster)
    cluster.pause("redis")
    acknowledged(trade(cluster))
    assert quantity(cluster) == left - 1
    cluster.resume("redis")
    assert quantity(cluster) == left - 1, "a quote from before the trade"
    cluster.kill("redis")
    acknowledged(trade(cluster))
    assert quantity(cluster) == left - 2
    cluster.start("redis")
    assert quantity(cluster) == left - 2
    cluster.check_promises({})


def frontend_worker(cluster: RiggedCluster) -> None:
    """It dies with the answer in its hand; its client asks again under the same key."""
    have_a_leader(cluster)
    before = len(cluster.journal())
    key = str(uuid.uuid4())
    cluster.arm("frontend before answer")
    number = acknowledged(trade(cluster, key, attempts=12))
    assert cluster.has_fired("frontend before answer")
    assert len(cluster.check_promises({key: number})) == before + 1


def order_volume(cluster: RiggedCluster) -> None:
    """One is damaged so that SQLite sees nothing wrong with it, then one is wiped."""
    leader = have_a_leader(cluster)
    cluster.kill(f"order-{leader}")
    path = cluster.data(f"order-{leader}") / "orders.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE orders SET quantity = quantity + 1 WHERE number = 1")
    cluster.start(f"order-{leader}")
    acknowledged(trade(cluster))
    wait_for(lambda: cluster.replica_log(leader), 10, "it has rows again")
    first = cluster.replica_log(leader)[0]
    assert first == cluster.journal()[0], "a damaged row is served"
    assert "the log is damaged, rebuilding it" in cluster.log(f"order-{leader}")
    cluster.kill(f"order-{leader}")
    cluster.wipe(f"order-{leader}")
    cluster.start(f"order-{leader}")
    acknowledged(trade(cluster))
    cluster.check_promises({})


def everything(cluster: RiggedCluster) -> None:
    have_a_leader(cluster)
    key = str(uuid.uuid4())
    number = acknowledged(trade(cluster, key))
    cluster.kill(*cluster.parts)
    cluster.start("catalog")
    assert key in [row.request_id for row in cluster.journal()], "an acknowledged trade is lost"
    cluster.heal()
    assert acknowledged(trade(cluster, key, attempts=12)) == number
    cluster.check_promises({key: number})


ROWS = (
    Row(
        "leader before the catalog commit",
        leader_before_commit,
        "repeat at the next leader",
        "answered 503",
    ),
    Row("leader after the catalog commit", leader_after_commit, "recorded rows", "answered 503"),
    Row(
        "leader paused, resumes later",
        leader_paused,
        "fence check",
        "a deposed leader had a trade committed",
    ),
    Row(
        "leader cut off from the catalog, or from the frontends",
        leader_cut_off,
        "the next candidate",
        "answered 503",
    ),
    Row(
        "follower killed, paused or cut off",
        follower_away,
        "in sync by time",
        "called in sync",
    ),
    Row("two of three replicas", two_of_three, "no trade waits for followers", "answered 503"),
    Row("the only catalog", catalog, "one transaction", "stock8 has version 3 after 2 orders"),
    Row("redis", redis, "lease wait", "a quote from before the trade"),
    Row("frontend worker", frontend_worker, "recorded rows", "answered 500"),
    Row(
        "an order volume wiped or damaged",
        order_volume,
        "log verified at start",
        "a damaged row is served",
    ),
    Row("everything at once", everything, "commit before answer", "an acknowledged trade is lost"),
)
