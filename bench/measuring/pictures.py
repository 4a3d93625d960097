"""How every picture looks, and that it is drawn without a screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bench.measuring.spread import Spread

# Of Okabe and Ito: told apart by everybody, also in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#666666",
)

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.12,  # inches
}


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar in each group."""

    label: str
    colour: str
    heights: Sequence[Spread]


def draw_rates(axes: Any, groups: Sequence[str], kinds: Sequence[Bars]) -> None:
    """Requests a second: medians as bars side by side, and the middle half as whiskers."""
    width = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        middle = place - (len(kinds) - 1) / 2
        axes.bar(
            [group + middle * width for group in range(len(groups))],
            [one.median for one in kind.heights],
            width * 0.92,
            yerr=[
                [one.median - one.lower for one in kind.heights],
                [one.upper - one.median for one in kind.heights],
            ],
            error_kw={"linewidth": 0.8, "capsize": 2},
            color=kind.colour,
            label=kind.label,
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel("requests a second")
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(lambda value, _place: f"{value:,.0f}")
    legend_on_top(axes, 3)


def legend_on_top(axes: Any, columns: int) -> None:
    """Above all that is drawn, on an axis from 0."""
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.legend(loc="upper left", ncols=columns)


@contextmanager
def picture(path: Path, width_in: float, height_in: float) -> Iterator[Figure]:
    """Drawn inside, written at the end; one inch is 130 pixels."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        yield figure
        figure.savefig(path, dpi=130)
