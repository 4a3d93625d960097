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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar, cast

from catalog.postgres.candidate import Candidate
from catalog.postgres.session import Session, SessionLost
from catalog.service import CatalogService
from catalog.stock import DONE, Stock
from catalog.store import Store
from common.domain import BUY, EMPTY_DIGEST, SELL, Order, Trade
from common.errors import BourseError, Contradiction, StaleEpoch, Unavailable
from common.wire import order_from_item
from proto import bourse_pb2
from tests.unit.catalog.postgres.cache import Cache
from tests.unit.catalog.postgres.database import CLUSTER_ID, Cluster, FakeSession
from tests.unit.catalog.postgres.faults import PROFILES, Faults, Profile
from tests.unit.catalog.postgres.history import History
from tests.unit.catalog.postgres.scheduler import Killed, Machine, Scheduler, Turn

OFFICE_S = 1.0
CATALOGS, LEADERS, FRONTENDS = 3, 3, 4
_CALL_TIMEOUT_S = 0.5
_TYPES = {BUY: bourse_pb2.BUY, SELL: bourse_pb2.SELL}

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


class Client:
    """Stays with the catalog that answered, and goes on to the next when it does not."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._at = number

    def run(self) -> None:
        while not self._world.is_over:
            self._world.scheduler.wait(self._world.chance.expovariate(1 / self.pause_s))
            try:
                self.work()
            except BourseError:
                pass  # its own client is told, and may ask again

    @property
    def pause_s(self) -> float:
        """From one request to the next, on average."""
        return 0.15

    @property
    def cut_off(self) -> float:
        """The chance that it does not reach the cache at first."""
        return 0.0

    def work(self) -> None:
        raise NotImplementedError

    def call(self, work: Callable[[CatalogService], Result]) -> Result:
        """Tries each catalog once. Now and then it stands for a worker that stays elsewhere."""
        if self._world.chance.random() < 0.15:
            self._at = self._world.chance.randrange(CATALOGS)
        for attempt in range(CATALOGS):
            catalog = self._world.catalogs[self._at % CATALOGS]
            try:
                return self._world.call(catalog, partial(work, catalog.service))
            except (StaleEpoch, Contradiction):
                raise
            except BourseError:
                self._at += 1
                if attempt == CATALOGS - 1:
                    raise
        raise AssertionError


class Leader(Client):
    """An order replica that makes itself the leader now and then, and a frontend beside it."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self._epoch = 0
        self._registered = 0
        self._rate = world.chance.uniform(0.99, 1.01)

    @property
    def pause_s(self) -> float:
        return self._world.profile.trade_pause_s

    @property
    def cut_off(self) -> float:
        return self._world.profile.leaders_cut_off

    def work(self) -> None:
        if self._epoch == 0 or self._world.chance.random() < 0.03:
            self._fence()
        if self._epoch:
            size = self._world.chance.randint(1, self._world.profile.largest_batch)
            trades = [self._world.pick_trade() for _ in range(size)]
            for _ in range(self._world.chance.randint(1, 3)):
                if self._send(trades):
                    return

    def _fence(self) -> None:
        asked = self._registered + 1
        request = bourse_pb2.FenceRequest(epoch=asked, leader_id=self._number + 1)
        answer = self.call(lambda service: service.Fence(request, None))  # type: ignore[arg-type]
        self._registered = answer.epoch
        self._epoch = asked if answer.accepted else 0
        if answer.accepted:
            self._world.history.leads(asked, self._number)

    def _send(self, trades: Sequence[Trade]) -> bool:
        """False if nobody knows what became of it."""
        history, fenced = self._world.history, self._world.history.fenced
        history.sent(self._epoch, trades)
        request = bourse_pb2.UpdateBatchRequest(
            epoch=self._epoch,
            trades=[
                bourse_pb2.TradeRequest(
                    request_id=one.request_id,
                    name=one.name,
                    type=_TYPES[one.type],
                    quantity=one.quantity,
                )
                for one in trades
            ],
        )
        try:
            answer = self.call(lambda service: service.UpdateBatch(request, None))  # type: ignore[arg-type]
        except StaleEpoch:
            self._epoch = 0
            return True
        except BourseError:
            return False
        for trade, result in zip(trades, answer.results, strict=True):
            assert not result.failure, f"{trade} failed by itself"
            order = order_from_item(result.row) if result.status == DONE else None
            history.decided(trade.request_id, result.status, order, result.replayed, fenced)
            if order is not None:
                self._make_safe(order, result.lease_ms)
        return True

    def _make_safe(self, order: Order, lease_ms: int) -> None:
        """The trade's client is answered when no older value can be in the cache."""
        world, scheduler = self._world, self._world.scheduler
        answer = lambda: world.history.acknowledged(order.name, order.version)  # noqa: E731
        until_s = scheduler.now_s + lease_ms / 1000 / self._rate

        def attempt() -> None:
            if self not in world.cut_off:
                world.cache.invalidate(order.name, order.version)
                scheduler.after(0.001, answer)
            elif scheduler.now_s >= until_s:
                answer()
            else:
                scheduler.at(min(until_s, scheduler.now_s + 1.0), attempt)

        scheduler.after(0.001, attempt)


class Frontend(Client):
    """Looks up, and fills the cache."""

    @property
    def pause_s(self) -> float:
        return self._world.profile.lookup_pause_s

    @property
    def cut_off(self) -> float:
        return self._world.profile.frontends_cut_off

    def work(self) -> None:
        world, name = self._world, self._world.pick_stock()
        floor, how = world.history.newest_acknowledged(name), "cache"
        uses_cache = self not in world.cut_off
        found = world.cache.get(name) if uses_cache else 0.0
        if not isinstance(found, tuple):
            token = found
            world.scheduler.wait(0.001)
            request = bourse_pb2.LookupRequest(name=name, will_fill=uses_cache)
            answer = self.call(lambda service: service.Lookup(request, None))  # type: ignore[arg-type]
            found, how = (answer.version, answer.volume), world.catalogs[self._at % CATALOGS].name
            if uses_cache:
                self._fill(name, found, token)
        world.history.looked_up(name, floor, *found, how)

    def _fill(self, name: str, found: tuple[int, int], token: float) -> None:
        late_s = 3.0 * self._world.chance.random() if self._world.chance.random() < 0.05 else 0.001
        put = lambda: self._world.cache.put(name, *found, token)  # noqa: E731
        self._world.scheduler.after(late_s, put)


class Replica(Client):
    """Follows the journal, and claims what it has."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self._rows: list[Order] = []

    def work(self) -> None:
        told = self._world.history.last_told
        request = bourse_pb2.SyncRequest(last_number=len(self._rows))
        batches = self.call(lambda service: list(service.Journal(request, None)))  # type: ignore[arg-type]
        for item in itertools.chain.from_iterable(batch.rows for batch in batches):
            order = order_from_item(item)
            assert order.number == len(self._rows) + 1, "a gap in the journal"
            self._world.history.row(order)
            self._rows.append(order)
        assert len(self._rows) >= told, "the journal ends before what was told"
        digest = self._rows[-1].digest if self._rows else EMPTY_DIGEST
        claim = bourse_pb2.CompareRequest(
            replica_id=1, last_number=len(self._rows), digest=digest, cluster_id=CLUSTER_ID
        )
        try:
            self.call(lambda service: service.Compare(claim, None))  # type: ignore[arg-type]
        except Contradiction as error:
            raise AssertionError("a log contradicts the journal that it came from") from error


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
