"""What `bench` found: for people, and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.measuring.rounds import Results
from bench.measuring.spread import Spread, ratios
from bench.measuring.targets import HEADING, Judged, Target
from bench.requests import CONNECTIONS, FLOOR_OF, WITHOUT_EDGE, Case, Point, RequestsResults
from stack.numbers import percentile
from stack.terminal import table


def verdicts(results: RequestsResults) -> list[Judged]:
    """On each target whose cases were measured."""
    points = results.points

    def rate(case: Case, connections: int, limit: float) -> Iterator[Judged]:
        floor = FLOOR_OF[case]
        what = f"{case} of {floor}, {connections} connections: rate"
        if Point(case, connections) in points.by_key:
            ratio = points.rate_ratio(Point(case, connections), Point(floor, connections))
            yield Judged.of_median(Target(what, "at least", limit), ratio)

    def p50(case: Case, other: Case, connections: int, limit: float) -> Iterator[Judged]:
        what = f"{case} of {other}, {_connections(connections)}: p50"
        if {Point(case, connections), Point(other, connections)} <= points.by_key.keys():
            ratio = points.p50_ratio(Point(case, connections), Point(other, connections))
            yield Judged.of_median(Target(what, "at most", limit), ratio)

    return [
        *rate(Case.CACHED, 16, 0.9),
        *p50(Case.CACHED, Case.UNCACHED, 1, 1 / 3),
        *p50(Case.CACHED, Case.UNCACHED, 16, 1 / 3),
        *rate(Case.TRADE, 32, 0.6),
        *p50(Case.TRADE, Case.HOP, 1, 3.5),
        *rate(Case.ORDER, 16, 0.8),
        *rate(Case.ORDER, 32, 0.8),
    ]


def as_text(results: RequestsResults) -> str:
    sections = [
        _points(results.points),
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
    rows = [("", "at once", "per second", "p50 ms", "p99 ms", "of its floor: rate", "p50")]
    for connections in CONNECTIONS:
        for case in Case:
            point = Point(case, connections)
            if point not in points.by_key:
                continue
            rate, p50, p99 = _spreads(points, point)
            relative = ("", "")
            if floor := _floor_of(point):
                relative = (
                    points.rate_ratio(point, floor).shown(2),
                    points.p50_ratio(point, floor).shown(2),
                )
            rows.append(
                (case, str(connections), rate.shown(0), p50.shown(2), p99.shown(2), *relative)
            )
    return table(rows) if len(rows) > 1 else ""


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
    if floor := _floor_of(point):
        said["floor"] = floor.case
        said["rate_of_floor"] = points.rate_ratio(point, floor).as_json()
        said["p50_of_floor"] = points.p50_ratio(point, floor).as_json()
        said["p99_of_floor"] = ratios(points.p99s(point), points.p99s(floor)).as_json()
    return said


def _spreads(points: Results[Point], point: Point) -> tuple[Spread, Spread, Spread]:
    columns = (points.rates(point), points.p50s(point), points.p99s(point))
    rate, p50, p99 = (Spread.of(values) for values in columns)
    return rate, p50, p99


def _floor_of(point: Point) -> Point | None:
    floor = FLOOR_OF.get(point.case)
    return None if floor is None else Point(floor, point.connections)


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
