"""The picture of `bench`: the classic figure of this system, and the rates beside the others'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.measuring.pictures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Bars,
    draw_rates,
    legend_on_top,
    picture,
)
from bench.measuring.spread import Spread
from bench.requests import RequestsResults
from bench.requests_cases import CONNECTIONS, PROBABILITIES, Case, Point, SessionPoint

_APART = 0.5  # in percent, so that no whisker hides another

# A lighter shade of the same colour is plain's.
_COLOURS = {
    Case.HELLO: "#bbbbbb",
    Case.HOP: GREY,
    Case.CACHED: BLUE,
    Case.UNCACHED: ORANGE,
    Case.PLAIN_LOOKUP: "#80bfe3",
    Case.TRADE: RED,
    Case.PLAIN_TRADE: "#f0ad7f",
    Case.ORDER: GREEN,
    Case.PLAIN_ORDER: "#80ceb9",
}


def draw(results: RequestsResults, path: Path, subtitle: str) -> None:
    """Those of the two that were measured, side by side."""
    drawings = []
    if results.sessions.by_key:
        drawings.append(_latencies)
    if results.points.by_key:
        drawings.append(_rates)
    with picture(path, 7.2 * len(drawings), 4.8) as figure:
        places = figure.subplots(1, len(drawings), squeeze=False)[0]
        for axes, drawing in zip(places, drawings, strict=True):
            drawing(axes, results)
        figure.supxlabel(subtitle, fontsize=8, color=GREY)


def _latencies(axes: Any, results: RequestsResults) -> None:
    """Means, since what a mix of hits and misses costs is what they cost together."""
    lines = {
        "trade, cache off": (False, "trades_ms", PURPLE, "s--"),
        "trade, cache on": (True, "trades_ms", RED, "s-"),
        "lookup, cache off": (False, "lookups_ms", ORANGE, "o--"),
        "lookup, cache on": (True, "lookups_ms", BLUE, "o-"),
    }
    for place, (label, (is_cached, kind, colour, style)) in enumerate(lines.items()):
        chances, middle, below, above = [], [], [], []
        for probability in PROBABILITIES:
            measured = results.sessions.by_key[SessionPoint(probability, is_cached)]
            means = [sum(ms) / len(ms) for one in measured if (ms := getattr(one, kind))]
            if means:
                spread = Spread.of(means)
                chances.append(probability * 100 + _APART * (place - 1.5))
                middle.append(spread.median)
                below.append(spread.median - spread.lower)
                above.append(spread.upper - spread.median)
        axes.errorbar(
            chances, middle, [below, above], fmt=style, color=colour, label=label, capsize=3
        )
    axes.set_title("Latency against trade probability, five clients")
    axes.set_xlabel("probability of a trade after a lookup (%)")
    axes.set_ylabel("mean latency (ms)")
    axes.set_xticks([probability * 100 for probability in PROBABILITIES])
    legend_on_top(axes, 2)


def _rates(axes: Any, results: RequestsResults) -> None:
    points = results.points
    kinds = [
        Bars(
            case.value,
            colour,
            [Spread.of(points.rates(Point(case, connections))) for connections in CONNECTIONS],
        )
        for case, colour in _COLOURS.items()
        if Point(case, CONNECTIONS[0]) in points.by_key
    ]
    draw_rates(axes, [str(count) for count in CONNECTIONS], kinds)
    axes.set_title("Requests a second, beside the floors and plain")
    axes.set_xlabel("connections")
