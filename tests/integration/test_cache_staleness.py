"""A lookup that starts after a trade was acknowledged never shows the quantity before the trade.

There is a scenario for each mechanism that this needs. It passes with the mechanism, and fails when
the mechanism is taken out. So the scenario can fail, and the mechanism is necessary.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cache_world import CatalogInMemory, Worker
from tests.support.mechanisms import taken_out
from tests.support.redis_server import RedisServer, closed_port, running_redis

# Short where a scenario waits for the end of a lease. Long where no lease may end during the test.
SHORT_MS = 1_000
LONG_MS = 60_000

OLD, NEW = 1, 2


class World:
    """One stock, and two workers with one Redis."""

    def __init__(self, server: RedisServer, unused_port: int, lease_ms: int) -> None:
        self.server = server
        self.lease_s = lease_ms / 1000
        self.catalog = CatalogInMemory(["stock1"], lease_ms)
        self.reader, self.trader = (
            Worker(self.catalog, server.url, unused_port, lease_ms) for _ in range(2)
        )

    def trade(self) -> None:
        """Returns when the trade is acknowledged."""
        assert self.trader.trade("stock1") == NEW

    def meanwhile(self, *events: Callable[[], object]) -> None:
        """Looks up the stock. The events happen after the catalog was read and before the fill."""

        def before_answer(_name: str) -> None:
            self.catalog.before_answer = lambda _name: None
            for event in events:
                event()

        self.catalog.before_answer = before_answer
        assert self.reader.version("stock1") == OLD


def late_fill(world: World) -> None:
    world.meanwhile(world.trade)


def late_fill_across_a_restart(world: World) -> None:
    world.meanwhile(world.trade, world.server.restart)


def late_fill_across_a_flush(world: World) -> None:
    world.meanwhile(world.trade, world.server.flush)


def snapshot_with_the_old_quote(world: World) -> None:
    for _ in range(2):
        assert world.reader.version("stock1") == OLD
    world.server.save()
    world.trade()
    world.server.restart()


def late_fill_across_a_snapshot(world: World) -> None:
    world.meanwhile(world.server.save, world.trade, world.server.restart)


def fill_after_its_lease(world: World) -> None:
    world.meanwhile(world.trade, lambda: time.sleep(1.2 * world.lease_s))


def trade_while_cut_off(world: World) -> None:
    assert world.reader.version("stock1") == OLD
    world.trader.cache.is_cut_off = True
    world.trade()


SCENARIOS = [
    (late_fill, "floor", LONG_MS),
    (late_fill_across_a_restart, "generation", LONG_MS),
    (late_fill_across_a_flush, "generation", LONG_MS),
    (snapshot_with_the_old_quote, "replication id", LONG_MS),
    (late_fill_across_a_snapshot, "replication id", LONG_MS),
    (fill_after_its_lease, "token expiry", SHORT_MS),
    (trade_while_cut_off, "lease wait", SHORT_MS),
]


@contextmanager
def world_with(lease_ms: int) -> Iterator[World]:
    with (
        tempfile.TemporaryDirectory() as directory,
        running_redis(directory=Path(directory)) as server,
        closed_port() as unused_port,
    ):
        world = World(server, unused_port, lease_ms)
        try:
            yield world
        finally:
            world.reader.close()
            world.trader.close()


@pytest.mark.parametrize(("scenario", "_mechanism", "lease_ms"), SCENARIOS)
def test_a_later_lookup_is_never_older_than_the_trade(
    scenario: Callable[[World], None], _mechanism: str, lease_ms: int
) -> None:
    with world_with(lease_ms) as world:
        scenario(world)
        assert world.reader.version("stock1") == NEW
        assert world.trader.version("stock1") == NEW


@pytest.mark.parametrize(("scenario", "mechanism", "lease_ms"), SCENARIOS)
def test_without_the_mechanism_it_would_be(
    scenario: Callable[[World], None],
    mechanism: str,
    lease_ms: int,
) -> None:
    # Without the wait, no lease has to end. A long one does not end early on a slow machine.
    lease_ms = LONG_MS if mechanism == "lease wait" else lease_ms
    with taken_out(mechanism), world_with(lease_ms) as world:
        scenario(world)
        assert world.reader.version("stock1") == OLD


def test_with_redis_at_hand_a_trade_does_not_wait_for_the_lease() -> None:
    with world_with(LONG_MS) as world:
        assert world.reader.version("stock1") == OLD
        started_at = time.monotonic()
        world.trade()
        assert time.monotonic() - started_at < world.lease_s / 2
        assert world.reader.version("stock1") == NEW


def test_while_redis_is_paused_a_trade_waits_for_the_lease_and_no_longer() -> None:
    with running_redis() as server, closed_port() as unused_port:
        # A single try would take much longer than the lease.
        catalog = CatalogInMemory(["stock1"], SHORT_MS)
        worker = Worker(catalog, server.url, unused_port, SHORT_MS, redis_timeout_s=20)
        try:
            looked_up_at = time.monotonic()
            assert worker.version("stock1") == OLD
            server.pause()
            worker.trade("stock1")
            assert SHORT_MS / 1000 <= time.monotonic() - looked_up_at < 15
        finally:
            server.resume()
            worker.close()


def test_a_redis_that_comes_back_ends_the_wait() -> None:
    with world_with(LONG_MS) as world:
        assert world.reader.version("stock1") == OLD
        world.server.kill()
        trade = threading.Thread(target=world.trade)
        trade.start()
        trade.join(0.2)
        assert trade.is_alive()
        world.server.start()
        trade.join(20)
        assert not trade.is_alive()


def test_once_a_lease_has_passed_in_an_outage_nothing_waits() -> None:
    with world_with(SHORT_MS) as world:
        assert world.reader.version("stock1") == OLD
        world.server.kill()
        world.trade()
        assert world.reader.version("stock1") == NEW
        _version, lease_ms = world.catalog.trade("stock1")
        assert lease_ms == 0


def test_an_open_breaker_does_not_keep_invalidations_back() -> None:
    with world_with(LONG_MS) as world:
        assert world.reader.version("stock1") == OLD
        world.trader.cache.is_cut_off = True
        for _ in range(10):
            world.trader.version("stock1")
        world.trader.cache.is_cut_off = False
        started_at = time.monotonic()
        world.trade()
        assert time.monotonic() - started_at < world.lease_s / 2
