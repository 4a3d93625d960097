"""What `failover` found: for people, for machines, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.failover import CONNECTIONS, KINDS, Failover, FailoverResults
from bench.measuring.pictures import BLUE, GREY, ORANGE, RED, picture
from bench.measuring.spread import Spread
from bench.measuring.targets import HEADING, Judged, Target
from stack.numbers import percentile
from stack.terminal import table

LIMITS_MS = {"kill": 300.0, "pause": 1500.0}
_PERCENTS = (50, 90, 99)
_BINS = 24


def verdicts(results: FailoverResults) -> list[Judged]:
    """On the 99th percentile: with fewer than a hundred of a kind, the worst of them."""
    found = []
    for kind, limit_ms in LIMITS_MS.items():
        if gaps_ms := results.gaps_ms(kind):
            target = Target(f"{kind} of the leader, p99", "at most", limit_ms, "ms")
            found.append(Judged(target, percentile(sorted(gaps_ms), 99), Spread.of(gaps_ms)))
    return found


def as_text(results: FailoverResults) -> str:
    rows: list[tuple[str, ...]] = [
        ("without an acknowledged trade, ms", "times", "least", "p50", "p90", "p99", "worst")
    ]
    rows += [_row(f"{kind} of the leader", results.gaps_ms(kind)) for kind in KINDS]
    usual_ms = [1000 * strike.usual_gap_s for strike in results.strikes]
    rows.append(_row("in the second before", usual_ms))
    sections = [table([row for row in rows if row[1] != "0"])]
    if results.strikes:
        rate = Spread.of(strike.rate_per_s for strike in results.strikes)
        sections.append(
            f"{CONNECTIONS} connections, {rate.shown(0)} acknowledged trades a second before"
        )
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
    kinds = [kind for kind in KINDS if results.gaps_ms(kind)]
    if not kinds:
        return
    with picture(path, 6.4 * len(kinds), 4.2) as figure:
        places = figure.subplots(1, len(kinds), squeeze=False)[0]
        for axes, kind in zip(places, kinds, strict=True):
            gaps_ms, limit_ms = results.gaps_ms(kind), LIMITS_MS[kind]
            end_ms = 1.1 * max(limit_ms, *gaps_ms)
            colour = BLUE if kind == "kill" else ORANGE
            axes.hist(gaps_ms, bins=_BINS, range=(0, end_ms), color=colour, edgecolor="white")
            p99_ms = percentile(sorted(gaps_ms), 99)
            axes.axvline(p99_ms, color=GREY, label=f"99th percentile: {p99_ms:,.0f} ms")
            axes.axvline(limit_ms, color=RED, linestyle="--", label=f"target: {limit_ms:,.0f} ms")
            axes.set_title(f"{kind.capitalize()} of the leader, {len(gaps_ms)} times")
            axes.set_xlabel("longest time without an acknowledged trade (ms)")
            axes.set_ylabel("times")
            axes.yaxis.get_major_locator().set_params(integer=True)
            axes.set_xlim(0, end_ms)
            axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
            axes.legend(loc="upper left")
        figure.supxlabel(subtitle, fontsize=8, color=GREY)


def _row(name: str, gaps_ms: list[float]) -> tuple[str, ...]:
    if not gaps_ms:
        return (name, "0", "", "", "", "", "")
    ascending = sorted(gaps_ms)
    shown = [ascending[0], *(percentile(ascending, one) for one in _PERCENTS), ascending[-1]]
    return (name, str(len(ascending)), *(f"{gap_ms:,.0f}" for gap_ms in shown))


def _strike(strike: Failover) -> dict[str, Any]:
    return {
        "kind": strike.kind,
        "leader": strike.leader,
        "gap_ms": round(1000 * strike.gap_s, 1),
        "usual_gap_ms": round(1000 * strike.usual_gap_s, 1),
        "trades_per_s_before": round(strike.rate_per_s),
    }
