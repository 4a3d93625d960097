"""Redis fails while two frontends trade and look up: `pytest -s` prints a table.

No lookup is stale, no request is refused, and no answer waits longer than the protocol allows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.lease_figures import (
    Fault,
    Table,
    assert_not_held,
    check,
    chosen,
    held_until_s,
)
from tests.support.lease_load import UNREAD, LeaseLoad
from tests.support.lease_world import (
    LEASE_S,
    ORDERS,
    A,
    B,
    LeaseCluster,
    running_lease_cluster,
)
from tests.support.link import Mode

# After a change, all requests that began before it have ended within this time.
_MARGIN_S = 1.0
# After a fault, a frontend uses Redis again, and the leader the catalog, within this time.
_RECOVERY_S = 1.5
_LONG_S = LEASE_S + 3.0
_RANDOM_S = 12.0
_SEED = 7

pytestmark = pytest.mark.slow

CUTS = [Mode.SILENT, Mode.REFUSED, Mode.ONE_WAY]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    table = Table()
    yield table
    print(table)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeaseCluster]:
    with running_lease_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class World:
    """A healthy cluster, and a load on it during a fault."""

    def __init__(self, cluster: LeaseCluster, table: Table) -> None:
        self.cluster = cluster
        self._table = table

    def suffer(self, name: str, fail: Callable[[], None]) -> tuple[LeaseLoad, Fault]:
        """Runs a whole fault under load.

        Checks what must hold during every fault, and adds the figures to the table.
        """
        cluster = self.cluster
        load = LeaseLoad(cluster.urls, cluster.volumes())
        cluster.catalog_away.clear()
        with load.running():
            time.sleep(0.5)
            began_s = time.monotonic()
            fail()
            cluster.heal()
            healed_s = time.monotonic()
            time.sleep(_RECOVERY_S)
        fault = Fault(name, began_s, healed_s, tuple(cluster.catalog_away))
        self._table.add(load, fault)
        check(load, fault)
        return load, fault


@pytest.fixture
def world(running: LeaseCluster, table: Table) -> World:
    running.settle()
    running.wait_out_restart_lease()
    return World(running, table)


# ---------------------------------------------------------------- an outage for everybody


def test_redis_is_paused_for_more_than_a_lease(world: World) -> None:
    def fail() -> None:
        world.cluster.pause("redis")
        time.sleep(_LONG_S)

    load, fault = world.suffer("Redis paused 8 s", fail)
    assert held_until_s(load.trades) < fault.began_s + LEASE_S + _MARGIN_S
    assert_not_held(chosen(load.trades, after_s=fault.began_s + LEASE_S + _MARGIN_S))
    assert_not_held(chosen(load.trades, [UNREAD], after_s=fault.began_s))


def test_redis_is_killed_and_comes_back_empty(world: World) -> None:
    def fail() -> None:
        world.cluster.kill("redis")
        time.sleep(2.0)

    load, fault = world.suffer("Redis killed, back after 2 s", fail)
    assert max(one.elapsed_s for one in load.trades) < LEASE_S
    assert_not_held(chosen(load.trades, after_s=fault.healed_s + _MARGIN_S))


def test_redis_is_flushed_again_and_again(world: World) -> None:
    def fail() -> None:
        for _ in range(10):
            world.cluster.flush_redis()
            time.sleep(0.1)

    load, fault = world.suffer("FLUSHALL, 10 times in 1 s", fail)
    assert_not_held(chosen(load.trades, after_s=fault.began_s))


def test_redis_and_the_catalog_restart_at_once(world: World) -> None:
    load, fault = world.suffer(
        "Redis and catalog restarted", lambda: world.cluster.restart("redis", "catalog")
    )
    assert_not_held(chosen(load.trades, after_s=fault.healed_s + _MARGIN_S))


# ---------------------------------------------------------------- an outage for some


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.ONE_WAY], ids=lambda mode: mode.value)
def test_one_frontend_is_cut_off(world: World, mode: Mode) -> None:
    def fail() -> None:
        world.cluster.cut(A, mode=mode)
        time.sleep(_LONG_S)

    load, fault = world.suffer(f"Redis cut off from A, {mode.value}, 8 s", fail)
    assert_the_other_reads_and_is_not_held(load, fault.began_s + _MARGIN_S, fault.healed_s)
    # B still takes leases, so trades on A wait for them, but not for stocks that nobody reads.
    assert held_until_s(load.trades) > fault.began_s + LEASE_S + 1.0
    assert_not_held(chosen(load.trades, [UNREAD], [A], after_s=fault.began_s))


def assert_the_other_reads_and_is_not_held(
    load: LeaseLoad, after_s: float, before_s: float
) -> None:
    lookups = chosen(load.lookups, frontends=[B], after_s=after_s, before_s=before_s)
    hits = sum(one.cache == "HIT" for one in lookups)
    assert hits > len(lookups) / 4
    assert_not_held(chosen(load.trades, frontends=[B], after_s=after_s, before_s=before_s))


def test_the_replicas_are_cut_off(world: World) -> None:
    def fail() -> None:
        world.cluster.cut(ORDERS, mode=Mode.SILENT)
        time.sleep(1.0)

    load, fault = world.suffer("Redis cut off from the replicas, 1 s", fail)
    assert_not_held(chosen(load.trades, after_s=fault.began_s))


def test_the_catalog_restarts_while_one_frontend_is_cut_off(world: World) -> None:
    def fail() -> None:
        world.cluster.cut(A, ORDERS, mode=Mode.SILENT)
        time.sleep(0.5)
        world.cluster.restart("catalog")
        time.sleep(LEASE_S)

    load, fault = world.suffer("cut off from A, catalog restarted", fail)
    ((_, ready_s),) = fault.catalog_away
    assert_the_other_reads_and_is_not_held(load, ready_s + 2 * _MARGIN_S, fault.healed_s)
    assert held_until_s(chosen(load.trades, [UNREAD], [A], after_s=fault.began_s)) > ready_s


# ---------------------------------------------------------------- anything


def random_faults(cluster: LeaseCluster, chance: random.Random) -> dict[str, Callable[[], None]]:
    def flush() -> None:
        cluster.resume("redis")
        cluster.flush_redis()

    def cut() -> None:
        cluster.cut(chance.choice([A, B, ORDERS]), mode=chance.choice(CUTS))

    return {
        "cut": cut,
        "join": cluster.join,
        "pause": lambda: cluster.pause("redis"),
        "resume": lambda: cluster.resume("redis"),
        "restart redis": lambda: cluster.restart("redis"),
        "restart catalog": lambda: cluster.restart("catalog"),
        "flush": flush,
    }


def test_faults_at_random(world: World) -> None:
    chance = random.Random(_SEED)  # noqa: S311 - repeatable on purpose
    faults = random_faults(world.cluster, chance)

    def fail() -> None:
        end_s = time.monotonic() + _RANDOM_S
        while time.monotonic() < end_s:
            name = chance.choice(list(faults))
            print(name)
            faults[name]()
            time.sleep(chance.uniform(0.2, 2.0))

    load, _ = world.suffer(f"at random for {_RANDOM_S:g} s, seed {_SEED}", fail)
    world.cluster.check_promises(load.acknowledged)
