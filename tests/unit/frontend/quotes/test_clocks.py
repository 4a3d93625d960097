"""Clocks that differ in rate: a quote dies before the lease ends that it was looked up under.

A simulation: the catalog's leases and the cache's client are real, and what lies between them is
as bad as it may be. Redis confirms no invalidation, so the trade waits for the end of the lease.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from catalog.leases import Leases
from common.domain import ENTRY_MS, LEASE_MS
from frontend.quotes.cache import Hit, LRUCache, Miss
from tests.support.mechanisms import taken_out

# How much faster or slower than the true time a clock may run.
DRIFT = 0.01
RUNS = 800


@dataclass
class Time:
    """The true time, which nobody in the simulation sees."""

    now_s: float = 0.0


@dataclass(frozen=True)
class Clock:
    time: Time
    rate: float
    began_at_s: float

    def __call__(self) -> float:
        return self.began_at_s + self.rate * self.time.now_s


@dataclass
class OneEntry:
    """Redis as the cache uses it for one stock: it keeps a value until the value's end."""

    clock: Clock
    value: str = ""
    expiry_ms: int = 0

    def execute_command(self, *arguments: str | int) -> object:
        _evalsha, _digest, _keys, *given = arguments
        now_ms = math.floor(self.clock() * 1000)
        if len(given) == 1:  # get: name
            return [self.value] if now_ms < self.expiry_ms else ["generation", now_ms]
        # put: name, value, version, the token's generation and ms, an entry's life, size
        expiry_ms = int(given[4]) + int(given[5])
        if expiry_ms <= now_ms:
            return "expired"
        self.value, self.expiry_ms = str(given[1]), expiry_ms
        return "stored"


def is_stale(choice: random.Random, redis_rate: float, other_rates: tuple[float, float]) -> bool:
    """Whether a lookup that starts when the trade is acknowledged finds the quote before it."""
    time = Time()
    redis, catalog, frontend = (
        Clock(time, rate, choice.uniform(1e6, 2e6)) for rate in (redis_rate, *other_rates)
    )
    cache, leases = LRUCache(OneEntry(redis), size=1), Leases(catalog)
    time.now_s += choice.uniform(10, 20)  # the lease after the catalog's start is over

    found = cache.get("stock1")
    assert isinstance(found, Miss)
    time.now_s += choice.uniform(0, 0.05)
    leases.grant("stock1")
    looked_up_s = time.now_s
    time.now_s += choice.uniform(0, 0.2)
    cache.put("stock1", "old", 1, found.token)
    time.now_s = looked_up_s + choice.uniform(0, LEASE_MS / 1000)
    lease_ms = leases.remaining_ms("stock1")  # the trade has committed
    time.now_s += choice.uniform(0, 0.01)
    time.now_s += lease_ms / 1000 / frontend.rate  # the wait, on the frontend's clock
    return cache.get("stock1") == Hit("old")


def stale_runs(seeds: Iterable[int]) -> int:
    stale = 0
    for seed in seeds:
        choice = random.Random(seed)  # noqa: S311 - guards nothing
        redis, catalog, frontend = (choice.uniform(1 - DRIFT, 1 + DRIFT) for _ in range(3))
        stale += is_stale(choice, redis, (catalog, frontend))
    return stale


def worst_run() -> bool:
    slow, fast = 1 - DRIFT, 1 + DRIFT
    return is_stale(random.Random(1), slow, (fast, fast))  # noqa: S311 - guards nothing


def test_no_quote_outlives_its_lease_where_clocks_differ_in_rate() -> None:
    assert stale_runs(range(RUNS)) == 0
    assert not worst_run()
    assert ENTRY_MS / (1 - DRIFT) < LEASE_MS / (1 + DRIFT)


def test_with_equal_lengths_some_would() -> None:
    with taken_out("clock margin"):
        assert stale_runs(range(RUNS)) > 0
        assert worst_run()
