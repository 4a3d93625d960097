"""The picture of `scale`: one panel for each section."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from bench.scale import CatchUp, Comparison, ScalePoint
from bench.scale_sections import ScaleResults

_COLUMNS = 2
_SLICE_S = 0.5
_COLOURS = {
    "trade": RED,
    "cached lookup": BLUE,
    "uncached lookup": ORANGE,
    "lookup, cache off": ORANGE,
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
    kinds = [
        Bars(
            measure,
            _COLOURS.get(measure, PURPLE),
            [Spread.of(one.results.rates(ScalePoint(measure, end))) for end in one.ends],
        )
        for measure in one.measures
    ]
    draw_rates(axes, one.ends, kinds)
    axes.set_title(f"By {one.title}")


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
