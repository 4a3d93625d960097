"""Tables, JSON and pictures of the measuring tools, of figures made up here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import (
    failover_report,
    requests_picture,
    requests_report,
    scale_picture,
    scale_report,
)
from bench.failover import KILL, PAUSE, Failover, FailoverResults
from bench.measuring.wrk import Measured
from bench.requests import RequestsResults, RequestsSettings
from bench.requests_cases import (
    CONNECTIONS,
    PROBABILITIES,
    Case,
    Part,
    Point,
    SessionPoint,
)
from bench.scale import CatchUp, Comparison, ScalePoint
from bench.scale_sections import ScaleResults

# Requests a second, p50 in milliseconds, and how long the two parts that are made up here have the
# processor for one request, in milliseconds; on any number of connections.
SPEEDS = {
    Case.HELLO: (6000, 0.2, (0.1, 0.2)),
    Case.CACHED: (5500, 0.3, (0.1, 0.3)),
    Case.HOP: (1600, 1.0, (0.1, 0.5)),
    Case.UNCACHED: (900, 0.8, (0.1, 0.9)),
    Case.TRADE: (800, 3.6, (0.1, 2.9)),
    Case.ORDER: (1500, 1.1, (0.1, 0.7)),
    Case.DIRECT_CACHED: (6875, 0.2, (0.0, 0.3)),
    Case.DIRECT_TRADE: (1000, 3.0, (0.0, 2.9)),
    Case.PLAIN_LOOKUP: (2750, 0.4, (0.1, 0.4)),
    Case.PLAIN_TRADE: (1000, 1.5, (0.1, 1.4)),
    Case.PLAIN_ORDER: (2000, 0.5, (0.1, 0.4)),
}


def measured(rate_per_s: float, p50_ms: float = 1.0, **lists: list[float]) -> Measured:
    return Measured(round(rate_per_s), 1.0, p50_ms, p50_ms, 2 * p50_ms, 9.0, {}, (), **lists)


def requested() -> RequestsResults:
    results = RequestsResults(memory_mib={"catalog": 38.4})
    for connections in CONNECTIONS:
        for case, (rate_per_s, p50_ms, processor_ms) in SPEEDS.items():
            for factor in (1.0, 0.5):  # the second round on a busy machine
                one = measured(rate_per_s * factor, p50_ms / factor)
                took_s = [ms * one.requests / 1000 for ms in processor_ms]
                parts = dict(zip((Part.EDGE, Part.WEB), took_s, strict=True))
                results.points.add(Point(case, connections), replace(one, processor_s=parts))
    for probability in PROBABILITIES:
        for is_cached in (True, False):
            trades_ms = [5.0, 7.0] if probability else []
            one = measured(500, lookups_ms=[1.0, 2.0, 3.0], trades_ms=trades_ms)
            results.sessions.add(SessionPoint(probability, is_cached), one)
    return results


def scaled() -> ScaleResults:
    comparison = Comparison("orders", "orders in the books", ["few", "many"], is_to_be_flat=True)
    for end, rate_per_s in (("few", 1000), ("many", 850)):
        comparison.results.add(ScalePoint("trade", end), measured(rate_per_s))
        comparison.results.add(ScalePoint("order lookup", end), measured(2000))
        comparison.memory_mib[end] = {"catalog": 40.0 if end == "few" else 44.0}
    comparison.memory_mib["many"]["order-4"] = 33.3
    answers_s = [number / 10 for number in range(100)]
    return ScaleResults([comparison], [CatchUp(answers_s, 4.0, 6.0, 10.0, {})])


def failed_over() -> FailoverResults:
    kills = [Failover(KILL, "order-3", gap_s, 0.02, 500) for gap_s in (0.08, 0.12, 0.31)]
    return FailoverResults([*kills, Failover(PAUSE, "order-2", 1.2, 0.03, 700)])


def rows(text: str, *begins: str) -> list[list[str]]:
    """The cells of the rows that begin with these cells."""
    lines = [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()
    ]
    return [cells[len(begins) :] for cells in lines if cells[: len(begins)] == list(begins)]


def row(text: str, *begins: str) -> list[str]:
    [found] = rows(text, *begins)
    return found


def test_bench_tells_rates_latencies_and_ratios_of_the_same_round() -> None:
    text = requests_report.as_text(requested())
    assert rows(text, "bare hello", "16")[0] == [
        "4,500 (3,750 to 5,250)",
        "0.30 (0.25 to 0.35)",
        "0.60 (0.50 to 0.70)",
    ]
    of_floor = ["0.50 (0.50 to 0.50)", "3.60 (3.60 to 3.60)"]
    of_plain = ["0.80 (0.80 to 0.80)", "2.40 (2.40 to 2.40)"]
    assert rows(text, "trade", "32")[0][3:] == [*of_floor, *of_plain]
    assert row(text, "trade probability 20%", "on")[1:] == [
        *("2.00", "2.00", "3.00"),
        *("6.00", "5.00", "7.00"),
    ]
    assert row(text, "catalog") == ["38"]


def test_the_processor_time_of_a_request_is_told_by_part() -> None:
    text = requests_report.as_text(requested())
    assert rows(text, "trade", "8")[1] == [
        *("3.00 (3.00 to 3.00)", "2.00 (2.00 to 2.00)"),
        *("0.10", "2.90"),
    ]
    assert rows(text, "bare hop", "8")[1] == ["0.60 (0.60 to 0.60)", "0.10", "0.50"]
    [said] = [
        one
        for one in requests_report.as_json(requested())["points"]
        if (one["case"], one["connections"]) == ("trade", 8)
    ]
    assert said["processor_ms"]["median"] == 3.0
    assert said["processor_ms_by_part"]["frontends"]["median"] == 2.9
    assert (said["floor"], said["rival"]) == ("bare hop", "plain: trade")
    assert said["processor_of_floor"]["median"] == 5.0
    assert said["processor_of_rival"]["median"] == 2.0
    assert said["rate_of_rival"]["median"] == 0.8


def test_what_the_edge_costs_is_told() -> None:
    text = requests_report.as_text(requested())
    assert row(text, "trade, edge", "32") == ["0.80 (0.80 to 0.80)", "1.20 (1.20 to 1.20)"]
    said = requests_report.as_json(requested())["edge"]
    assert len(said) == 2 * len(CONNECTIONS)
    assert [one["rate_of_direct"]["median"] for one in said] == pytest.approx([0.8] * 8, abs=0.001)


def test_bench_judges_each_target() -> None:
    said = requests_report.as_json(requested())
    assert [(one["target"], one["measured"], one["met"]) for one in said["targets"]] == [
        ("cached lookup of bare hello, 16 connections: rate", 0.9167, True),
        ("cached lookup of plain: lookup, 16 connections: rate", 2.0, True),
        ("cached lookup of uncached lookup, 1 connection: p50", 0.375, False),
        ("cached lookup of uncached lookup, 16 connections: p50", 0.375, False),
        ("trade of bare hop, 1 connection: p50", 3.6, False),
        ("trade of plain: trade, 1 connection: p50", 2.4, False),
        ("trade of plain: trade, 1 connection: processor time", 2.0, True),
        ("trade of plain: trade, 8 connections: rate", 0.8, False),
        ("trade of plain: trade, 32 connections: rate", 0.8, False),
        ("trade of bare hop, 32 connections: rate", 0.5, False),
        ("order lookup of bare hop, 16 connections: rate", 0.9375, True),
        ("order lookup of bare hop, 32 connections: rate", 0.9375, True),
    ]
    json.dumps(said)


@pytest.mark.parametrize(
    ("parts", "cases"),
    [
        (["trade"], [Case.HOP, Case.DIRECT_TRADE, Case.TRADE, Case.PLAIN_TRADE]),
        (
            ["order", "cached"],
            [
                *(Case.HELLO, Case.CACHED, Case.DIRECT_CACHED, Case.PLAIN_LOOKUP),
                *(Case.HOP, Case.ORDER, Case.PLAIN_ORDER),
            ],
        ),
        (["figure"], []),
    ],
)
def test_each_request_is_measured_with_what_it_is_compared_with(
    parts: list[str], cases: list[Case]
) -> None:
    assert RequestsSettings(parts, 1, 1).cases == cases
    results = requested()
    for point in list(results.points.by_key):
        if point.case not in cases:
            del results.points.by_key[point]
    for verdict in requests_report.verdicts(results):
        assert any(str(case) in verdict.target.what for case in cases)


def test_problems_are_told_at_the_end() -> None:
    results = requested()
    results.problems.append("3 requests ended in an error: status")
    assert requests_report.as_text(results).endswith(
        "PROBLEM: 3 requests ended in an error: status"
    )
    assert requests_report.as_json(results)["problems"] == results.problems


def test_scale_tells_rates_memory_and_what_is_not_flat() -> None:
    text = scale_report.as_text(scaled())
    assert row(text, "trade", "many")[-1] == "0.85 (0.85 to 0.85)"
    assert row(text, "catalog") == ["40", "44"]
    assert row(text, "order-4") == ["33"]  # the other end has none
    assert row(text, "trade, many of few: rate")[-1] == "MISSED"
    assert row(text, "order lookup, many of few: rate")[-1] == "met"
    assert "in sync 2.0 (2.0 to 2.0) s after" in text
    said = scale_report.as_json(scaled())
    assert [one["met"] for one in said["targets"]] == [False, True]
    assert said["comparisons"][0]["memory_mib"]["many"]["catalog"] == 44.0
    json.dumps(said)


def test_failover_judges_the_99th_percentile() -> None:
    text = failover_report.as_text(failed_over())
    assert row(text, "kill of the leader") == ["3", "80", "120", "310", "310", "310"]
    assert row(text, "kill of the leader, p99")[-1] == "MISSED"
    assert row(text, "pause of the leader, p99")[-1] == "met"
    said = failover_report.as_json(failed_over())
    assert [one["gap_ms"] for one in said["strikes"]] == [80, 120, 310, 1200]
    json.dumps(said)


def test_failover_tells_of_one_kind_alone() -> None:
    results = FailoverResults([one for one in failed_over().strikes if one.kind is PAUSE])
    assert "kill" not in failover_report.as_text(results)
    assert [one.target.what for one in failover_report.verdicts(results)] == [
        "pause of the leader, p99"
    ]


def only_sessions() -> RequestsResults:
    return RequestsResults(sessions=requested().sessions)


def only_one_round_of_one() -> RequestsResults:
    results = RequestsResults()
    for connections in CONNECTIONS:
        results.points.add(Point(Case.HOP, connections), measured(10))
    return results


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: requests_picture.draw(requested(), path, "a subtitle"),
        lambda path: requests_picture.draw(only_sessions(), path, "a subtitle"),
        lambda path: requests_picture.draw(only_one_round_of_one(), path, "a subtitle"),
        lambda path: scale_picture.draw(scaled(), path, "a subtitle"),
        lambda path: failover_report.draw(failed_over(), path, "a subtitle"),
    ],
)
def test_pictures_are_drawn(draw: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    draw(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000
