"""Catalogs and logs that are lost, swapped, or restored from backups, with real processes.

Both sides report it. A log and a catalog that do not belong together serve nothing together, and
neither is changed.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from catalog.sqlite.database import Database
from catalog.sqlite.store import CatalogStore
from client.api import BourseClient, RetryPolicy
from common.domain import Order, Trade
from order.log.log import OrderLog
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import REPLICAS, Cluster

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
        store = CatalogStore(database, lambda: 0.0)
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
    with client_of(cluster) as client:
        for _ in range(3):
            answer = client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
            assert answer.status == 503, answer.body


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


CATALOGS = ("emptied", "an older backup", "another deployment's, longer", "another's, shorter")


@pytest.mark.slow
@pytest.mark.parametrize("kind", CATALOGS)
def test_a_catalog_that_is_not_the_logs_is_refused_by_both(cluster: Cluster, kind: str) -> None:
    acknowledged = trade(cluster, 4)
    backup = cluster.directory / f"backup-{uuid.uuid4().hex}"
    shutil.copytree(cluster.data("catalog"), backup)  # the files are as after a kill
    acknowledged |= trade(cluster, 6)
    stocks_file = cluster.directory / "stocks.txt"
    count = len(cluster.journal())
    make: dict[str, Callable[[Path], object]] = {
        "emptied": lambda data: None,
        "an older backup": lambda data: shutil.copytree(backup, data),
        "another deployment's, longer": lambda data: other_orders(data, stocks_file, count + 7),
        "another's, shorter": lambda data: other_orders(data, stocks_file, 2),
    }
    before = log_lengths(cluster)
    right = replace_catalog(cluster, make[kind])
    assert_no_trade_is_acknowledged(cluster)
    assert_nobody_is_ready(cluster)
    assert_no_trade_is_acknowledged(cluster)
    assert_no_order_is_served(cluster, acknowledged)
    for name in ("catalog", "order-1", "order-2", "order-3"):
        assert said_since(cluster, name, before[name], APART), cluster.log(name)
    put_back(cluster, right)
    ready_again(cluster)
    acknowledged |= trade(cluster, 2)
    cluster.check_promises(acknowledged)
    assert nothing_is_set_aside(cluster)


def test_a_leader_steps_down_when_the_catalog_denies_its_log(cluster: Cluster) -> None:
    """Nobody trades, so nothing but the comparison tells it."""
    acknowledged = trade(cluster, 2)
    leader = cluster.leader_id()
    stocks_file = cluster.directory / "stocks.txt"
    right = replace_catalog(cluster, lambda data: other_orders(data, stocks_file, 3))
    assert_nobody_is_ready(cluster)
    assert "log and catalog do not belong together" in cluster.log(f"order-{leader}")
    put_back(cluster, right)
    ready_again(cluster)
    cluster.check_promises(acknowledged | trade(cluster, 2))


def test_data_of_the_version_before_gets_one_id(cluster: Cluster) -> None:
    """One replica is not there, and comes later."""
    acknowledged = trade(cluster, 3)
    journal = cluster.journal()
    names = ["catalog", *(f"order-{replica_id}" for replica_id in REPLICAS)]
    for name in names:
        assert cluster.stop(name) == 0
        file, version = ("catalog.db", 2) if name == "catalog" else ("orders.db", 1)
        with closing(sqlite3.connect(cluster.data(name) / file)) as connection:
            connection.executescript(f"DROP TABLE cluster; PRAGMA user_version = {version}")
    for name in names[:3]:
        cluster.start(name)
    acknowledged |= trade_among(cluster, 2)
    cluster.start("order-3")
    ids = set()
    for replica_id in REPLICAS:
        wait_for(lambda id_=replica_id: status_of(cluster, id_).cluster_id, 10, cluster.statuses)
        ids.add(status_of(cluster, replica_id).cluster_id)
    with cluster.catalog() as catalog:
        assert ids == {catalog.call("ListStocks", bourse_pb2.Empty()).cluster_id}
    assert cluster.journal()[:3] == journal[:3]
    cluster.check_promises(acknowledged | trade(cluster, 1))
    assert nothing_is_set_aside(cluster)


def status_of(cluster: Cluster, replica_id: int) -> bourse_pb2.StatusResponse:
    status = cluster.status(replica_id)
    assert status is not None
    return status


@pytest.mark.slow
def test_replicas_that_start_under_a_wrong_catalog_refuse_it_too(cluster: Cluster) -> None:
    acknowledged = trade(cluster, 5)
    names = [f"order-{replica_id}" for replica_id in REPLICAS]
    cluster.kill(*names)
    stocks_file = cluster.directory / "stocks.txt"
    right = replace_catalog(cluster, lambda data: other_orders(data, stocks_file, 3))
    for name in names:
        cluster.start(name, wait=False)
    assert_nobody_is_ready(cluster)
    assert_no_trade_is_acknowledged(cluster)
    assert_no_order_is_served(cluster, acknowledged)
    put_back(cluster, right)
    ready_again(cluster)
    cluster.check_promises(acknowledged | trade(cluster, 2))


def test_nobody_leads_when_the_catalog_comes_back_emptied(cluster: Cluster) -> None:
    """Clients try to trade all the time, so an attempt is running when the catalog returns."""
    acknowledged = trade(cluster, 5)
    cluster.kill("catalog")
    right = cluster.data("catalog").rename(cluster.directory / f"aside-{uuid.uuid4().hex}")
    is_back = threading.Event()

    def keep_trying() -> None:
        while not is_back.is_set():
            with client_of(cluster) as client:
                assert client.trade("stock5", 1, "BUY", str(uuid.uuid4())).status == 503

    with ThreadPoolExecutor(3) as clients:
        trying = [clients.submit(keep_trying) for _ in range(3)]
        cluster.start("catalog")
        is_back.set()
        for one in trying:
            one.result()
    assert_nobody_is_ready(cluster)
    assert cluster.journal() == []
    put_back(cluster, right)
    ready_again(cluster)
    cluster.check_promises(acknowledged | trade(cluster, 2))


def log_lengths(cluster: Cluster) -> dict[str, int]:
    return {name: len(cluster.log(name)) for name in cluster.parts}


def wait_apart(cluster: Cluster, replica_id: int, before: dict[str, int]) -> None:
    """Until the replica has said that its log and the catalog contradict each other."""
    name = f"order-{replica_id}"
    wait_for(lambda: said_since(cluster, name, before[name], APART), 20, lambda: cluster.log(name))
    status = cluster.status(replica_id)
    assert status is not None
    assert (status.ready, status.role) == (False, "follower")


def test_an_empty_replica_leads_under_a_new_catalog_and_the_full_ones_stay_out(
    cluster: Cluster,
) -> None:
    """Both are as at a first start. What they do is of another cluster, and stays apart."""
    acknowledged = trade(cluster, 5)
    journal = cluster.journal()
    cluster.kill("order-3")
    aside = cluster.data("order-3").rename(cluster.directory / f"aside-{uuid.uuid4().hex}")
    before = log_lengths(cluster)
    right = replace_catalog(cluster, lambda data: None)
    cluster.start("order-3")
    with BourseClient(cluster.url) as client:
        answer = client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
    assert answer.data == {"transaction_number": 1}
    for replica_id in (1, 2):
        wait_apart(cluster, replica_id, before)
    new = cluster.journal()
    assert cluster.replica_log(3) == new
    before = log_lengths(cluster)
    put_back(cluster, right)
    wait_apart(cluster, 3, before)
    for replica_id in (1, 2):
        cluster.wait_ready(f"order-{replica_id}")
        assert cluster.replica_log(replica_id) == journal
    assert nothing_is_set_aside(cluster)
    cluster.kill("order-3")
    cluster.wipe("order-3")
    aside.rename(cluster.data("order-3"))
    cluster.start("order-3")
    cluster.check_promises(acknowledged | trade(cluster, 2))


@pytest.mark.slow
def test_a_log_with_orders_that_a_backup_lacks_is_kept_and_stays_out(cluster: Cluster) -> None:
    """Two replicas were down while the third led, so they fit the backup, and go on with it."""
    acknowledged = trade(cluster, 5)
    cluster.kill("order-2", "order-3")
    backup = cluster.directory / f"backup-{uuid.uuid4().hex}"
    shutil.copytree(cluster.data("catalog"), backup)
    acknowledged |= trade_among(cluster, 4)
    journal = cluster.journal()
    cluster.kill("order-1")
    before = log_lengths(cluster)
    right = replace_catalog(cluster, lambda data: shutil.copytree(backup, data))
    cluster.start("order-1", wait=False)
    wait_apart(cluster, 1, before)
    cluster.start("order-2")
    cluster.start("order-3")
    with BourseClient(cluster.url) as client:
        answer = client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
    assert answer.data == {"transaction_number": len(journal) - 3}
    before = log_lengths(cluster)
    put_back(cluster, right)
    cluster.wait_ready("order-1")
    assert cluster.replica_log(1) == journal
    for replica_id in (2, 3):
        wait_apart(cluster, replica_id, before)
        cluster.kill(f"order-{replica_id}")
        cluster.wipe(f"order-{replica_id}")
        cluster.start(f"order-{replica_id}")
    cluster.check_promises(acknowledged | trade(cluster, 2))


# ---------------------------------------------------------------- a replica's log


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
