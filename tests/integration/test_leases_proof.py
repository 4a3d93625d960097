"""A quote is cached, Redis fails, and another frontend trades: step by step.

With all mechanisms, no sequence of steps ends in a stale read. Each sequence does so when its
mechanism is taken out of the real process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from stack.waiting import wait_for
from tests.support.lease_load import LeaseLoad
from tests.support.lease_world import (
    FRONTENDS,
    ORDERS,
    A,
    B,
    LeaseCluster,
    running_lease_cluster,
)
from tests.support.link import Mode

STOCK = "stock5"
_LOOKUPS = 6  # each on a new connection: enough to reach both workers in most cases
_TRIES = 3

Steps = Callable[[LeaseCluster], bool]  # returns whether a lookup at the end was stale


def cached_quantity(cluster: LeaseCluster) -> int:
    """Looks up the stock on B until that hits the cache."""

    def hit() -> int | None:
        answer = cluster.lookup(B, STOCK)
        return int(answer.data["quantity"]) if answer.headers["X-Cache"] == "HIT" else None

    quantity = wait_for(hit, 10, "no lookup hits the cache")
    assert quantity is not None
    return quantity


def is_stale(cluster: LeaseCluster, at_most: int) -> bool:
    answers = [cluster.lookup(name, STOCK) for _ in range(_LOOKUPS) for name in FRONTENDS]
    assert [answer.status for answer in answers] == [200] * len(answers)
    return any(answer.data["quantity"] > at_most for answer in answers)


def buy(cluster: LeaseCluster) -> None:
    assert cluster.trade(A, STOCK).status == 200


def cut_off_from_one(cluster: LeaseCluster) -> bool:
    quantity = cached_quantity(cluster)
    cluster.cut(A, mode=Mode.SILENT)
    buy(cluster)
    return is_stale(cluster, quantity - 1)


def paused(cluster: LeaseCluster) -> bool:
    """Trades while Redis is paused. The answer may have to wait until Redis runs again."""
    quantity = cached_quantity(cluster)
    cluster.pause("redis")
    with ThreadPoolExecutor(1) as executor:
        trade = executor.submit(buy, cluster)
        time.sleep(1.0)
        cluster.resume("redis")
        trade.result()
    return is_stale(cluster, quantity - 1)


def paused_under_load(cluster: LeaseCluster) -> bool:
    """The same under the load of the other tests of leases."""
    load = LeaseLoad(cluster.urls, cluster.volumes())
    with load.running():
        time.sleep(0.5)
        cluster.pause("redis")
        time.sleep(1.0)
        cluster.resume("redis")
        time.sleep(0.5)
    return bool(load.stale)


def catalog_restarts_during_a_cut(cluster: LeaseCluster) -> bool:
    buy(cluster)  # empties the cache, so that the next quote outlasts the restart
    cluster.cut(A, mode=Mode.SILENT)
    quantity = cached_quantity(cluster)
    cluster.restart("catalog")
    buy(cluster)
    return is_stale(cluster, quantity - 1)


def late_fill(cluster: LeaseCluster, then: Callable[[], None] = lambda: None) -> bool:
    """The link of B delays a fill until a trade is acknowledged."""
    buy(cluster)  # nothing is cached now
    quantity = cluster.volumes()[STOCK]
    cluster.pause("catalog")
    with ThreadPoolExecutor(1) as executor:
        lookup = executor.submit(cluster.lookup, B, STOCK)
        time.sleep(0.3)  # the lookup has its token and waits for the catalog
        cluster.cut(B, mode=Mode.SILENT)
        cluster.resume("catalog")
        answer = lookup.result()
    assert (answer.headers["X-Cache"], answer.data["quantity"]) == ("MISS", quantity)
    buy(cluster)
    then()
    cluster.cut(B, mode=Mode.OPEN)
    time.sleep(0.3)  # the fill has arrived
    return is_stale(cluster, quantity - 1)


def late_fill_across_a_flush(cluster: LeaseCluster) -> bool:
    return late_fill(cluster, then=cluster.flush_redis)


def snapshot_with_the_old_quote(cluster: LeaseCluster) -> bool:
    buy(cluster)  # nothing is cached now
    quantity = cached_quantity(cluster)
    cluster.save_redis()
    buy(cluster)
    cluster.restart("redis")
    return is_stale(cluster, quantity - 1)


# mechanism → the steps that would end in a stale read without it
SCENARIOS: dict[str, list[Steps]] = {
    "lease wait": [cut_off_from_one, paused, paused_under_load],
    "lease after a restart": [catalog_restarts_during_a_cut],
    "floor": [late_fill],
    "generation": [late_fill_across_a_flush],
    "replication id": [snapshot_with_the_old_quote],
}


def is_stale_after(steps: Steps, cluster: LeaseCluster) -> bool:
    """Runs the steps while only the frontends invalidate entries, not the replicas."""
    cluster.settle()
    cluster.cut(ORDERS, mode=Mode.SILENT)
    try:
        return steps(cluster)
    finally:
        cluster.heal()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeaseCluster]:
    with running_lease_cluster(tmp_path_factory.mktemp("whole")) as cluster:
        yield cluster


@pytest.mark.parametrize("steps", list(chain(*SCENARIOS.values())), ids=lambda one: one.__name__)
def test_no_lookup_is_stale(whole: LeaseCluster, steps: Steps) -> None:
    assert not is_stale_after(steps, whole)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", SCENARIOS)
def test_it_is_found_out_when_a_mechanism_is_missing(tmp_path: Path, mechanism: str) -> None:
    with running_lease_cluster(tmp_path, mechanism) as cluster:
        for steps in SCENARIOS[mechanism]:
            # On a busy machine the entry may have expired before the lookup.
            tries = (is_stale_after(steps, cluster) for _ in range(_TRIES))
            assert any(tries), steps.__name__
