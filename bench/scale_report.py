"""What `scale` found: for people, and for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.measuring.spread import Spread, ratios
from bench.measuring.targets import HEADING, Judged, Target
from bench.scale import CatchUp, Comparison, ScalePoint
from bench.scale_sections import ScaleResults
from stack.terminal import table

_FLAT = 0.9


def verdicts(results: ScaleResults) -> list[Judged]:
    """On each rate that is not to change."""
    return [
        Judged.of_median(
            Target(f"{measure}, {one.ends[-1]} of {one.ends[0]}: rate", "at least", _FLAT),
            one.results.rate_ratio(
                ScalePoint(measure, one.ends[-1]), ScalePoint(measure, one.ends[0])
            ),
        )
        for one in results.comparisons
        if one.is_to_be_flat
        for measure in one.measures
    ]


def as_text(results: ScaleResults) -> str:
    sections = [text for one in results.comparisons for text in _comparison(one)]
    if results.catch_ups:
        sections.append(_catch_up(results.catch_ups))
    rows = [verdict.row() for verdict in verdicts(results)]
    sections.append(table([HEADING, *rows]) if rows else "")
    sections.append("\n".join(f"PROBLEM: {problem}" for problem in results.problems))
    return "\n\n".join(section for section in sections if section)


def as_json(results: ScaleResults) -> dict[str, Any]:
    return {
        "comparisons": [_comparison_as_json(one) for one in results.comparisons],
        "catch_up": [_catch_up_as_json(one) for one in results.catch_ups],
        "targets": [verdict.as_json() for verdict in verdicts(results)],
        "problems": results.problems,
    }


def _comparison(one: Comparison) -> Iterator[str]:
    rows = [(one.title, "", "per second", "p50 ms", "p99 ms", "rate, of the first")]
    for measure in one.measures:
        for end in one.ends:
            point = ScalePoint(measure, end)
            ratio = one.results.rate_ratio(point, ScalePoint(measure, one.ends[0])).shown(2)
            rows.append(
                (
                    measure,
                    end,
                    Spread.of(one.results.rates(point)).shown(0),
                    Spread.of(one.results.p50s(point)).shown(2),
                    Spread.of(one.results.p99s(point)).shown(2),
                    ratio if end != one.ends[0] else "",
                )
            )
    yield table(rows)
    yield table(_memory(one))


def _memory(one: Comparison) -> list[tuple[str, ...]]:
    services = list(dict.fromkeys(name for said in one.memory_mib.values() for name in said))
    rows: list[tuple[str, ...]] = [("memory, MiB", *one.ends)]
    for name in services:
        cells = (one.memory_mib[end].get(name) for end in one.ends)
        rows.append((name, *("" if mib is None else f"{mib:.0f}" for mib in cells)))
    return rows


def _catch_up(catch_ups: list[CatchUp]) -> str:
    """Of a replica that lacks everything."""
    rows = [("trades while a replica catches up", "per second", "of before")]
    rates = [one.rates() for one in catch_ups]
    before = [one["before"] for one in rates]
    for name in rates[0]:
        values = [one[name] for one in rates]
        rows.append((name, Spread.of(values).shown(0), ratios(values, before).shown(2)))
    took = Spread.of(one.in_sync_s - one.started_s for one in catch_ups)
    return f"{table(rows)}\nin sync {took.shown(1)} s after its container was started"


def _comparison_as_json(one: Comparison) -> dict[str, Any]:
    return {
        "section": one.name,
        "ends": list(one.ends),
        "points": [
            {
                "what": point.what,
                "end": point.end,
                "per_s": Spread.of(one.results.rates(point)).as_json(),
                "p50_ms": Spread.of(one.results.p50s(point)).as_json(),
                "p99_ms": Spread.of(one.results.p99s(point)).as_json(),
                "rate_of_first": one.results.rate_ratio(
                    point, ScalePoint(point.what, one.ends[0])
                ).as_json(),
            }
            for point in one.results.by_key
        ],
        "memory_mib": {
            end: {name: round(mib, 1) for name, mib in said.items()}
            for end, said in one.memory_mib.items()
        },
    }


def _catch_up_as_json(one: CatchUp) -> dict[str, Any]:
    return {
        "in_sync_after_s": round(one.in_sync_s - one.started_s, 2),
        "trades_per_s": {name: round(rate, 1) for name, rate in one.rates().items()},
    }
