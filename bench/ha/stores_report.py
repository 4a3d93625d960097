"""What `stores` found: for people, for machines, and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.ha.stores import CONNECTIONS, Case, Part, Point, Store, StoresResults
from bench.measuring.pictures import BLUE, GREY, ORANGE, Bars, draw_rates, picture
from bench.measuring.rounds import Results
from bench.measuring.spread import Spread
from bench.measuring.targets import HEADING, Judged, Target
from stack.terminal import table

# The rate on PostgreSQL to that on SQLite, each as if alone. A lookup is to be no slower: what is
# above 0.95 may be noise.
_TARGETS: Sequence[tuple[Case, int, float]] = (
    (Case.TRADE, 32, 0.8),
    (Case.CACHED, 16, 0.95),
    (Case.CACHED, 32, 0.95),
    (Case.UNCACHED, 16, 0.95),
    (Case.UNCACHED, 32, 0.95),
)
_COLOURS = {Store.SQLITE: BLUE, Store.POSTGRES: ORANGE}


def verdicts(results: StoresResults) -> list[Judged]:
    """On each target whose case was measured."""
    found = []
    for case, connections, limit in _TARGETS:
        if (case, connections) in _measured(results.points):
            target = Target(f"{case}, {connections} connections: rate alone", "at least", limit)
            ratio = _rate_alone(results, case, connections)
            found.append(Judged.of_median(target, ratio))
    return found


def as_text(results: StoresResults) -> str:
    sections = [
        _rates(results),
        _processor(results.points),
        _idle(results),
        table([HEADING, *(verdict.row() for verdict in verdicts(results))]),
        _memory(results),
        *(f"PROBLEM: {problem}" for problem in results.problems),
    ]
    return "\n\n".join(sections)


def as_json(results: StoresResults) -> dict[str, Any]:
    points = results.points
    return {
        "points": [_point(points, point) for point in points.by_key],
        "of_sqlite": [
            {
                "case": case,
                "connections": connections,
                "rate": points.rate_ratio(*_both(case, connections)).as_json(),
                "rate_alone": _rate_alone(results, case, connections).as_json(),
                "p50": points.p50_ratio(*_both(case, connections)).as_json(),
                "processor": points.processor_ratio(*_both(case, connections)).as_json(),
            }
            for case, connections in _measured(points)
        ],
        "idle_processor_s_per_s": {
            store: {part: round(took_s, 5) for part, took_s in parts.items()}
            for store, parts in results.idle_s.items()
        },
        "targets": [verdict.as_json() for verdict in verdicts(results)],
        "memory_mib": {
            store: {name: round(mib, 1) for name, mib in said.items()}
            for store, said in results.memory_mib.items()
        },
        "problems": results.problems,
    }


def draw(results: StoresResults, path: Path, subtitle: str) -> None:
    """The rates, one panel for each kind of request."""
    cases = list(dict.fromkeys(case for case, _ in _measured(results.points)))
    with picture(path, 5.2 * len(cases), 4.2) as figure:
        places = figure.subplots(1, len(cases), squeeze=False)[0]
        for axes, case in zip(places, cases, strict=True):
            kinds = [
                Bars(store.value, colour, _heights(results.points, case, store))
                for store, colour in _COLOURS.items()
            ]
            draw_rates(axes, [str(count) for count in CONNECTIONS], kinds)
            axes.set_title(f"{case.value.capitalize()}, by connections")
        figure.supxlabel(subtitle, fontsize=8, color=GREY)


def _heights(points: Results[Point], case: Case, store: Store) -> list[Spread]:
    return [Spread.of(points.rates(Point(case, store, count))) for count in CONNECTIONS]


def _both(case: Case, connections: int) -> tuple[Point, Point]:
    """On PostgreSQL, and on SQLite, which that is compared with."""
    return Point(case, Store.POSTGRES, connections), Point(case, Store.SQLITE, connections)


def _measured(points: Results[Point]) -> list[tuple[Case, int]]:
    """By kind of request."""
    return [
        (case, connections)
        for case in Case
        for connections in CONNECTIONS
        if set(_both(case, connections)) <= points.by_key.keys()
    ]


def _rate_alone(results: StoresResults, case: Case, connections: int) -> Spread:
    ratio = results.points.rate_ratio(*_both(case, connections))
    return ratio.times(results.set_off)


def _rates(results: StoresResults) -> str:
    points = results.points
    heading = ("", "at once", "SQLite: per second", "p50 ms", "PostgreSQL: per second", "p50 ms")
    rows: list[Sequence[str]] = [(*heading, "of SQLite's: rate", "alone", "p50")]
    for case, connections in _measured(points):
        ours, its = _both(case, connections)
        shown = [
            text
            for point in (its, ours)
            for text in (
                Spread.of(points.rates(point)).shown(0),
                Spread.of(points.p50s(point)).shown(2),
            )
        ]
        ratios = (
            points.rate_ratio(ours, its),
            _rate_alone(results, case, connections),
            points.p50_ratio(ours, its),
        )
        rows.append((case, str(connections), *shown, *(ratio.shown(2) for ratio in ratios)))
    return table(rows)


def _processor(points: Results[Point]) -> str:
    """Of one request, in milliseconds, what the parts do without one included; medians."""
    rows: list[Sequence[str]] = [("processor ms a request", "at once", "on", "in all", *Part)]
    for case, connections in _measured(points):
        for store in Store:
            point = Point(case, store, connections)
            total = Spread.of(points.processor_ms(point)).shown(2)
            parts = points.processor_ms_by_part(point)
            shown = [f"{median(parts[part]):.2f}" if part in parts else "" for part in Part]
            rows.append((case, str(connections), store, total, *shown))
    return table(rows)


def _idle(results: StoresResults) -> str:
    """In milliseconds of processor time a second. All containers of a copy count."""
    rows: list[Sequence[str]] = [("processor ms a second, idle", "in all", *Part)]
    for store, parts in results.idle_s.items():
        shown = [f"{1000 * parts[part]:.0f}" if part in parts else "" for part in Part]
        rows.append((store, f"{1000 * sum(parts.values()):.0f}", *shown))
    return table(rows)


def _memory(results: StoresResults) -> str:
    names = list(dict.fromkeys(name for said in results.memory_mib.values() for name in said))
    rows: list[Sequence[str]] = [("memory at the end, MiB", *results.memory_mib)]
    rows += [(name, *_cells(results, name)) for name in names]
    return table(rows)


def _cells(results: StoresResults, name: str) -> Iterator[str]:
    for said in results.memory_mib.values():
        yield f"{said[name]:.0f}" if name in said else ""


def _point(points: Results[Point], point: Point) -> dict[str, Any]:
    return {
        "case": point.case,
        "store": point.store,
        "connections": point.connections,
        "per_s": Spread.of(points.rates(point)).as_json(),
        "p50_ms": Spread.of(points.p50s(point)).as_json(),
        "p99_ms": Spread.of(points.p99s(point)).as_json(),
        "processor_ms": Spread.of(points.processor_ms(point)).as_json(),
        "processor_ms_by_part": {
            part: Spread.of(values).as_json()
            for part, values in points.processor_ms_by_part(point).items()
        },
    }
