"""The picture of `scale`: one panel for each section."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.bench.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, legend_on_top, picture
from client.bench.scale import CatchUp, Comparison, Point
from client.bench.scale_sections import ScaleResults
from client.bench.spread import Spread

_COLUMNS = 2
_SLICE_S = 0.5
_COLOURS = {
    "trade": RED,
    "cached lookup": BLUE,
    "uncached lookup": ORANGE,
    "order lookup": GREEN,
}


def draw(results: ScaleResults, path: Path, subtitle: str) -> None:
    drawings: list[Callable[[Any], None]] = [
        lambda axes, one=one: _rates(axes, one)  # type: ignore[misc]
        for one in results.comparisons
    ]
    if results.catch_ups:
        drawings.append(lambda axes: _catch_up(axes, results.catch_ups[0]))
    columns = min(_COLUMNS, len(drawings))
    rows = math.ceil(len(drawings) / columns)
    with picture(path, 6.6 * columns, 3.9 * rows) as figure:
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, drawing in zip(places, drawings, strict=False):
            drawing(axes)
        for unused in places[len(drawings) :]:
            unused.set_axis_off()
        figure.supxlabel(subtitle, fontsize=8, color=GREY)


def _rates(axes: Any, one: Comparison) -> None:
    width = 0.8 / len(one.measures)
    for place, measure in enumerate(one.measures):
        spreads = [Spread.of(one.results.rates(Point(measure, end))) for end in one.ends]
        axes.bar(
            [
                group + (place - (len(one.measures) - 1) / 2) * width
                for group in range(len(spreads))
            ],
            [spread.median for spread in spreads],
            width * 0.92,
            yerr=[
                [spread.median - spread.least for spread in spreads],
                [spread.most - spread.median for spread in spreads],
            ],
            error_kw={"linewidth": 0.8, "capsize": 2},
            color=_COLOURS.get(measure, PURPLE),
            label=measure,
        )
    axes.set_title(f"By {one.title}")
    axes.set_xticks(range(len(one.ends)), one.ends)
    axes.set_ylabel("requests a second")
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    legend_on_top(axes, 3)


def _catch_up(axes: Any, one: CatchUp) -> None:
    slices = math.floor(one.until_s / _SLICE_S)
    rates = [0.0] * slices
    for at_s in one.answers_s:
        if at_s < slices * _SLICE_S:
            rates[int(at_s / _SLICE_S)] += 1 / _SLICE_S
    axes.stairs(
        rates,
        [number * _SLICE_S for number in range(slices + 1)],
        color=RED,
        linewidth=1.5,
        baseline=None,
    )
    axes.axvspan(
        one.started_s,
        one.in_sync_s,
        color=ORANGE,
        alpha=0.25,
        label=f"a replica that lacks every row catches up ({one.in_sync_s - one.started_s:.1f} s)",
    )
    axes.set_title("Trades while a replica catches up")
    axes.set_xlabel("time (s)")
    axes.set_ylabel("trades a second")
    axes.set_xlim(0, one.until_s)
    legend_on_top(axes, 1)
