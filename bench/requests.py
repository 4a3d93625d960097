"""`bench`: how fast each request is, and what it costs, compared with floors and with a rival.

It measures in turns: a bare Flask route, a bare Flask route with one empty gRPC call, the service,
and *plain*: the service as most people would write it, with Flask and one PostgreSQL. All have
an edge, and behind it as many containers, workers and threads, under the same limits. The service
is measured without its edge too, which shows what the edge costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from bench.copies.data import VOLUME, filled
from bench.copies.meter import Meter
from bench.copies.model import (
    Contents,
    Model,
    edge_of,
    with_direct_frontend,
    with_floors,
    with_frontend,
    with_plain,
    with_rare_probes,
    with_settings,
)
from bench.copies.project import Images, Project
from bench.copies.upkeep import cache_results, leader, looked_up, next_number
from bench.measuring.rounds import Contestant, Results, in_turns
from bench.measuring.wrk import Load, Measured, Wrk
from bench.requests_cases import (
    CONNECTIONS,
    DIRECT_FRONTEND,
    IN_TURN,
    OUR_TRADES,
    PROBABILITIES,
    TRADES,
    Case,
    Part,
    Point,
    SessionPoint,
    behind,
    cases_of,
    web_of,
)

# Of the figure, as the classic one has it.
_CLIENTS = 5
_CACHED_STOCKS = 10  # as many as the cache holds; these are traded, too
_CONTENTS = Contents(orders=10_000, stocks=1_000, volume=VOLUME)
_WARM_UP_S = 1.0
# Of a sample of lookups, so many must have come from where they are measured to come from.
_RIGHT_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class RequestsSettings:
    parts: Sequence[str]
    seconds: float  # of one measurement
    rounds: int

    @property
    def cases(self) -> list[Case]:
        """What was asked for, and what it is compared with."""
        measured = {case for part in self.parts for case in cases_of(part)}
        return [case for case in IN_TURN if case in measured]

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


def with_rival(model: Model) -> Model:
    return with_plain(model, _CONTENTS)


def model_of(base: Model) -> Model:
    """The service with a cache for some of the stocks, one frontend without it, and the floors.

    The rival is there already.
    """
    cached = with_settings(base, "frontend", {"CACHE_SIZE": str(_CACHED_STOCKS)})
    both = with_frontend(cached, "frontend-uncached", {"ENABLE_CACHE": "false"})
    return with_rare_probes(with_floors(with_direct_frontend(both, DIRECT_FRONTEND)))


def run(
    engine: Any, wrk: Wrk, settings: RequestsSettings, say: Callable[[str], None]
) -> RequestsResults:
    """Raises StackError, WrkFailed, NoAnswer."""
    images = Images(engine, say, with_rival)
    with images.built() as base, filled(_CONTENTS.orders, _CONTENTS.stocks) as data:
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
        self._uncached_url = project.url("frontend-uncached")
        self._urls = {case: self._url_of(case) for case in Case}
        next_number(self._url)
        self._leader = leader(project.containers)
        self._meters = {case: self._meter_of(case) for case in Case}

    def _url_of(self, case: Case) -> str:
        web = web_of(case)
        if web == DIRECT_FRONTEND:
            return self._project.direct_url(web)
        return self._project.url(web)

    def _meter_of(self, case: Case) -> Meter:
        web = web_of(case)
        parts = {Part.WEB: (web,), **behind(case, self._leader)}
        if web != DIRECT_FRONTEND:
            parts = {Part.EDGE: (edge_of(web),), **parts}
        return self._project.meter({str(part): names for part, names in parts.items()})

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
        if leader(self._project.containers) != self._leader:
            self._problem(f"{self._leader} leads no more: its time was told as the leader's")
        errors = Counter(results.points.errors()) + Counter(results.sessions.errors())
        for kind, count in errors.items():
            results.problems.append(f"{count} requests ended in an error: {kind}")
        return results

    def _warm_up(self) -> None:
        self._say("warming up")
        for case in Case:
            self._load(case, CONNECTIONS[-1], _WARM_UP_S)  # each thread takes part
        self._wrk.run(self._uncached_url, self._load_of(Case.CACHED), 16, _WARM_UP_S)

    def _measuring(self, case: Case, connections: int) -> Callable[[], Measured]:
        return lambda: self._measure(case, connections)

    def _measure(self, case: Case, connections: int) -> Measured:
        if case not in TRADES:
            measured = self._load(case, connections, self._settings.seconds)
            if case in (Case.CACHED, Case.UNCACHED):
                self._check_cache(case)
            return measured
        url = self._urls[case]
        before = next_number(url)
        measured = self._load(case, connections, self._settings.seconds)
        made = next_number(url) - before - 1
        if made < measured.requests - measured.error_count:
            self._problem(f"{case}: {measured.requests} were answered, {made} are in the books")
        return measured

    def _load(self, case: Case, connections: int, seconds: float) -> Measured:
        url, load = self._urls[case], self._load_of(case)
        with looked_up(url, _CACHED_STOCKS) if case in OUR_TRADES else nullcontext():
            return self._meters[case].around(lambda: self._wrk.run(url, load, connections, seconds))

    def _load_of(self, case: Case) -> Load:
        match case:
            case Case.HELLO | Case.HOP:
                return Load.get("/hello?name=user#", 1, _CACHED_STOCKS)
            case Case.CACHED | Case.DIRECT_CACHED | Case.PLAIN_LOOKUP:
                return Load.lookups(1, _CACHED_STOCKS)
            case Case.UNCACHED:  # again and again so many that each is gone when it comes again
                return Load.lookups(_CACHED_STOCKS + 1, _CONTENTS.stocks)
            case Case.TRADE | Case.DIRECT_TRADE | Case.PLAIN_TRADE:
                return Load.trades(_CACHED_STOCKS)
            case Case.ORDER | Case.PLAIN_ORDER:
                return Load.orders(1, _CONTENTS.orders)

    def _check_cache(self, case: Case) -> None:
        """Whether the lookups came from the cache, or from the catalog, as they should.

        It takes a second sample if the first one fails: all entries may have expired just before
        the first one, or the first one may ask for just the entries that are cached.
        """
        wanted, samples = {
            Case.CACHED: ("HIT", (1, 1)),
            Case.UNCACHED: ("MISS", (_CONTENTS.stocks // 2, _CONTENTS.stocks // 4)),
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
            f"  {round_number + 1}/{self._settings.rounds}  {point.case:<22} "
            f"{one.rate_per_s:>8,.0f}/s  p50 {one.p50_ms:.2f} ms  p99 {one.p99_ms:.2f} ms  "
            f"processor {one.processor_ms:.2f} ms{errors}"
        )

    def _problem(self, what: str) -> None:
        self._results.problems.append(what)
        self._say(f"PROBLEM: {what}")
