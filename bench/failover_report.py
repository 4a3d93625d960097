"""What `failover` found: for people, for machines, and as a picture."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

from bench.failover import CONNECTIONS, Failover, FailoverResults, Kind
from bench.measuring.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, picture
from bench.measuring.spread import Spread
from bench.measuring.targets import HEADING, Judged, Target
from stack.numbers import percentile
from stack.terminal import table

_PERCENTS = (50, 90, 99)
_BINS = 24
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
_ACROSS = 3


def verdicts(results: FailoverResults) -> list[Judged]:
    """On the 99th percentile: with fewer than a hundred of a kind, the worst of them."""
    found = []
    for kind in results.kinds:
        gaps_ms = results.gaps_ms(kind)
        target = Target(f"{kind.what}, p99", "at most", 1000 * kind.limit_s, "ms")
        found.append(Judged(target, percentile(sorted(gaps_ms), 99), Spread.of(gaps_ms)))
    return found


def as_text(results: FailoverResults) -> str:
    rows: list[tuple[str, ...]] = [
        ("without an acknowledged trade, ms", "times", "least", "p50", "p90", "p99", "worst")
    ]
    rows += [_row(kind.what, results.gaps_ms(kind)) for kind in results.kinds]
    sections = []
    if results.strikes:
        usual_ms = [1000 * strike.usual_gap_s for strike in results.strikes]
        sections.append(table([*rows, _row("in the second before", usual_ms)]))
        rate = Spread.of(strike.rate_per_s for strike in results.strikes)
        sections.append(
            f"{CONNECTIONS} connections, {rate.shown(0)} acknowledged trades a second before"
        )
        if refused := sum(strike.refused for strike in results.strikes):
            sections.append(f"{refused} answers were errors")
        sections.append(table([HEADING, *(verdict.row() for verdict in verdicts(results))]))
    sections += [f"PROBLEM: {problem}" for problem in results.problems]
    return "\n\n".join(sections)


def as_json(results: FailoverResults) -> dict[str, Any]:
    return {
        "connections": CONNECTIONS,
        "strikes": [_strike(strike) for strike in results.strikes],
        "targets": [verdict.as_json() for verdict in verdicts(results)],
        "problems": results.problems,
    }


def draw(results: FailoverResults, path: Path, subtitle: str) -> None:
    """How often it took how long, one panel for each kind."""
    kinds = results.kinds
    if not kinds:
        return
    across = min(len(kinds), _ACROSS)
    down = math.ceil(len(kinds) / across)
    with picture(path, 6.4 * across, 4.2 * down) as figure:
        places = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, kind, colour in zip(places, kinds, itertools.cycle(_COLOURS), strict=False):
            _draw_kind(axes, kind, results.gaps_ms(kind), colour)
        for axes in places[len(kinds) :]:
            axes.set_axis_off()
        figure.supxlabel(subtitle, fontsize=8, color=GREY)


def _draw_kind(axes: Any, kind: Kind, gaps_ms: list[float], colour: str) -> None:
    limit_ms = 1000 * kind.limit_s
    end_ms = 1.1 * max(limit_ms, *gaps_ms)
    axes.hist(gaps_ms, bins=_BINS, range=(0, end_ms), color=colour, edgecolor="white")
    p99_ms = percentile(sorted(gaps_ms), 99)
    axes.axvline(p99_ms, color=GREY, label=f"99th percentile: {p99_ms:,.0f} ms")
    axes.axvline(limit_ms, color=RED, linestyle="--", label=f"target: {limit_ms:,.0f} ms")
    axes.set_title(f"{kind.what.capitalize()}, {len(gaps_ms)} times")
    axes.set_xlabel("longest time without an acknowledged trade (ms)")
    axes.set_ylabel("times")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(0, end_ms)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper left")


def _row(name: str, gaps_ms: list[float]) -> tuple[str, ...]:
    ascending = sorted(gaps_ms)
    shown = [ascending[0], *(percentile(ascending, one) for one in _PERCENTS), ascending[-1]]
    return (name, str(len(ascending)), *(f"{gap_ms:,.0f}" for gap_ms in shown))


def _strike(strike: Failover) -> dict[str, Any]:
    return {
        "kind": strike.kind.name,
        "service": strike.service,
        "gap_ms": round(1000 * strike.gap_s, 1),
        "usual_gap_ms": round(1000 * strike.usual_gap_s, 1),
        "trades_per_s_before": round(strike.rate_per_s),
        "refused": strike.refused,
    }
