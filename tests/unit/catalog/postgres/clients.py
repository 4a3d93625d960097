"""Those who use the catalogs of a simulated history: leaders, frontends and replicas."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from catalog.service import CatalogService
from catalog.stock import DONE
from common.domain import BUY, EMPTY_DIGEST, SELL, Order, Trade
from common.errors import BourseError, Contradiction, StaleEpoch
from common.wire import order_from_item
from proto import bourse_pb2
from tests.unit.catalog.postgres.database import CLUSTER_ID

if TYPE_CHECKING:
    from tests.unit.catalog.postgres.simulation import Catalog, World


CATALOGS = 3
_TYPES = {BUY: bourse_pb2.BUY, SELL: bourse_pb2.SELL}

Result = TypeVar("Result")


class Client(ABC):
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

    @abstractmethod
    def work(self) -> None:
        """One request."""

    @property
    def _catalog(self) -> Catalog:
        return self._world.catalogs[self._at % CATALOGS]

    def call(self, work: Callable[[CatalogService], Result]) -> Result:
        """Tries each catalog once. Now and then it stands for a worker that stays elsewhere."""
        if self._world.chance.random() < 0.15:
            self._at = self._world.chance.randrange(CATALOGS)
        for attempt in range(CATALOGS):
            try:
                return self._world.call(self._catalog, partial(work, self._catalog.service))
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
            found, how = (
                (answer.version, answer.volume),
                self._catalog.name,
            )
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
