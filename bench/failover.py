"""`failover`: how long no trade is acknowledged when the leader is killed or paused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

KINDS = ("kill", "pause")
CONNECTIONS = 16

_STOCKS = 10
_ORDERS = 10_000
# Under load before the strike, and after it: several times what it is meant to take.
_BEFORE_S = 1.0
_AFTER_S: Mapping[str, float] = {"kill": 3.0, "pause": 5.0}
_IN_SYNC_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class FailoverSettings:
    times: Mapping[str, int]  # of each kind


@dataclass(frozen=True, slots=True)
class Failover:
    """What one cost: `gap_s` is the longest time between two acknowledgements around it."""

    kind: str
    leader: str
    gap_s: float
    usual_gap_s: float  # the longest before it, for comparison
    rate_per_s: float  # before it


@dataclass(slots=True)
class FailoverResults:
    strikes: list[Failover] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def gaps_ms(self, kind: str) -> list[float]:
        return [1000 * strike.gap_s for strike in self.strikes if strike.kind == kind]


def run(
    engine: Any, wrk: Wrk, settings: FailoverSettings, say: Callable[[str], None]
) -> FailoverResults:
    """Raises StackError, WrkFailed, NoAnswer, Malformed."""
    images = Images(engine, say)
    with images.built() as base, filled(_ORDERS, _STOCKS) as data:
        project = Project(engine, images, base, say)
        with (
            project.up(data),
            Observer(engine, project.name, lambda _seen: None) as observer,
            looked_up(project.url(), _STOCKS),
        ):
            next_number(project.url())
            return _Failovers(project, observer, wrk, say).run(settings)


def longest_gap_s(answers_s: Sequence[float], since_s: float, until_s: float) -> float | None:
    """The longest time without an answer that touches this time, up to its end.

    None when there was no answer before its end at all.
    """
    seen = [*sorted(at_s for at_s in answers_s if at_s < until_s), until_s]
    gaps = [later - earlier for earlier, later in itertools.pairwise(seen) if later >= since_s]
    return max(gaps, default=None)


class _Failovers:
    def __init__(
        self, project: Project, observer: Observer, wrk: Wrk, say: Callable[[str], None]
    ) -> None:
        self._containers = project.containers
        self._url = project.url()
        self._observer = observer
        self._wrk = wrk
        self._say = say
        self._results = FailoverResults()

    def run(self, settings: FailoverSettings) -> FailoverResults:
        """Each kind in turns, so that a disturbance of the machine hits both."""
        for number in range(1, max(settings.times.values()) + 1):
            for kind in KINDS:
                if number <= settings.times[kind]:
                    self._strike(kind, number, settings.times[kind])
        return self._results

    def _strike(self, kind: str, number: int, of: int) -> None:
        leader = self._leader_of_all()
        seconds = _BEFORE_S + _AFTER_S[kind]
        load = Load.trades(_STOCKS, timed=True)
        with self._wrk.running(self._url, load, CONNECTIONS, seconds) as running:
            time.sleep(_BEFORE_S)
            struck_s = time.monotonic()
            with _broken(self._containers, kind, leader):
                measured = running.result()
        self._note(f"{kind} {number}/{of}", kind, leader, struck_s, measured)

    def _note(self, what: str, kind: str, leader: str, struck_s: float, measured: Measured) -> None:
        answers = measured.answers_s
        before = [at_s for at_s in answers if at_s < struck_s]
        gap_s = longest_gap_s(answers, struck_s, struck_s + _AFTER_S[kind])
        usual_gap_s = longest_gap_s(before, 0.0, struck_s)
        if gap_s is None or usual_gap_s is None:
            self._problem(f"{what}: no trade was acknowledged before it")
            return
        if measured.errors:
            self._problem(f"{what}: requests ended in an error: {dict(measured.errors)}")
        self._say(f"{what} of {leader}: {gap_s * 1000:,.0f} ms without an acknowledged trade")
        rate_per_s = len(before) / (struck_s - before[0])
        self._results.strikes.append(Failover(kind, leader, gap_s, usual_gap_s, rate_per_s))

    def _leader_of_all(self) -> str:
        """Who leads, as soon as the others are in sync with it. Raises StackError."""
        since_ns = time.monotonic_ns()

        def leader() -> str | None:
            seen = self._observer.latest()
            if seen is None or seen.at_ns <= since_ns:
                return None
            alike = all(in_sync(seen, service) for service in ORDER_SERVICES)
            return leader_of(seen) if alike else None

        found = wait_for(leader, _IN_SYNC_WITHIN_S, lambda: f"in sync: {self._observer.latest()}")
        return str(found)

    def _problem(self, what: str) -> None:
        self._results.problems.append(what)
        self._say(f"PROBLEM: {what}")


@contextmanager
def _broken(containers: Containers, kind: str, service: str) -> Iterator[None]:
    """Killed or paused inside, back outside."""
    strike, heal = {
        "kill": (containers.kill, containers.start),
        "pause": (containers.pause, containers.unpause),
    }[kind]
    try:
        strike(service)
        yield
    finally:
        heal(service)
