"""`scale`: how rates and memory change with more orders, stocks, replicas, workers, cache entries.

Both ends of each comparison run side by side and are measured in turns, so that a disturbance of
the machine hits both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.copies.project import Project
from bench.copies.upkeep import looked_up, next_number
from bench.measuring.rounds import Contestant, Results, in_turns
from bench.measuring.wrk import Load, Measured, Wrk

# Looked up and traded wherever a section says nothing else.
HOT_STOCKS = 5
_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Variant:
    """One of those that are compared."""

    label: str
    urls: Mapping[str, str]  # of its frontends


@dataclass(frozen=True, slots=True)
class Measure:
    """`load` is told the end's label. `leased`: somebody looks up what is traded."""

    what: str
    connections: int
    load: Callable[[str], Load]
    leased: bool = False
    frontend: str = "frontend"


class ScalePoint(NamedTuple):
    what: str
    end: str


@dataclass(slots=True)
class Comparison:
    """What one section found; the first end is what the others are compared with."""

    name: str
    title: str
    ends: Sequence[str]
    is_to_be_flat: bool = False  # nothing may become slower by more than a tenth
    results: Results[ScalePoint] = field(default_factory=Results)
    memory_mib: dict[str, dict[str, float]] = field(default_factory=dict)  # by end, by service

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(point.what for point in self.results.by_key))


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Trades while one replica catches up; times in seconds since the load began."""

    answers_s: Sequence[float]
    started_s: float
    in_sync_s: float
    until_s: float
    errors: Mapping[str, int]

    def rates(self) -> dict[str, float]:
        """Trades a second before, while and after it caught up."""
        stretches = {
            "before": (0.5, self.started_s),
            "catching up": (self.started_s, self.in_sync_s),
            "in sync": (self.in_sync_s, self.until_s),
        }
        return {
            name: sum(begin <= at_s < end for at_s in self.answers_s) / (end - begin)
            for name, (begin, end) in stretches.items()
        }


class Comparing:
    """Fills a comparison in."""

    def __init__(self, wrk: Wrk, rounds: int, seconds: float, say: Callable[[str], None]) -> None:
        self.wrk = wrk
        self._rounds = rounds
        self._seconds = seconds
        self._say = say

    def fill(
        self, comparison: Comparison, ends: Sequence[Variant], measures: Sequence[Measure]
    ) -> None:
        """Raises WrkFailed, NoAnswer, Malformed."""
        for end in ends:
            next_number(end.urls["frontend"])
            for measure in measures:
                self._measure(measure, end, _WARM_UP_S)
        for measure in measures:
            in_turns(
                [
                    Contestant(
                        ScalePoint(measure.what, end.label),
                        lambda measure=measure, end=end: self._measure(  # type: ignore[misc]
                            measure, end, self._seconds
                        ),
                    )
                    for end in ends
                ],
                self._rounds,
                self._show,
                comparison.results,
            )

    def _measure(self, measure: Measure, end: Variant, seconds: float) -> Measured:
        url = end.urls[measure.frontend]
        with looked_up(url, HOT_STOCKS) if measure.leased else nullcontext():
            return self.wrk.run(url, measure.load(end.label), measure.connections, seconds)

    def _show(self, number: int, point: ScalePoint, one: Measured) -> None:
        errors = f"  {dict(one.errors)}" if one.errors else ""
        self._say(
            f"  {number + 1}/{self._rounds}  {point.what}, {point.end}: "
            f"{one.rate_per_s:,.0f}/s{errors}"
        )


def note_memory(comparison: Comparison, projects: Mapping[str, Project]) -> None:
    """Raises StackError."""
    for end, project in projects.items():
        comparison.memory_mib[end] = project.memory_mib()
