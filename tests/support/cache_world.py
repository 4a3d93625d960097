"""A catalog in memory and workers around a real Redis: what the cache's tests have in common."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from catalog.leases import Leases
from common.domain import BUY, LEASE_MS, Trade
from common.redis_connections import connect_redis
from frontend.model import DONE, Decision, Quote
from frontend.quotes.breaker import CircuitBreaker
from frontend.quotes.cache import Hit, LRUCache, Miss, PutOutcome, Token
from frontend.quotes.quotes import CachedQuotes
from frontend.quotes.redis_client import OwnConnections
from frontend.trading.invalidation import CacheInvalidation
from frontend.trading.trading import Trading


class CatalogInMemory:
    """Stocks that are only a version, under leases as the catalog grants them.

    `before_answer` runs, with the name, between the reading of a value and its answer.
    """

    def __init__(self, names: Iterable[str], lease_ms: int) -> None:
        self._lock = threading.Lock()
        self._versions = dict.fromkeys(names, 1)
        self._speed = LEASE_MS / lease_ms
        self.before_answer: Callable[[str], None] = lambda _name: None
        self.restart()

    def restart(self) -> None:
        # The real leases on a clock so fast that one of theirs is as short as the test's.
        leases = Leases(lambda: time.monotonic() * self._speed)
        with self._lock:
            self._leases = leases

    def lookup(self, name: str, will_fill: bool) -> Quote:
        with self._lock:
            if will_fill:
                self._leases.grant(name)
            version = self._versions[name]
        self.before_answer(name)
        return Quote(name, Decimal("25.78"), quantity=100, version=version)

    def trade(self, name: str) -> tuple[int, int]:
        """The version after the trade, and what is left of the stock's lease in ms."""
        with self._lock:
            self._versions[name] += 1
            left_ms = self._leases.remaining_ms(name) / self._speed
            return self._versions[name], math.ceil(left_ms)


class CuttableCache:
    """The cache as one worker reaches it, or does not."""

    def __init__(self, connected: LRUCache, cut_off: LRUCache) -> None:
        self._connected = connected
        self._cut_off = cut_off
        self.is_cut_off = False
        self.outcomes: list[PutOutcome] = []

    def get(self, name: str) -> Hit | Miss:
        return self._reached.get(name)

    def put(self, name: str, value: str, version: int, token: Token) -> PutOutcome:
        outcome = self._reached.put(name, value, version, token)
        self.outcomes.append(outcome)
        return outcome

    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        self._reached.invalidate(versions)

    def remove(self, name: str) -> None:
        self._reached.remove(name)

    @property
    def _reached(self) -> LRUCache:
        return self._cut_off if self.is_cut_off else self._connected


class Worker:
    """A frontend worker's parts, wired as in the service; close it."""

    def __init__(
        self,
        catalog: CatalogInMemory,
        url: str,
        closed_port: int,
        lease_ms: int,
        redis_timeout_s: float = 2.0,
    ) -> None:
        self._catalog = catalog
        self._clients = [
            connect_redis(address, redis_timeout_s, max_connections=32)
            for address in (url, f"redis://127.0.0.1:{closed_port}/0")
        ]
        self.cache = CuttableCache(
            *(
                LRUCache(OwnConnections(client), size=3, lease_ms=lease_ms)
                for client in self._clients
            )
        )
        breaker = CircuitBreaker("Redis", retry_after_s=0.05)
        self.quotes = CachedQuotes(catalog, self.cache, breaker)
        self._invalidation = CacheInvalidation(self.cache)
        self._trading = Trading(self, self._invalidation)

    def trade(self, name: str) -> int:
        """The version of the trade, once it may be acknowledged."""
        return self._trading.trade(Trade("key", name, BUY, 1), 0.0).version

    def decide(self, trade: Trade, _arrived_at: float) -> Decision:
        """As the leader does."""
        version, lease_ms = self._catalog.trade(trade.name)
        return Decision(DONE, version, version, lease_ms, replayed=False)

    def version(self, name: str) -> int:
        """As a lookup that starts now answers it."""
        quote, _result = self.quotes.find(name)
        assert quote is not None
        return quote.version

    def close(self) -> None:
        self._invalidation.close()
        for client in self._clients:
            client.close()
