"""Ways to lose and swap what catalog and replicas keep, and how it shows."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from catalog.sqlite.database import Database
from client.api import BourseClient, RetryPolicy
from common.domain import Order, Trade
from stack.waiting import wait_for
from tests.support.cluster import REPLICAS, Cluster
from tests.unit.catalog.support import store_on

APART = "do not belong together"


@contextmanager
def client_of(cluster: Cluster) -> Iterator[BourseClient]:
    with BourseClient(cluster.url, retry=RetryPolicy(attempts=1)) as client:
        yield client


def trade(cluster: Cluster, count: int) -> dict[str, int]:
    """Trades, and waits until all replicas have the orders. Returns request id → order number."""
    acknowledged = trade_among(cluster, count)
    journal = cluster.journal()
    cluster.wait_in_sync(len(journal), journal[-1].digest)
    return acknowledged


def trade_among(cluster: Cluster, count: int) -> dict[str, int]:
    """The same, but does not wait for anybody."""
    acknowledged = {}
    with BourseClient(cluster.url) as client:
        for _ in range(count):
            key = str(uuid.uuid4())
            answer = client.trade("stock5", 1, "BUY", key)
            acknowledged[key] = int(answer.data["transaction_number"])
    return acknowledged


def other_orders(directory: Path, stocks_file: Path, count: int) -> list[Order]:
    """Makes the catalog of another deployment, with that many orders. Returns its journal."""
    with closing(Database(directory, stocks_file)) as database:
        store = store_on(database, lambda: 0.0)
        store.fence(1, 1)
        store.update(1, [Trade(f"other-{n}", "stock5", "BUY", 2) for n in range(count)])
        return store.journal(0)


def replace_catalog(cluster: Cluster, make: Callable[[Path], object]) -> Path:
    """Restarts the catalog with other data. Returns the place of the right data."""
    cluster.kill("catalog")
    data = cluster.data("catalog")
    right = data.with_name(f"catalog-{uuid.uuid4().hex}")
    data.rename(right)
    make(data)
    cluster.start("catalog")
    return right


def put_back(cluster: Cluster, right: Path) -> None:
    cluster.kill("catalog")
    shutil.rmtree(cluster.data("catalog"))
    right.rename(cluster.data("catalog"))
    cluster.start("catalog")


def said_since(cluster: Cluster, name: str, start: int, what: str) -> bool:
    return what in cluster.log(name)[start:]


def assert_nobody_is_ready(cluster: Cluster) -> None:
    """And nobody leads."""

    def none_ready() -> bool:
        return all(
            one is not None and not one.ready and one.role == "follower"
            for one in cluster.statuses().values()
        )

    wait_for(none_ready, 20, cluster.statuses)
    for replica_id in REPLICAS:
        assert not cluster.parts[f"order-{replica_id}"].is_ready()


def assert_no_trade_is_acknowledged(cluster: Cluster) -> None:
    """Three at once: each waits until its time is over."""

    def refused(_number: int) -> None:
        with client_of(cluster) as client:
            answer = client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
            assert answer.status == 503, answer.body

    with ThreadPoolExecutor(3) as executor:
        list(executor.map(refused, range(3)))


def assert_no_order_is_served(cluster: Cluster, acknowledged: dict[str, int]) -> None:
    """Not even "there is no such order" by a catalog that may be the wrong one."""
    with client_of(cluster) as client:
        for number in acknowledged.values():
            answer = client.order(number)
            assert answer.status == 503, answer.body


def nothing_is_set_aside(cluster: Cluster) -> bool:
    return not list(cluster.directory.glob("order-*/orders.db.damaged-*"))


def ready_again(cluster: Cluster) -> None:
    for name in cluster.parts:
        cluster.wait_ready(name)


def log_lengths(cluster: Cluster) -> dict[str, int]:
    return {name: len(cluster.log(name)) for name in cluster.parts}


def wait_apart(cluster: Cluster, replica_id: int, before: dict[str, int]) -> None:
    """Until the replica has said that its log and the catalog contradict each other."""
    name = f"order-{replica_id}"
    wait_for(lambda: said_since(cluster, name, before[name], APART), 20, lambda: cluster.log(name))
    status = cluster.status(replica_id)
    assert status is not None
    assert (status.ready, status.role) == (False, "follower")
