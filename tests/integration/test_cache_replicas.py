"""Redis with a replica: neither a replica nor one that was promoted serves a stale quote.

Replication is asynchronous: a primary confirms an invalidation that its replica may never get.
Each scenario passes with its mechanism, and fails when that mechanism is taken out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from frontend.model import CacheResult
from tests.support.cache_world import CatalogInMemory, Worker
from tests.support.link import Link, Mode
from tests.support.mechanisms import taken_out
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer, closed_port, running_redis

# So long that nothing expires while a test runs.
LEASE_MS = 60_000
OLD, NEW = 1, 2


class World:
    """Two servers, and two workers that each reach Redis over their own link.

    At first both links lead to `first`, which is the primary. The replication uses a third link.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.first = stack.enter_context(running_redis())
        self.second = stack.enter_context(running_redis())
        unused_port = stack.enter_context(closed_port())
        ports = iter(range(base := free_ports(3), base + 3))
        self.replication, self._reader_link, self._trader_link = (
            self._link(stack, port) for port in ports
        )
        self.catalog = CatalogInMemory(["stock1"], LEASE_MS)
        self.reader, self.trader = (
            self._worker(stack, link, unused_port)
            for link in (self._reader_link, self._trader_link)
        )

    def _link(self, stack: ExitStack, port: int) -> Link:
        link = Link(port, self.first.port)
        stack.callback(link.close)
        return link

    def _worker(self, stack: ExitStack, link: Link, unused_port: int) -> Worker:
        url = f"redis://127.0.0.1:{link.port}/0"
        worker = Worker(self.catalog, url, unused_port, LEASE_MS)
        stack.callback(worker.close)
        return worker

    def replicate(self, primary: RedisServer, replica: RedisServer) -> None:
        self.replication.target_port = primary.port
        replica.replicate(self.replication.port)
        primary.wait_for_replica()

    def lead_to(self, server: RedisServer) -> None:
        """Directs new connections of the workers to this server. Open connections stay."""
        self._reader_link.target_port = self._trader_link.target_port = server.port

    def trade(self) -> None:
        """Returns when the trade is acknowledged."""
        assert self.trader.trade("stock1") == NEW

    def fill(self) -> None:
        assert self.reader.version("stock1") == OLD
        assert self.result() is CacheResult.HIT

    def result(self) -> CacheResult:
        return self.reader.quotes.find("stock1")[1]


@contextmanager
def world_with_two_servers() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def reader_at_a_replica(world: World) -> None:
    """The server of the reader was demoted, and gets no more from the new primary."""
    world.fill()
    world.replicate(world.first, world.second)
    world.second.promote()
    world.lead_to(world.second)
    assert world.trader.version("stock1") == OLD  # reads from the new primary
    world.replicate(world.second, world.first)
    world.replication.set(Mode.SILENT)
    world.trade()


def promoted_without_the_invalidation(world: World) -> None:
    world.fill()
    world.replicate(world.first, world.second)
    world.replication.set(Mode.SILENT)
    world.trade()
    world.first.kill()
    world.second.promote()
    world.lead_to(world.second)


def late_fill_at_a_promoted_replica(world: World) -> None:
    """A lookup gets its token from the old primary, and sends its fill to the new one."""

    def overtake(_name: str) -> None:
        world.catalog.before_answer = lambda _name: None
        world.replicate(world.first, world.second)
        world.replication.set(Mode.SILENT)
        world.trade()
        world.first.kill()
        world.second.promote()
        world.lead_to(world.second)

    world.catalog.before_answer = overtake
    assert world.reader.version("stock1") == OLD


def demoted_and_promoted_again(world: World) -> None:
    """The same process becomes primary again, now with the data of the other server.

    No worker used the other server as primary, so the data contains no trace of it.
    """
    world.fill()
    world.replicate(world.first, world.second)
    world.second.promote()
    world.trade()
    world.replicate(world.second, world.first)
    world.first.promote()


SCENARIOS = [
    (reader_at_a_replica, "primary check"),
    (promoted_without_the_invalidation, "replication id"),
    (late_fill_at_a_promoted_replica, "replication id"),
    (demoted_and_promoted_again, "replication id"),
]


@pytest.mark.parametrize(("scenario", "_mechanism"), SCENARIOS)
def test_a_later_lookup_is_never_older_than_the_trade(
    scenario: Callable[[World], None], _mechanism: str
) -> None:
    with world_with_two_servers() as world:
        scenario(world)
        assert world.reader.version("stock1") == NEW
        assert world.trader.version("stock1") == NEW


@pytest.mark.parametrize(("scenario", "mechanism"), SCENARIOS)
def test_without_the_mechanism_it_would_be(
    scenario: Callable[[World], None], mechanism: str
) -> None:
    with taken_out(mechanism), world_with_two_servers() as world:
        scenario(world)
        assert world.reader.version("stock1") == OLD


def test_a_demoted_primary_is_left_for_the_one_that_the_name_leads_to() -> None:
    with world_with_two_servers() as world:
        world.fill()
        world.replicate(world.first, world.second)
        world.second.promote()
        world.replicate(world.second, world.first)
        world.lead_to(world.second)
        started_at = time.monotonic()
        world.trade()
        assert time.monotonic() - started_at < LEASE_MS / 1000 / 2, "it waited for the lease"
        seen = [world.result() for _ in range(4)]
        assert seen[-1] is CacheResult.HIT, seen
        assert world.reader.version("stock1") == NEW
