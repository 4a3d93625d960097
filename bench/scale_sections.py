"""The sections of `scale`: what each of them compares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.copies.data import filled
from bench.copies.model import (
    Model,
    with_frontend,
    with_one_container,
    with_replicas,
    with_settings,
)
from bench.copies.project import Images, Project
from bench.copies.upkeep import looked_up, next_number
from bench.measuring.wrk import Load, Wrk
from bench.scale import (
    HOT_STOCKS,
    CatchUp,
    Comparing,
    Comparison,
    Measure,
    Variant,
    note_memory,
)
from stack.observations import in_sync
from stack.observer import Observer
from stack.waiting import wait_for

_FEW_ORDERS, _MANY_ORDERS = 1_000, 1_000_000
_FEW_STOCKS, _SOME_STOCKS, _MANY_STOCKS = 10, 1_000, 100_000
_REPLICAS = (3, 5, 7)
_WORKERS = (1, 2, 3, 4)
_UNCACHED = "frontend-uncached"
_SMALL_CACHE, _LARGE_CACHE = HOT_STOCKS, 50_000

# None that an election would prefer.
_BEHIND, _MISSING_ROWS = "order-1", 100_000
_CATCH_UP_CONNECTIONS = 16
_BEFORE_S, _AFTER_S, _LONGEST_S = 4.0, 4.0, 90.0
_FILLING_S = 5.0

_CACHED = Measure("cached lookup", 16, lambda _end: Load.lookups(1, HOT_STOCKS))
# So many that each is gone from the cache when it comes again.
_MISS = Measure("uncached lookup", 16, lambda _end: Load.lookups(HOT_STOCKS + 1, _SOME_STOCKS))
_TRADE = Measure("trade", 32, lambda _end: Load.trades(HOT_STOCKS), leased=True)
_LONE_TRADE = Measure("trade, 1 connection", 1, _TRADE.load, leased=True)


@dataclass(frozen=True, slots=True)
class ScaleSettings:
    sections: Sequence[str]
    seconds: float
    rounds: int


@dataclass(slots=True)
class ScaleResults:
    comparisons: list[Comparison] = field(default_factory=list)
    catch_ups: list[CatchUp] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def run(engine: Any, wrk: Wrk, settings: ScaleSettings, say: Callable[[str], None]) -> ScaleResults:
    """Raises StackError, WrkFailed, NoAnswer, Malformed."""
    images = Images(engine, say)
    results = ScaleResults()
    with images.built() as base:
        comparing = Comparing(wrk, settings.rounds, settings.seconds, say)
        scale = _Scale(
            engine,
            lambda model, tag: Project(engine, images, model, say, tag),
            base,
            comparing,
            say,
        )
        for name in settings.sections:
            say(f"section {name}")
            if name == "catch-up":
                results.catch_ups = scale.catch_up((settings.rounds + 1) // 2)
            else:
                results.comparisons.append(scale.comparison(name))
    results.problems += _problems(results)
    return results


def _problems(results: ScaleResults) -> Iterator[str]:
    for one in results.comparisons:
        for kind, count in one.results.errors().items():
            yield f"{one.name}: {count} requests ended in an error: {kind}"
    for catch_up in results.catch_ups:
        if catch_up.errors:
            yield f"catch-up: requests ended in an error: {dict(catch_up.errors)}"


class _Scale:
    """`project` makes a project of a model and a tag."""

    def __init__(
        self,
        engine: Any,
        project: Callable[[Model, str], Project],
        base: Model,
        comparing: Comparing,
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._project = project
        self._base = with_settings(base, "frontend", {"CACHE_SIZE": str(HOT_STOCKS)})
        self._wrk = comparing.wrk
        self._comparing = comparing
        self._say = say

    def comparison(self, name: str) -> Comparison:
        sections = {
            "orders": self._orders,
            "stocks": self._stocks,
            "replicas": self._replicas,
            "workers": self._workers,
            "cache": self._cache,
        }
        return sections[name]()

    # ------------------------------------------------------------ the sections

    def _orders(self) -> Comparison:
        counts = {f"{count:,} orders": count for count in (_FEW_ORDERS, _MANY_ORDERS)}
        comparison = Comparison("orders", "orders in the books", list(counts), is_to_be_flat=True)
        plans = {end: (count, _SOME_STOCKS) for end, count in counts.items()}
        with self._projects(dict.fromkeys(counts, self._base), plans) as projects:
            measures = [
                _TRADE,
                _CACHED,
                _MISS,
                Measure("order lookup", 16, lambda end: Load.orders(1, counts[end])),
            ]
            self._compare(comparison, projects, measures)
        return comparison

    def _stocks(self) -> Comparison:
        counts = {f"{count:,} stocks": count for count in (_FEW_STOCKS, _MANY_STOCKS)}
        comparison = Comparison("stocks", "stocks in the catalog", list(counts), is_to_be_flat=True)
        plans = {end: (_FEW_ORDERS, count) for end, count in counts.items()}
        # Of ten stocks some would be found even in the smallest cache.
        model = with_frontend(self._base, _UNCACHED, {"ENABLE_CACHE": "false"})
        with self._projects(dict.fromkeys(counts, model), plans) as projects:
            measures = [
                # First, while nobody has looked up anything: then no trade waits for Redis, with
                # many stocks or few.
                Measure("trade of any stock", 32, lambda end: Load.trades(counts[end])),
                _TRADE,
                _CACHED,
                Measure(
                    "lookup, cache off",
                    16,
                    lambda end: Load.lookups(1, counts[end]),
                    frontend=_UNCACHED,
                ),
                Measure("order lookup", 16, lambda _end: Load.orders(1, _FEW_ORDERS)),
            ]
            self._compare(comparison, projects, measures)
        return comparison

    def _replicas(self) -> Comparison:
        models = {f"{count} replicas": with_replicas(self._base, count) for count in _REPLICAS}
        comparison = Comparison("replicas", "order replicas", list(models))
        with self._projects(models, {}) as projects:
            self._compare(comparison, projects, [_TRADE, _LONE_TRADE])
        return comparison

    def _workers(self) -> Comparison:
        """One service with a frontend for each number."""
        names = {f"{count} worker{'s' * (count > 1)}": count for count in _WORKERS}
        services = {
            end: "frontend" if count == _WORKERS[0] else f"frontend-{count}"
            for end, count in names.items()
        }
        model = with_one_container(self._base, "frontend")
        for end, service in services.items():
            model = with_frontend(model, service, {"WEB_CONCURRENCY": str(names[end])})
        comparison = Comparison("workers", "gunicorn workers of a frontend", list(names))
        project = self._project(model, "")
        with filled(_FEW_ORDERS, _SOME_STOCKS) as data, project.up(data):
            ends = [
                Variant(end, {"frontend": project.url(service)})
                for end, service in services.items()
            ]
            self._comparing.fill(comparison, ends, [_CACHED, _MISS, _TRADE])
            memory_mib = project.memory_mib()
            for end, service in services.items():
                comparison.memory_mib[end] = {"frontend": memory_mib[service]}
        return comparison

    def _cache(self) -> Comparison:
        sizes = {f"{size:,} entries": size for size in (_SMALL_CACHE, _LARGE_CACHE)}
        comparison = Comparison("cache", "entries that the cache holds", list(sizes))
        models = {
            end: with_settings(self._base, "frontend", {"CACHE_SIZE": str(size)})
            for end, size in sizes.items()
        }
        plans = dict.fromkeys(sizes, (_FEW_ORDERS, _MANY_STOCKS))
        with self._projects(models, plans) as projects:
            for end, project in projects.items():
                self._fill_cache(project, sizes[end])
            uncached = Measure("uncached lookup", 16, lambda _end: Load.lookups(1, _MANY_STOCKS))
            self._compare(comparison, projects, [_CACHED, uncached, _TRADE])
        return comparison

    def catch_up(self, times: int) -> list[CatchUp]:
        """A replica that lost its volume comes back while the others trade."""
        with filled(_MISSING_ROWS, _FEW_STOCKS) as data:
            project = self._project(self._base, "")
            url = project.url
            with (
                project.up(data),
                Observer(self._engine, project.name, lambda _seen: None) as observer,
                looked_up(url(), HOT_STOCKS),
            ):
                next_number(url())
                return [self._catch_up(project, observer) for _ in range(times)]

    def _catch_up(self, project: Project, observer: Observer) -> CatchUp:
        project.containers.stop(_BEHIND)
        project.containers.wipe(_BEHIND)
        url, load = project.url(), Load.trades(HOT_STOCKS, timed=True)
        began_s = time.monotonic()
        with self._wrk.running(url, load, _CATCH_UP_CONNECTIONS, _LONGEST_S) as running:
            time.sleep(_BEFORE_S)
            started_s = time.monotonic()
            project.containers.start(_BEHIND)
            in_sync_s = _in_sync_at(observer, _BEHIND, began_s + _LONGEST_S)
            self._say(f"  in sync {in_sync_s - started_s:.1f} s after its start")
            time.sleep(_AFTER_S)
            until_s = time.monotonic()
            running.end()
            measured = running.result()
        return CatchUp(
            [at_s - began_s for at_s in measured.answers_s],
            started_s - began_s,
            in_sync_s - began_s,
            until_s - began_s,
            measured.errors,
        )

    # ------------------------------------------------------------ how

    def _compare(
        self,
        comparison: Comparison,
        projects: Mapping[str, Project],
        measures: Sequence[Measure],
    ) -> None:
        frontends = {measure.frontend for measure in measures}
        ends = [
            Variant(label, {name: project.url(name) for name in ("frontend", *frontends)})
            for label, project in projects.items()
        ]
        self._comparing.fill(comparison, ends, measures)
        note_memory(comparison, projects)

    @contextmanager
    def _projects(
        self, models: Mapping[str, Model], plans: Mapping[str, tuple[int, int]]
    ) -> Iterator[dict[str, Project]]:
        """By end, all running at once; `plans` has the numbers of orders and stocks."""
        with ExitStack() as closing:
            projects = {}
            for number, (end, model) in enumerate(models.items(), start=1):
                project = self._project(model, str(number))
                with ExitStack() as preparing:
                    data = preparing.enter_context(filled(*plans[end])) if end in plans else None
                    closing.enter_context(project.up(data))
                projects[end] = project
            yield projects

    def _fill_cache(self, project: Project, size: int) -> None:
        """As full as it can be, of entries that are mostly past their lease."""
        url, filled = project.url(), 0
        while filled < size:
            self._say(f"filling a cache of {size:,}: {filled:,} entries")
            load = Load.lookups(1, _MANY_STOCKS, start=filled % _MANY_STOCKS + 1)
            filled += self._wrk.run(url, load, 32, _FILLING_S).requests


def _in_sync_at(observer: Observer, service: str, give_up_at_s: float) -> float:
    """When it was seen in sync. Raises StackError."""
    since_ns = time.monotonic_ns()

    def is_in_sync() -> bool:
        seen = observer.latest()
        return seen is not None and seen.at_ns > since_ns and in_sync(seen, service)

    left_s = give_up_at_s - time.monotonic()
    wait_for(is_in_sync, left_s, lambda: f"{service} catches up: {observer.latest()}")
    return time.monotonic()
