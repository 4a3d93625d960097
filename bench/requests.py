"""`bench`: how fast each request is, compared with the least that it could cost (its floor).

It measures in turns: a bare Flask route, a bare Flask route with one empty gRPC call, and the
service. All have an edge, and the same server with the same settings and limits. The service is
measured without its edge too, which shows what the edge costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bench.copies.data import filled
from bench.copies.model import (
    Model,
    with_direct_frontend,
    with_floors,
    with_frontend,
    with_settings,
)
from bench.copies.project import Images, Project
from bench.copies.upkeep import cache_results, looked_up, next_number
from bench.measuring.rounds import Contestant, Results, in_turns
from bench.measuring.wrk import Load, Measured, Wrk

CONNECTIONS = (1, 16, 32)
PROBABILITIES = (0.0, 0.2, 0.4, 0.6, 0.8)

# Of the figure, as the classic one has it.
_CLIENTS = 5
_STOCKS = 1_000
_CACHED_STOCKS = 10  # as many as the cache holds; these are traded, too
_ORDERS = 10_000
_WARM_UP_S = 1.0
_DIRECT = "frontend-direct"
# Of a sample of lookups, so many must have come from where they are measured to come from.
_RIGHT_SHARE = 0.7


class Case(StrEnum):
    HELLO = "bare hello"
    HOP = "bare hop"
    CACHED = "cached lookup"
    UNCACHED = "uncached lookup"
    TRADE = "trade"
    ORDER = "order lookup"
    DIRECT_CACHED = "cached lookup, no edge"
    DIRECT_TRADE = "trade, no edge"


FLOOR_OF: Mapping[Case, Case] = {
    Case.CACHED: Case.HELLO,
    Case.UNCACHED: Case.HOP,
    Case.TRADE: Case.HOP,
    Case.ORDER: Case.HOP,
}
_ORDER = (
    Case.HELLO,
    Case.CACHED,
    Case.DIRECT_CACHED,
    Case.HOP,
    Case.UNCACHED,
    Case.TRADE,
    Case.DIRECT_TRADE,
    Case.ORDER,
)
_TRADES = (Case.TRADE, Case.DIRECT_TRADE)
WITHOUT_EDGE: Mapping[Case, Case] = {
    Case.CACHED: Case.DIRECT_CACHED,
    Case.TRADE: Case.DIRECT_TRADE,
}
_CASE_OF_PART = {
    "cached": Case.CACHED,
    "uncached": Case.UNCACHED,
    "trade": Case.TRADE,
    "order": Case.ORDER,
}


class Point(NamedTuple):
    """Of the tables."""

    case: Case
    connections: int


class SessionPoint(NamedTuple):
    """Of the figure."""

    probability: float
    is_cached: bool


@dataclass(frozen=True, slots=True)
class RequestsSettings:
    parts: Sequence[str]
    seconds: float  # of one measurement
    rounds: int

    @property
    def cases(self) -> list[Case]:
        """Each behind its floor, and before itself without an edge."""
        wanted = [case for part, case in _CASE_OF_PART.items() if part in self.parts]
        measured = {one for case in wanted for one in (FLOOR_OF[case], case)}
        measured |= {WITHOUT_EDGE[case] for case in wanted if case in WITHOUT_EDGE}
        return [case for case in _ORDER if case in measured]

    @property
    def session_rounds(self) -> int:
        """The figure takes half of the rounds."""
        return (self.rounds + 1) // 2 if "figure" in self.parts else 0


@dataclass(slots=True)
class RequestsResults:
    points: Results[Point] = field(default_factory=Results)
    sessions: Results[SessionPoint] = field(default_factory=Results)
    memory_mib: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def model_of(base: Model) -> Model:
    """The service with a cache for some of the stocks, one frontend without it, and the floors."""
    cached = with_settings(base, "frontend", {"CACHE_SIZE": str(_CACHED_STOCKS)})
    both = with_frontend(cached, "frontend-uncached", {"ENABLE_CACHE": "false"})
    return with_floors(with_direct_frontend(both, _DIRECT))


def run(
    engine: Any, wrk: Wrk, settings: RequestsSettings, say: Callable[[str], None]
) -> RequestsResults:
    """Raises StackError, WrkFailed, NoAnswer."""
    images = Images(engine, say)
    with images.built() as base, filled(_ORDERS, _STOCKS) as data:
        project = Project(engine, images, model_of(base), say)
        with project.up(data):
            return _Requests(project, wrk, settings, say).run()


class _Requests:
    def __init__(
        self, project: Project, wrk: Wrk, settings: RequestsSettings, say: Callable[[str], None]
    ) -> None:
        self._project = project
        self._wrk = wrk
        self._settings = settings
        self._say = say
        self._results = RequestsResults()
        self._url = project.url()
        direct_url = project.direct_url(_DIRECT)
        self._uncached_url = project.url("frontend-uncached")
        self._urls = {
            Case.HELLO: project.url("floor-hello"),
            Case.HOP: project.url("floor-hop"),
            Case.DIRECT_CACHED: direct_url,
            Case.DIRECT_TRADE: direct_url,
        }

    def run(self) -> RequestsResults:
        self._warm_up()
        results, settings = self._results, self._settings
        for connections in CONNECTIONS:
            self._say(f"{connections} connections")
            contestants = [
                Contestant(Point(case, connections), self._measuring(case, connections))
                for case in settings.cases
            ]
            in_turns(contestants, settings.rounds, self._show, results.points)
        if settings.session_rounds:
            self._say("sessions, for the figure")
            self._sessions()
        results.memory_mib = self._project.memory_mib()
        errors = Counter(results.points.errors()) + Counter(results.sessions.errors())
        for kind, count in errors.items():
            results.problems.append(f"{count} requests ended in an error: {kind}")
        return results

    def _warm_up(self) -> None:
        self._say("warming up")
        next_number(self._url)
        for case in Case:
            self._load(case, 16, _WARM_UP_S)
        self._wrk.run(self._uncached_url, self._lookups(Case.CACHED), 16, _WARM_UP_S)

    def _measuring(self, case: Case, connections: int) -> Callable[[], Measured]:
        return lambda: self._measure(case, connections)

    def _measure(self, case: Case, connections: int) -> Measured:
        if case not in _TRADES:
            measured = self._load(case, connections, self._settings.seconds)
            if case in (Case.CACHED, Case.UNCACHED):
                self._check_cache(case)
            return measured
        before = next_number(self._url)
        measured = self._load(case, connections, self._settings.seconds)
        made = next_number(self._url) - before - 1
        if made < measured.requests - measured.error_count:
            self._problem(f"{measured.requests} trades were answered, {made} are in the books")
        return measured

    def _load(self, case: Case, connections: int, seconds: float) -> Measured:
        url, load = self._urls.get(case, self._url), self._lookups(case)
        with looked_up(url, _CACHED_STOCKS) if case in _TRADES else nullcontext():
            return self._wrk.run(url, load, connections, seconds)

    def _lookups(self, case: Case) -> Load:
        match case:
            case Case.HELLO | Case.HOP:
                return Load.get("/hello?name=user#", 1, _CACHED_STOCKS)
            case Case.CACHED | Case.DIRECT_CACHED:
                return Load.lookups(1, _CACHED_STOCKS)
            case Case.UNCACHED:  # again and again so many that each is gone when it comes again
                return Load.lookups(_CACHED_STOCKS + 1, _STOCKS)
            case Case.TRADE | Case.DIRECT_TRADE:
                return Load.trades(_CACHED_STOCKS)
            case Case.ORDER:
                return Load.orders(1, _ORDERS)

    def _check_cache(self, case: Case) -> None:
        """Whether the lookups came from the cache, or from the catalog, as they should.

        It takes a second sample if the first one fails: all entries may have expired just before
        the first one, or the first one may ask for just the entries that are cached.
        """
        wanted, samples = {
            Case.CACHED: ("HIT", (1, 1)),
            Case.UNCACHED: ("MISS", (_STOCKS // 2, _STOCKS // 4)),
        }[case]
        for first in samples:
            seen = cache_results(self._url, range(first, first + _CACHED_STOCKS))
            if seen[wanted] >= _RIGHT_SHARE * seen.total():
                return
        self._problem(f"{case}: X-Cache of a sample is {dict(seen)}, not {wanted}")

    def _sessions(self) -> None:
        contestants = [
            Contestant(SessionPoint(probability, is_cached), self._session(probability, is_cached))
            for probability in PROBABILITIES
            for is_cached in (True, False)
        ]
        in_turns(
            contestants,
            self._settings.session_rounds,
            lambda _round, key, one: self._say(
                f"  trade probability {key.probability:.0%}, cache "
                f"{'on' if key.is_cached else 'off'}: {one.rate_per_s:,.0f} requests/s"
            ),
            self._results.sessions,
        )

    def _session(self, probability: float, is_cached: bool) -> Callable[[], Measured]:
        url = self._url if is_cached else self._uncached_url
        # The same choices with and without the cache, and in each round.
        load = Load.session(_CACHED_STOCKS, probability, seed=round(100 * probability))
        return lambda: self._wrk.run(url, load, _CLIENTS, self._settings.seconds)

    def _show(self, round_number: int, point: Point, one: Measured) -> None:
        errors = f"  {dict(one.errors)}" if one.errors else ""
        self._say(
            f"  {round_number + 1}/{self._settings.rounds}  {point.case:<16} "
            f"{one.rate_per_s:>8,.0f}/s  p50 {one.p50_ms:.2f} ms  p99 {one.p99_ms:.2f} ms{errors}"
        )

    def _problem(self, what: str) -> None:
        self._results.problems.append(what)
        self._say(f"PROBLEM: {what}")
