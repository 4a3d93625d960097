"""Catalogs that are lost, swapped, or restored from backups, with real processes.

Both sides report it. A log and a catalog that do not belong together serve nothing together, and
neither is changed.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from client.api import BourseClient
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.cluster import REPLICAS, Cluster
from tests.support.loss import (
    APART,
    assert_no_order_is_served,
    assert_no_trade_is_acknowledged,
    assert_nobody_is_ready,
    client_of,
    log_lengths,
    nothing_is_set_aside,
    other_orders,
    put_back,
    ready_again,
    replace_catalog,
    said_since,
    trade,
    trade_among,
    wait_apart,
)

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
