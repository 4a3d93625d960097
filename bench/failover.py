"""`failover`: how long no trade is acknowledged when the leader is killed or paused.

`Strikes` does that for whatever is broken.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.copies.data import filled
from bench.copies.project import Images, Project
from bench.copies.upkeep import looked_up, next_number
from bench.measuring.wrk import Load, Measured, Wrk
from stack.containers import Containers
from stack.observations import in_sync, leader_of
from stack.observer import Observer
from stack.parts import ORDER_SERVICES
from stack.waiting import wait_for

CONNECTIONS = 16
STOCKS = 10

_ORDERS = 10_000
_BEFORE_S = 1.0  # under load before the strike
_IN_SYNC_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to break it.

    `limit_s` is what the 99th percentile is to be at most, `after_s` for how long the load goes on
    after the strike: several times what it is meant to take, or long enough for what follows.
    """

    name: str
    what: str  # for people
    limit_s: float
    after_s: float
    may_refuse: bool = False  # 503 is a right answer meanwhile


KILL = Kind("kill", "kill of the leader", limit_s=0.3, after_s=3.0)
PAUSE = Kind("pause", "pause of the leader", limit_s=1.5, after_s=5.0)
KINDS = (KILL, PAUSE)


@dataclass(frozen=True, slots=True)
class FailoverSettings:
    times: Mapping[Kind, int]


@dataclass(frozen=True, slots=True)
class Failover:
    """What one cost: `gap_s` is the longest time between two acknowledgements around it."""

    kind: Kind
    service: str
    gap_s: float
    usual_gap_s: float  # the longest before it, for comparison
    rate_per_s: float  # before it
    refused: int = 0  # answers that were errors


@dataclass(slots=True)
class FailoverResults:
    strikes: list[Failover] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> list[Kind]:
        return list(dict.fromkeys(strike.kind for strike in self.strikes))

    def gaps_ms(self, kind: Kind) -> list[float]:
        return [1000 * strike.gap_s for strike in self.strikes if strike.kind == kind]


# Waits until all is whole. Returns what will be broken, by its name; inside, it is broken.
Breaking = Callable[[Kind], tuple[str, AbstractContextManager[None]]]


def run(
    engine: Any, wrk: Wrk, settings: FailoverSettings, say: Callable[[str], None]
) -> FailoverResults:
    """Raises StackError, WrkFailed, NoAnswer, Malformed."""
    images = Images(engine, say)
    with images.built() as base, filled(_ORDERS, STOCKS) as data:
        project = Project(engine, images, base, say)
        with project.up(data), Observer(engine, project.name, lambda _seen: None) as observer:

            def breaking(kind: Kind) -> tuple[str, AbstractContextManager[None]]:
                leader = leader_of_all(observer)
                return leader, broken(project.containers, leader, is_killed=kind is KILL)

            return Strikes(project.url(), wrk, say, breaking).run(settings)


def longest_gap_s(answers_s: Sequence[float], since_s: float, until_s: float) -> float | None:
    """The longest time without an answer that touches this time, up to its end.

    None when there was no answer before its end at all.
    """
    seen = [*sorted(at_s for at_s in answers_s if at_s < until_s), until_s]
    gaps = [later - earlier for earlier, later in itertools.pairwise(seen) if later >= since_s]
    return max(gaps, default=None)


class Strikes:
    """Trades all the time at `url`, while something is broken again and again."""

    def __init__(self, url: str, wrk: Wrk, say: Callable[[str], None], breaking: Breaking) -> None:
        self._url = url
        self._wrk = wrk
        self._say = say
        self._breaking = breaking
        self._results = FailoverResults()

    def run(self, settings: FailoverSettings) -> FailoverResults:
        """Each kind in turns, so that a disturbance of the machine hits all."""
        next_number(self._url)
        with looked_up(self._url, STOCKS):
            for number in range(1, max(settings.times.values()) + 1):
                for kind, times in settings.times.items():
                    if number <= times:
                        self._strike(kind, f"{kind.name} {number}/{times}")
        return self._results

    def _strike(self, kind: Kind, what: str) -> None:
        service, broken = self._breaking(kind)
        load = Load.trades(STOCKS, timed=True)
        with self._wrk.running(self._url, load, CONNECTIONS, _BEFORE_S + kind.after_s) as running:
            time.sleep(_BEFORE_S)
            struck_s = time.monotonic()
            with broken:
                measured = running.result()
        self._note(f"{what} of {service}", kind, service, struck_s, measured)

    def _note(
        self, what: str, kind: Kind, service: str, struck_s: float, measured: Measured
    ) -> None:
        answers = measured.answers_s
        before = [at_s for at_s in answers if at_s < struck_s]
        gap_s = longest_gap_s(answers, struck_s, struck_s + kind.after_s)
        usual_gap_s = longest_gap_s(before, 0.0, struck_s)
        if gap_s is None or usual_gap_s is None:
            self._problem(f"{what}: no trade was acknowledged before it")
            return
        if measured.errors.keys() - ({"status"} if kind.may_refuse else ()):
            self._problem(f"{what}: requests ended in an error: {dict(measured.errors)}")
        refused = f", {measured.error_count} refused" if measured.errors else ""
        self._say(f"{what}: {gap_s * 1000:,.0f} ms without an acknowledged trade{refused}")
        rate_per_s = len(before) / (struck_s - before[0])
        self._results.strikes.append(
            Failover(kind, service, gap_s, usual_gap_s, rate_per_s, measured.error_count)
        )

    def _problem(self, what: str) -> None:
        self._results.problems.append(what)
        self._say(f"PROBLEM: {what}")


def leader_of_all(observer: Observer) -> str:
    """Who leads, as soon as the others are in sync with it. Raises StackError."""
    since_ns = time.monotonic_ns()

    def leader() -> str | None:
        seen = observer.latest()
        if seen is None or seen.at_ns <= since_ns:
            return None
        alike = all(in_sync(seen, service) for service in ORDER_SERVICES)
        return leader_of(seen) if alike else None

    found = wait_for(leader, _IN_SYNC_WITHIN_S, lambda: f"in sync: {observer.latest()}")
    return str(found)


@contextmanager
def broken(containers: Containers, service: str, *, is_killed: bool) -> Iterator[None]:
    """Killed or paused inside, back outside."""
    strike, heal = (
        (containers.kill, containers.start) if is_killed else (containers.pause, containers.unpause)
    )
    try:
        strike(service)
        yield
    finally:
        heal(service)
