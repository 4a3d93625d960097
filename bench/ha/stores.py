"""`stores`: what the catalog on PostgreSQL costs, beside the same service on SQLite.

Both run at once, as compose.yaml and compose.ha.yaml have them, and are measured in turns. The one
that is not measured has nothing to do, but it is not idle: beats, polls and leases go on. They take
time of the same cores. How much, is measured too, and it is set off where rates are compared.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bench.copies.meter import Meter
from bench.copies.model import Model, edge_of, with_frontend, with_rare_probes, with_settings
from bench.copies.project import Images, Project
from bench.copies.upkeep import leader, looked_up, next_number
from bench.measuring.rounds import Contestant, Results, in_turns
from bench.measuring.wrk import Load, Measured, Wrk
from stack.offices import ACTIVE, PRIMARY, STANDBY, STANDBY_CATALOG, Offices
from stack.parts import ETCD_SERVICES, HA_FILES, ORDER_SERVICES, POSTGRES_SERVICES
from stack.waiting import wait_for

CONNECTIONS = (1, 8, 16, 32)

_STOCKS = 10  # all that there are at first; as many as the cache holds
_UNCACHED = "frontend-uncached"
_WARM_UP_S = 1.0
_IDLE_S = 10.0
_WHOLE_WITHIN_S = 60.0


class Store(StrEnum):
    SQLITE = "SQLite"
    POSTGRES = "PostgreSQL"


class Case(StrEnum):
    TRADE = "trade"
    CACHED = "cached lookup"
    UNCACHED = "uncached lookup"


CASE_OF_PART: Mapping[str, Case] = {
    "trade": Case.TRADE,
    "cached": Case.CACHED,
    "uncached": Case.UNCACHED,
}


class Part(StrEnum):
    """Whose processor time is told apart."""

    EDGE = "edge"
    FRONTENDS = "frontends"
    LEADER = "leader"
    FOLLOWERS = "followers"
    CATALOG = "catalog"
    STANDBY_CATALOG = "other catalog"
    PRIMARY = "primary"
    SYNC_STANDBY = "sync standby"
    STANDBY = "other standby"
    ETCD = "etcd"
    REDIS = "redis"


class Point(NamedTuple):
    case: Case
    store: Store
    connections: int


@dataclass(frozen=True, slots=True)
class StoresSettings:
    parts: Sequence[str]
    seconds: float  # of one measurement
    rounds: int

    @property
    def cases(self) -> list[Case]:
        return [case for part, case in CASE_OF_PART.items() if part in self.parts]


@dataclass(slots=True)
class StoresResults:
    """`idle_s`: the processor time of each part in a second in which nobody asks."""

    cores: int
    points: Results[Point] = field(default_factory=Results)
    idle_s: dict[Store, dict[str, float]] = field(default_factory=dict)
    memory_mib: dict[Store, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def set_off(self) -> float:
        """A rate on PostgreSQL to one on SQLite, times this, is as if each copy ran alone.

        That is right where the rates end because the processors are busy. With few connections they
        are not. There the ratio comes out too low.
        """
        return self._left_to(Store.SQLITE) / self._left_to(Store.POSTGRES)

    def _left_to(self, store: Store) -> float:
        """The share of the processors that the other copy leaves, being idle."""
        others = [parts for other, parts in self.idle_s.items() if other is not store]
        return 1 - sum(sum(parts.values()) for parts in others) / self.cores


def run(
    engine: Any, wrk: Wrk, settings: StoresSettings, say: Callable[[str], None]
) -> StoresResults:
    """Raises StackError, WrkFailed, NoAnswer."""
    with (
        _running(engine, say, Store.SQLITE) as sqlite,
        _running(engine, say, Store.POSTGRES) as postgres,
    ):
        copies = {copy.store: copy for copy in (sqlite, postgres)}
        return _Stores(copies, wrk, settings, say).run()


@contextmanager
def _running(engine: Any, say: Callable[[str], None], store: Store) -> Iterator[_Copy]:
    images = Images(engine, say, files=HA_FILES if store is Store.POSTGRES else ())
    with images.built() as base:
        project = Project(engine, images, model_of(base), say)
        with project.up():
            yield _Copy(project, store)


def model_of(base: Model) -> Model:
    """The service with a cache for all stocks, and one frontend without it."""
    cached = with_settings(base, "frontend", {"CACHE_SIZE": str(_STOCKS)})
    return with_rare_probes(with_frontend(cached, _UNCACHED, {"ENABLE_CACHE": "false"}))


class _Copy:
    """The service on one store."""

    def __init__(self, project: Project, store: Store) -> None:
        self.project = project
        self.store = store
        self.url = project.url()
        next_number(self.url)
        self.served_by = self.now_served_by()

    def now_served_by(self) -> tuple[str, dict[str, str]]:
        """The leader, and who holds which office behind it. Raises StackError."""
        containers = self.project.containers
        offices = Offices(containers)
        if self.store is Store.POSTGRES:
            wait_for(offices.database_is_whole, _WHOLE_WITHIN_S, offices.members)
        return leader(containers), offices.holders()

    def url_of(self, case: Case) -> str:
        return self.project.url(_frontend_of(case))

    def meter(self, cases: Collection[Case]) -> Meter:
        """Of what serves these, and of all behind that."""
        frontends = tuple({_frontend_of(case): None for case in cases})
        parts: dict[Part, tuple[str, ...]] = {
            Part.EDGE: tuple(edge_of(name) for name in frontends),
            Part.FRONTENDS: frontends,
            **parts_behind(*self.served_by),
        }
        return self.project.meter({str(part): names for part, names in parts.items()})


def _frontend_of(case: Case) -> str:
    return _UNCACHED if case is Case.UNCACHED else "frontend"


def parts_behind(leader: str, holders: Mapping[str, str]) -> dict[Part, tuple[str, ...]]:
    """The services behind the frontends. Where the catalog is on SQLite, nobody holds an office."""
    replicas = {
        Part.LEADER: (leader,),
        Part.FOLLOWERS: tuple(name for name in ORDER_SERVICES if name != leader),
        Part.REDIS: ("redis",),
    }
    if not holders:
        return {**replicas, Part.CATALOG: ("catalog",)}
    return {
        **replicas,
        Part.CATALOG: (holders[ACTIVE],),
        Part.STANDBY_CATALOG: (holders[STANDBY_CATALOG],),
        Part.PRIMARY: (holders[PRIMARY],),
        Part.SYNC_STANDBY: (holders[STANDBY],),
        Part.STANDBY: tuple(sorted({*POSTGRES_SERVICES} - {*holders.values()})),
        Part.ETCD: ETCD_SERVICES,
    }


class _Stores:
    def __init__(
        self,
        copies: Mapping[Store, _Copy],
        wrk: Wrk,
        settings: StoresSettings,
        say: Callable[[str], None],
    ) -> None:
        self._copies = copies
        self._wrk = wrk
        self._settings = settings
        self._say = say
        self._results = StoresResults(os.cpu_count() or 1)
        self._meters = {
            (case, store): copy.meter([case]) for case in Case for store, copy in copies.items()
        }

    def run(self) -> StoresResults:
        results = self._results
        self._warm_up()
        for store, copy in self._copies.items():
            self._say(f"{store}, idle")
            results.idle_s[store] = copy.meter(list(Case)).idle(_IDLE_S)
        for connections in CONNECTIONS:
            self._say(f"{connections} connections")
            in_turns(
                list(self._contestants(connections)),
                self._settings.rounds,
                self._show,
                results.points,
            )
        self._note_the_end()
        return results

    def _contestants(self, connections: int) -> Iterator[Contestant[Point]]:
        """Side by side, what is compared."""
        for case in self._settings.cases:
            for store in Store:
                point = Point(case, store, connections)
                yield Contestant(point, lambda point=point: self._measure(point))  # type: ignore[misc]

    def _warm_up(self) -> None:
        self._say("warming up")
        for case in self._settings.cases:
            for store in Store:  # each thread takes part
                self._load(Point(case, store, CONNECTIONS[-1]), _WARM_UP_S)

    def _measure(self, point: Point) -> Measured:
        if point.case is not Case.TRADE:
            return self._load(point, self._settings.seconds)
        url = self._copies[point.store].url
        before = next_number(url)
        measured = self._load(point, self._settings.seconds)
        made = next_number(url) - before - 1
        if made < measured.requests - measured.error_count:
            self._problem(
                f"{point.store}: {measured.requests} trades were answered, {made} are in the books"
            )
        return measured

    def _load(self, point: Point, seconds: float) -> Measured:
        case, store, connections = point
        url = self._copies[store].url_of(case)
        is_trade = case is Case.TRADE
        load = Load.trades(_STOCKS) if is_trade else Load.lookups(1, _STOCKS)
        with looked_up(url, _STOCKS) if is_trade else nullcontext():
            meter = self._meters[case, store]
            return meter.around(lambda: self._wrk.run(url, load, connections, seconds))

    def _note_the_end(self) -> None:
        results = self._results
        for store, copy in self._copies.items():
            results.memory_mib[store] = copy.project.memory_mib()
            if (now := copy.now_served_by()) != copy.served_by:
                self._problem(f"{store}: served by {now} at the end, by {copy.served_by} before")
        for kind, count in Counter(results.points.errors()).items():
            results.problems.append(f"{count} requests ended in an error: {kind}")

    def _show(self, round_number: int, point: Point, one: Measured) -> None:
        errors = f"  {dict(one.errors)}" if one.errors else ""
        self._say(
            f"  {round_number + 1}/{self._settings.rounds}  {point.case:<15} {point.store:<10} "
            f"{one.rate_per_s:>8,.0f}/s  p50 {one.p50_ms:.2f} ms  p99 {one.p99_ms:.2f} ms  "
            f"processor {one.processor_ms:.2f} ms{errors}"
        )

    def _problem(self, what: str) -> None:
        self._results.problems.append(what)
        self._say(f"PROBLEM: {what}")
