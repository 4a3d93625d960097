"""What a load saw around a fault: how long answers were held, and what may not have happened."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.support.lease_load import UNREAD, WATCHED, Exchange, LeaseLoad
from tests.support.lease_world import FRONTENDS, LEASE_S

DECISION_S = 4.5  # the frontend's patience for a decision
REQUEST_BUDGET_S = 10.0
REDIS_TIMEOUT_S = 0.2  # of the frontend, for one call
ALL = (*WATCHED, UNREAD)
HELD_S = 0.5  # no trade takes so long unless it waits for something

_HEADER = (
    f"{'scenario':<40} {'frontend':<10} {'trades':>6} {'> 0.5 s':>7} {'longest':>8} {'median':>8} "
    f"{'held until':>10} {'lookup p50':>10} {'worst':>8} {'503':>4} {'stale':>5}"
)


@dataclass(frozen=True)
class Fault:
    """What happened, and when; monotonic seconds."""

    name: str
    began_s: float
    healed_s: float
    # From each kill of the catalog until it was ready again.
    catalog_away: Sequence[tuple[float, float]] = ()

    def during(self, exchanges: Iterable[Exchange], frontend: str) -> list[Exchange]:
        """The frontend's requests that had the fault in their time."""
        return [
            one
            for one in exchanges
            if one.frontend == frontend
            and one.ended_s >= self.began_s
            and one.started_s <= self.healed_s
        ]

    def excuses(self, exchange: Exchange) -> bool:
        """Whether the request came while the catalog was away, or within a second of that."""
        return any(
            exchange.ended_s >= killed_s and exchange.started_s <= ready_s + 1.0
            for killed_s, ready_s in self.catalog_away
        )


def check(load: LeaseLoad, fault: Fault) -> None:
    """What holds in every fault of Redis: nothing stale, nobody refused, nobody beyond bounds."""
    assert load.stale == []
    assert load.problems == []
    exchanges = load.trades + load.lookups
    undue = [one for one in exchanges if one.status != 200 and not fault.excuses(one)]
    assert undue == []
    assert max(one.elapsed_s for one in exchanges) < REQUEST_BUDGET_S
    assert max(one.elapsed_s for one in load.trades) < DECISION_S + LEASE_S
    if not fault.catalog_away:
        assert_lookups_are_quick(load, fault)


def assert_lookups_are_quick(load: LeaseLoad, fault: Fault) -> None:
    """Most do not pay for a Redis that is away: the breaker keeps them from asking it."""
    for frontend in FRONTENDS:
        lookups = fault.during(load.lookups, frontend)
        assert statistics.median(one.elapsed_s for one in lookups) < REDIS_TIMEOUT_S


def chosen(
    exchanges: Iterable[Exchange],
    names: Iterable[str] = ALL,
    frontends: Iterable[str] = FRONTENDS,
    *,
    after_s: float,
    before_s: float = math.inf,
) -> list[Exchange]:
    """Those about such a stock, at such a frontend, that started in this time."""
    return [
        one
        for one in exchanges
        if after_s <= one.started_s < before_s and one.frontend in frontends and one.name in names
    ]


def assert_not_held(trades: Sequence[Exchange]) -> None:
    """None of them waits for a lease: one that did would, now and then, for most of one."""
    assert trades
    assert statistics.median(one.elapsed_s for one in trades) < HELD_S
    assert max(one.elapsed_s for one in trades) < LEASE_S / 2


def held_until_s(trades: Iterable[Exchange]) -> float:
    """When the last that waited for most of a lease was answered."""
    return max(one.ended_s for one in trades if one.elapsed_s > LEASE_S / 2)


class Table:
    """A line for each frontend in each fault."""

    def __init__(self) -> None:
        self.lines = [_HEADER]

    def add(self, load: LeaseLoad, fault: Fault) -> None:
        self.lines += [self._line(load, fault, frontend) for frontend in FRONTENDS]

    def _line(self, load: LeaseLoad, fault: Fault, frontend: str) -> str:
        trades = fault.during(load.trades, frontend)
        lookups = fault.during(load.lookups, frontend)
        held = [one for one in trades if one.elapsed_s > HELD_S]
        until_s = max((one.ended_s - fault.began_s for one in held), default=0.0)
        refused = sum(one.status == 503 for one in trades + lookups)
        took = [one.elapsed_s for one in trades]
        looked = [one.elapsed_s for one in lookups]
        return (
            f"{fault.name:<40} {frontend:<10} {len(trades):>6} {len(held):>7} "
            f"{max(took):>6.2f} s {statistics.median(took):>6.2f} s {until_s:>8.2f} s "
            f"{1000 * statistics.median(looked):>7.0f} ms {max(looked):>6.2f} s "
            f"{refused:>4} {len(load.stale):>5}"
        )

    def __str__(self) -> str:
        return "\n".join(("", *self.lines))
