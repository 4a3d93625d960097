"""What `bench` found: for people, and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Literal

from bench.measuring.rounds import Results
from bench.measuring.spread import Spread, ratios
from bench.measuring.targets import HEADING, Judged, Relation, Target
from bench.requests import RequestsResults
from bench.requests_cases import (
    CONNECTIONS,
    FLOOR_OF,
    RIVAL_OF,
    WITHOUT_EDGE,
    Case,
    Part,
    Point,
)
from stack.numbers import percentile
from stack.terminal import table

Kind = Literal["rate", "p50", "processor time"]
AT_LEAST: Relation = "at least"
AT_MOST: Relation = "at most"

# On so many connections, a case to another one: a rate is to be at least that, the others at most.
_TARGETS: Sequence[tuple[Kind, Case, Case, int, float]] = (
    ("rate", Case.CACHED, Case.HELLO, 16, 0.85),
    ("rate", Case.CACHED, Case.PLAIN_LOOKUP, 16, 1.8),
    ("p50", Case.CACHED, Case.UNCACHED, 1, 1 / 3),
    ("p50", Case.CACHED, Case.UNCACHED, 16, 1 / 3),
    ("p50", Case.TRADE, Case.HOP, 1, 3),
    ("p50", Case.TRADE, Case.PLAIN_TRADE, 1, 2),
    ("processor time", Case.TRADE, Case.PLAIN_TRADE, 1, 2.2),
    ("rate", Case.TRADE, Case.PLAIN_TRADE, 8, 0.9),
    ("rate", Case.TRADE, Case.PLAIN_TRADE, 32, 1.3),
    ("rate", Case.TRADE, Case.HOP, 32, 0.6),
    ("rate", Case.ORDER, Case.HOP, 16, 0.8),
    ("rate", Case.ORDER, Case.HOP, 32, 0.8),
)


def verdicts(results: RequestsResults) -> list[Judged]:
    """On each target whose cases were measured."""
    points = results.points

    def judge(
        kind: Kind, case: Case, other: Case, connections: int, limit: float
    ) -> Iterator[Judged]:
        point, its = Point(case, connections), Point(other, connections)
        if {point, its} <= points.by_key.keys():
            ratio, relation = {
                "rate": (points.rate_ratio, AT_LEAST),
                "p50": (points.p50_ratio, AT_MOST),
                "processor time": (points.processor_ratio, AT_MOST),
            }[kind]
            what = f"{case} of {other}, {_connections(connections)}: {kind}"
            yield Judged.of_median(Target(what, relation, limit), ratio(point, its))

    return [one for target in _TARGETS for one in judge(*target)]


def as_text(results: RequestsResults) -> str:
    sections = [
        _points(results.points),
        _processor(results.points),
        _edge(results.points),
        _verdicts(results),
        _sessions(results),
        _memory(results),
    ]
    sections.append("\n".join(f"PROBLEM: {problem}" for problem in results.problems))
    return "\n\n".join(section for section in sections if section)


def as_json(results: RequestsResults) -> dict[str, Any]:
    return {
        "points": [_point(results.points, point) for point in results.points.by_key],
        "edge": [
            {
                "case": point.case,
                "connections": point.connections,
                "rate_of_direct": rate.as_json(),
                "p50_of_direct": p50.as_json(),
            }
            for point, rate, p50 in _edge_ratios(results.points)
        ],
        "targets": [verdict.as_json() for verdict in verdicts(results)],
        "sessions": [
            {
                "trade_probability": session.probability,
                "cache": session.is_cached,
                "requests_per_s": Spread.of(one.rate_per_s for one in measured).as_json(),
                "lookup": _latency([ms for one in measured for ms in one.lookups_ms]),
                "trade": _latency([ms for one in measured for ms in one.trades_ms]),
            }
            for session, measured in results.sessions.by_key.items()
        ],
        "memory_mib": {name: round(mib, 1) for name, mib in results.memory_mib.items()},
        "problems": results.problems,
    }


def _points(points: Results[Point]) -> str:
    heading = ("", "at once", "per second", "p50 ms", "p99 ms")
    rows: list[Sequence[str]] = [(*heading, "of its floor: rate", "p50", "of plain: rate", "p50")]
    for point in _in_order(points):
        rate, p50, p99 = _spreads(points, point)
        relative = [
            text
            for other in (_other(FLOOR_OF, point), _other(RIVAL_OF, point))
            for text in (
                (points.rate_ratio(point, other).shown(2), points.p50_ratio(point, other).shown(2))
                if other
                else ("", "")
            )
        ]
        shown = (rate.shown(0), p50.shown(2), p99.shown(2))
        rows.append((point.case, str(point.connections), *shown, *relative))
    return table(rows) if len(rows) > 1 else ""


def _processor(points: Results[Point]) -> str:
    """Of one request, in milliseconds; the parts as medians only."""
    rows: list[Sequence[str]] = [("processor ms a request", "at once", "in all", "of plain", *Part)]
    for point in _in_order(points):
        rival, parts = _other(RIVAL_OF, point), points.processor_ms_by_part(point)
        if parts:
            total = Spread.of(points.processor_ms(point)).shown(2)
            ratio = points.processor_ratio(point, rival).shown(2) if rival else ""
            shown = [f"{median(parts[part]):.2f}" if part in parts else "" for part in Part]
            rows.append((point.case, str(point.connections), total, ratio, *shown))
    return table(rows) if len(rows) > 1 else ""


def _in_order(points: Results[Point]) -> Iterator[Point]:
    for connections in CONNECTIONS:
        for case in Case:
            if Point(case, connections) in points.by_key:
                yield Point(case, connections)


def _edge_ratios(points: Results[Point]) -> Iterator[tuple[Point, Spread, Spread]]:
    """Each request to itself without the edge: rate and p50."""
    for case, direct in WITHOUT_EDGE.items():
        for connections in CONNECTIONS:
            point, other = Point(case, connections), Point(direct, connections)
            if {point, other} <= points.by_key.keys():
                yield point, points.rate_ratio(point, other), points.p50_ratio(point, other)


def _edge(points: Results[Point]) -> str:
    rows = [("through the edge, of without it", "at once", "rate", "p50")]
    rows += [
        (f"{point.case}, edge", str(point.connections), rate.shown(2), p50.shown(2))
        for point, rate, p50 in _edge_ratios(points)
    ]
    return table(rows) if len(rows) > 1 else ""


def _point(points: Results[Point], point: Point) -> dict[str, Any]:
    rate, p50, p99 = _spreads(points, point)
    said: dict[str, Any] = {
        "case": point.case,
        "connections": point.connections,
        "per_s": rate.as_json(),
        "p50_ms": p50.as_json(),
        "p99_ms": p99.as_json(),
    }
    if parts := points.processor_ms_by_part(point):
        said["processor_ms"] = Spread.of(points.processor_ms(point)).as_json()
        said["processor_ms_by_part"] = {
            part: Spread.of(values).as_json() for part, values in parts.items()
        }
    for name, others in (("floor", FLOOR_OF), ("rival", RIVAL_OF)):
        if other := _other(others, point):
            said |= {
                name: other.case,
                f"rate_of_{name}": points.rate_ratio(point, other).as_json(),
                f"p50_of_{name}": points.p50_ratio(point, other).as_json(),
                f"p99_of_{name}": ratios(points.p99s(point), points.p99s(other)).as_json(),
            }
            if parts:
                ratio = points.processor_ratio(point, other)
                said[f"processor_of_{name}"] = ratio.as_json()
    return said


def _spreads(points: Results[Point], point: Point) -> tuple[Spread, Spread, Spread]:
    columns = (points.rates(point), points.p50s(point), points.p99s(point))
    rate, p50, p99 = (Spread.of(values) for values in columns)
    return rate, p50, p99


def _other(others: Mapping[Case, Case], point: Point) -> Point | None:
    """What it is compared with."""
    other = others.get(point.case)
    return None if other is None else Point(other, point.connections)


def _verdicts(results: RequestsResults) -> str:
    rows = [verdict.row() for verdict in verdicts(results)]
    return table([HEADING, *rows]) if rows else ""


def _sessions(results: RequestsResults) -> str:
    rows = [("five clients", "cache", "per second", "lookup ms: mean", "p50", "p99")]
    rows[0] += ("trade ms: mean", "p50", "p99")  # type: ignore[assignment]
    for session, measured in sorted(results.sessions.by_key.items()):
        row = [f"trade probability {session.probability:.0%}", "on" if session.is_cached else "off"]
        row.append(Spread.of(one.rate_per_s for one in measured).shown(0))
        for values in (
            [ms for one in measured for ms in one.lookups_ms],
            [ms for one in measured for ms in one.trades_ms],
        ):
            said = _latency(values)
            row += [f"{said[name]:.2f}" if said else "" for name in ("mean_ms", "p50_ms", "p99_ms")]
        rows.append(tuple(row))  # type: ignore[arg-type]
    return table(rows) if len(rows) > 1 else ""


def _latency(values_ms: list[float]) -> dict[str, float]:
    """Empty when there are none."""
    if not values_ms:
        return {}
    ascending = sorted(values_ms)
    return {
        "count": len(ascending),
        "mean_ms": round(sum(ascending) / len(ascending), 3),
        "p50_ms": round(percentile(ascending, 50), 3),
        "p99_ms": round(percentile(ascending, 99), 3),
    }


def _memory(results: RequestsResults) -> str:
    rows = [("memory at the end", "MiB")]
    rows += [(name, f"{mib:.0f}") for name, mib in results.memory_mib.items()]
    return table(rows) if len(rows) > 1 else ""


def _connections(count: int) -> str:
    return f"{count} connection{'s' if count > 1 else ''}"
