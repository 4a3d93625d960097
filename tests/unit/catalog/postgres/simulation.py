"""A deterministic simulation of several catalogs over one database of several nodes.

Candidate, tenure, store, decisions, leases and the gRPC service's methods are the real ones. The
database, the cache, the network, the clocks and the scheduler are simulated. Order replicas trade,
repeat and read the journal; frontends look up and fill the cache. A seed decides everything.
"""

from __future__ import annotations

import itertools
import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any, TypeVar, cast

from catalog.postgres.candidate import Candidate
from catalog.postgres.session import Session, SessionLost
from catalog.service import CatalogService
from catalog.stock import Stock
from catalog.store import Store
from common.domain import BUY, SELL, Trade
from common.errors import BourseError, Unavailable
from tests.unit.catalog.postgres.cache import Cache
from tests.unit.catalog.postgres.clients import CATALOGS, Client, Frontend, Leader, Replica
from tests.unit.catalog.postgres.database import Cluster, FakeSession
from tests.unit.catalog.postgres.faults import PROFILES, Faults, Profile
from tests.unit.catalog.postgres.history import History
from tests.unit.catalog.postgres.scheduler import Killed, Machine, Scheduler, Turn

OFFICE_S = 1.0
LEADERS, FRONTENDS = 3, 4
_CALL_TIMEOUT_S = 0.5

Result = TypeVar("Result")


class Watched:
    """A term's store, as the service sees it: other threads run between its steps."""

    def __init__(self, world: World, store: Any) -> None:
        self._world = world
        self._store = store
        self.cluster_id = store.cluster_id
        self.leases = _Steps(world, store.leases)

    def __getattr__(self, name: str) -> Any:
        return getattr(_Steps(self._world, self._store), name)


class _Steps:
    def __init__(self, world: World, wrapped: Any) -> None:
        self._world = world
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._wrapped, name)

        def step(*arguments: Any) -> Any:
            self._world.hesitate()
            return method(*arguments)

        return step


class Catalog:
    """A catalog process from one start until it is killed or leaves."""

    def __init__(self, world: World, name: str) -> None:
        chance = world.chance
        self.world = world
        self.name = name
        self.machine = Machine(name, chance.uniform(0.99, 1.01))
        self.is_stopping = False
        self.sessions: list[FakeSession] = []
        offset_s = chance.uniform(0.0, 1000.0)
        self.candidate = Candidate(
            connect=self._connect,
            holder=name,
            office_s=OFFICE_S,
            clock=lambda: offset_s + world.scheduler.now_s * self.machine.rate,
            wall_clock=lambda: 0.0,
            wait=self._wait,
            on_change=lambda active: world.faults.on_active(self) if active else None,
            make_turn=lambda: Turn(world.scheduler),
        )
        self.service = CatalogService(
            lambda: cast(Store, Watched(world, self.candidate.current())),
            max_streams=8,
            max_update_streams=8,
        )
        world.scheduler.spawn(self.machine, self.candidate.run)

    def _wait(self, duration_s: float) -> bool:
        if not self.is_stopping:
            self.world.scheduler.wait(duration_s / self.machine.rate)
        return self.is_stopping

    def _connect(self, avoided: str) -> Session:
        cluster, chance = self.world.cluster, self.world.chance
        nodes = chance.sample(cluster.nodes, len(cluster.nodes))
        for node in sorted(nodes, key=lambda node: node.name == avoided):
            self.world.scheduler.wait(0.002)
            if not (node.is_well and cluster.reaches(self.machine, node.machine)):
                self.world.scheduler.wait(0.1)
            elif node.follows is None:
                session = FakeSession(cluster, self.machine, node)
                self.sessions.append(session)
                return session
        raise SessionLost("no node takes writes")

    def resume(self) -> None:
        self.machine.resumes_at_s = 0.0
        self.world.scheduler.resume(self.machine)

    def kill(self) -> None:
        self.world.scheduler.kill(self.machine)
        for session in self.sessions:
            session.close()

    @property
    def is_active(self) -> bool:
        return self.candidate._term is not None

    @property
    def is_running(self) -> bool:
        return self.machine.resumes_at_s <= self.world.scheduler.now_s

    def saw(self, generation: int) -> bool:
        """While it stands by."""
        return self.candidate._office._tenure._seen[0] == generation and not self.is_active


class World:
    def __init__(self, seed: int, profile: Profile) -> None:
        self.profile = profile
        self.chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.scheduler = Scheduler()
        stocks = [Stock(name, Decimal(1), volume) for name, volume in profile.stocks.items()]
        self.cluster = Cluster(self.scheduler, self.chance, stocks)
        self.history = History(profile.stocks)
        clock_rate = self.chance.uniform(0.99, 1.01)
        self.cache = Cache(lambda: self.scheduler.now_s * clock_rate)
        self.faults = Faults(self, profile)
        self.catalogs = [Catalog(self, f"catalog-{number}") for number in range(CATALOGS)]
        self.clients: list[Client] = []
        self.cut_off: set[Client] = set()  # those that do not reach the cache
        self.is_over = False
        self._request_ids = itertools.count()
        self._trades: list[Trade] = []
        self._named = list(profile.stocks)[:1]
        self.scheduler.after(profile.begin_s, self._begin)

    def _begin(self) -> None:
        self.clients += [Leader(self, number) for number in range(LEADERS)]
        self.clients += [Frontend(self, number) for number in range(FRONTENDS)]
        self.clients += [Replica(self, 0)]
        for client in self.clients:
            self.scheduler.spawn(Machine(f"client of {type(client).__name__}"), client.run)
        self.faults.begin()

    # ------------------------------------------------------------ the network

    def hesitate(self) -> None:
        """Other threads run now, sometimes for a while."""
        kind = self.chance.random()
        if kind < 0.2:
            self.scheduler.wait(self.profile.hesitation_s * self.chance.random())
        elif kind < 0.6:
            self.scheduler.wait(0.0)

    def call(self, catalog: Catalog, work: Callable[[], Result]) -> Result:
        """Has a process serve a call.

        Raises:
            Unavailable: it died, or has not answered in time; it may do the work later.
        """
        scheduler, client = self.scheduler, self.scheduler.machine
        scheduler.wait(self.chance.uniform(0.0002, 0.001))
        if catalog.machine.resumes_at_s > scheduler.now_s:
            return self._call_paused(catalog, work)
        scheduler.machine = catalog.machine
        try:
            return work()
        except Killed:
            if client.is_dead:
                raise
            raise Unavailable("the connection broke") from None
        finally:
            scheduler.machine = client
            if not client.is_dead:
                scheduler.wait(self.chance.uniform(0.0002, 0.001))

    def _call_paused(self, catalog: Catalog, work: Callable[[], Result]) -> Result:
        scheduler, task = self.scheduler, self.scheduler.task
        outcomes: list[Any] = []

        def serve() -> None:
            try:
                outcomes.append(work())
            except BourseError as error:
                outcomes.append(error)
            if is_waiting:
                scheduler.wake(task)

        is_waiting = [True]
        scheduler.spawn(catalog.machine, serve)
        give_up_at_s = scheduler.now_s + _CALL_TIMEOUT_S
        while not outcomes and scheduler.now_s < give_up_at_s:
            scheduler.wait(give_up_at_s - scheduler.now_s)
        is_waiting.clear()
        outcome = outcomes[0] if outcomes else Unavailable("deadline")
        if isinstance(outcome, BourseError):
            raise outcome
        result: Result = outcome
        return result

    def pick_trade(self) -> Trade:
        """A new one, or one that somebody has asked for before."""
        if self._trades and self.chance.random() < 0.4:
            return self.chance.choice(self._trades[-8:])
        name = self.pick_stock()
        kind = BUY if self.chance.random() < 0.55 else SELL
        trade = Trade(f"r{next(self._request_ids)}", name, kind, self.chance.randint(1, 3))
        self._trades.append(trade)
        return trade

    def pick_stock(self) -> str:
        """Any, or one that somebody else is busy with."""
        names = list(self.profile.stocks) if self.chance.random() < 0.5 else self._named
        name = self.chance.choice(names)
        self._named = [*self._named[-7:], name]
        return name

    # ------------------------------------------------------------ the run

    def run(self) -> None:
        self.scheduler.run(self.profile.duration_s)
        self.faults.heal()
        self.scheduler.run(self.scheduler.now_s + 0.5)
        self.is_over = True
        self.scheduler.run(self.scheduler.now_s + 8.0 * OFFICE_S)
        self._trade_once_more()
        state = self.cluster.leader.shown
        self.history.check(state.orders, list(state.stocks.values()))

    def _trade_once_more(self) -> None:
        """All is well by now, so it must succeed at once."""
        decided = self.history.count_decided()

        def trade() -> None:
            leader = Leader(self, LEADERS)
            while self.history.count_decided() == decided:
                with suppress(BourseError):
                    leader.work()

        self._trades.clear()
        self.scheduler.spawn(Machine("order"), trade)
        self.scheduler.run(self.scheduler.now_s + 1.0)
        assert self.history.count_decided() > decided, "nothing goes on in the end"


@contextmanager
def silent_log() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def explore(seed: int) -> World:
    """Runs one history. Raises AssertionError as soon as a promise is broken."""
    with silent_log():
        world = World(seed, PROFILES[seed % len(PROFILES)])
        try:
            world.run()
        finally:
            world.scheduler.close()
    return world


def main() -> None:
    """`python -m tests.unit.catalog.postgres.simulation 0 5000` explores these seeds."""
    first, last = map(int, sys.argv[1:])
    for seed in range(first, last):
        try:
            explore(seed)
        except AssertionError as broken:
            print(f"seed {seed}: {broken}")


if __name__ == "__main__":
    main()
