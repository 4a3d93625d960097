"""The page of a run: self-contained HTML, with a picture of what was broken when."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from faults.checks.verdict import Judgement, counted
from faults.reporting.figures import Bucket, FaultFigures, Figures, LeaderChange, Waits
from faults.reporting.text import closing_line, verdict_word
from stack.terminal import seconds

_TEMPLATE = "page.html.j2"

# Sizes in the picture, in the units of its viewBox.
_WIDTH, _LEFT, _RIGHT = 1200.0, 74.0, 14.0
_PANEL_HEIGHT, _ROW_HEIGHT = 150.0, 24.0
_FLOOR_S = 0.001  # where the logarithmic axis begins


@dataclass(frozen=True, slots=True)
class Tick:
    place: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    broken: float  # the width until it was healed; in the rest it did not serve yet
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which a service led, drawn in the row of that service."""

    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the template draws, in the units of its viewBox."""

    width: float
    height: float
    left: float
    right: float
    panel: float
    throughput_top: float
    latency_top: float
    rows_top: float
    row: float
    x_ticks: tuple[Tick, ...]
    rate_ticks: tuple[Tick, ...]
    latency_ticks: tuple[Tick, ...]
    trades: str  # paths
    lookups: str
    p50: str
    p99: str
    worst: str
    errors: tuple[Tick, ...]
    bands: tuple[Bar, ...]
    bars: tuple[Bar, ...]
    leading: tuple[Stretch, ...]
    changes: tuple[Tick, ...]
    services: tuple[Tick, ...]
    kinds: tuple[str, ...]


def write_page(path: Path, figures: Figures, judgement: Judgement) -> None:
    """Replaces an old page only when the new one is complete. Raises OSError."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(page(figures, judgement), "utf-8")
    os.replace(draft, path)


def page(figures: Figures, judgement: Judgement) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # the page shows text that a server sent
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = lambda value: "" if value is None else seconds(value)
    environment.filters["word"] = verdict_word
    text: str = environment.get_template(_TEMPLATE).render(
        figures=figures,
        judgement=judgement,
        closing=closing_line(judgement),
        picture=draw(figures),
    )
    return text


def draw(figures: Figures) -> Picture:
    length_s = max(figures.duration_s, *(fault.ended_s for fault in figures.faults), 1.0)

    def x(at_s: float) -> float:
        share = min(max(at_s, 0.0), length_s) / length_s
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    throughput_top, latency_top = 22.0, 22.0 + _PANEL_HEIGHT + 34
    rows_top = latency_top + _PANEL_HEIGHT + 34
    most = max((max(one.trades, one.lookups) for one in figures.buckets), default=1.0) or 1.0
    worst = max((one.waits.worst_s for one in figures.buckets), default=1.0)
    rate_step = _step(most, 4)
    top_rate = math.ceil(most / rate_step) * rate_step
    decades = max(1, math.ceil(math.log10(max(worst, _FLOOR_S * 10) / _FLOOR_S)))

    def rate_y(value: float) -> float:
        return round(throughput_top + _PANEL_HEIGHT * (1 - value / top_rate), 1)

    def wait_y(value: float) -> float:
        share = math.log10(max(value, _FLOOR_S) / _FLOOR_S) / decades
        return round(latency_top + _PANEL_HEIGHT * (1 - min(share, 1.0)), 1)

    def path(value: Callable[[Bucket], float | None], y: Callable[[float], float]) -> str:
        """The commands of an SVG path, with a gap where there is no value."""
        steps, command = [], "M"
        for one in figures.buckets:
            here = value(one)
            if here is not None:
                steps.append(f"{command}{x(one.at_s + figures.bucket_s / 2)} {y(here)}")
            command = "M" if here is None else "L"
        return "".join(steps)

    def rate(value: Callable[[Bucket], float]) -> str:
        """Leaves out a last bucket that is not complete: it would look like an outage."""

        def of(one: Bucket) -> float | None:
            is_whole = one.at_s + figures.bucket_s <= figures.duration_s
            return value(one) if is_whole else None

        return path(of, rate_y)

    def wait(value: Callable[[Waits], float]) -> str:
        return path(lambda one: value(one.waits) if one.waits.count else None, wait_y)

    def row_y(service: str) -> float:
        return rows_top + _ROW_HEIGHT * figures.parts.index(service)

    step_s = _step(length_s, 10)
    return Picture(
        width=_WIDTH,
        height=rows_top + _ROW_HEIGHT * len(figures.parts) + 36,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        panel=_PANEL_HEIGHT,
        throughput_top=throughput_top,
        latency_top=latency_top,
        rows_top=rows_top,
        row=_ROW_HEIGHT,
        x_ticks=tuple(
            Tick(x(step_s * place), f"{step_s * place:g}")
            for place in range(int(length_s / step_s) + 1)
        ),
        rate_ticks=tuple(
            Tick(rate_y(rate_step * place), f"{rate_step * place:g}")
            for place in range(round(top_rate / rate_step) + 1)
        ),
        latency_ticks=tuple(
            Tick(wait_y(_FLOOR_S * 10**place), seconds(_FLOOR_S * 10**place))
            for place in range(decades + 1)
        ),
        trades=rate(lambda one: one.trades),
        lookups=rate(lambda one: one.lookups),
        p50=wait(lambda waits: waits.p50_s),
        p99=wait(lambda waits: waits.p99_s),
        worst=wait(lambda waits: waits.worst_s),
        errors=tuple(
            Tick(
                x(one.at_s + figures.bucket_s / 2),
                f"{counted(one.errors, 'error')} at {one.at_s:g} s",
            )
            for one in figures.buckets
            if one.errors
        ),
        bands=tuple(_bar(one, x, 0) for one in figures.faults),
        bars=tuple(
            _bar(one, x, row_y(service))
            for one in figures.faults
            for service in one.hits
            if service in figures.parts
        ),
        leading=tuple(_leading(figures.leaders, length_s, x, row_y)) if figures.parts else (),
        changes=tuple(
            Tick(x(one.at_s), f"{one.replica} leads epoch {one.epoch} at {one.at_s:.1f} s")
            for one in figures.leaders[1:]
        ),
        services=tuple(Tick(row_y(service), service) for service in figures.parts),
        kinds=tuple(sorted({one.fault for one in figures.faults})),
    )


def _bar(fault: FaultFigures, x: Callable[[float], float], y: float) -> Bar:
    began = x(fault.began_s)
    broken = max(3.0, round(x(fault.healed_s) - began, 1))
    width = max(broken, round(x(fault.ended_s) - began, 1))
    return Bar(began, y, width, broken, fault.fault, _told(fault))


def _told(fault: FaultFigures) -> str:
    return (
        f"{fault.label} ({', '.join(fault.hits)}): {fault.began_s:.1f} s to {fault.ended_s:.1f} s, "
        f"healed at {fault.healed_s:.1f} s, worst wait {seconds(fault.waits.worst_s)}"
    )


def _leading(
    leaders: Sequence[LeaderChange],
    length_s: float,
    x: Callable[[float], float],
    row_y: Callable[[str], float],
) -> Iterable[Stretch]:
    ends = [*(change.at_s for change in leaders[1:]), length_s]
    for change, end_s in zip(leaders, ends, strict=False):  # without leaders, `ends` still has one
        began = x(change.at_s)
        yield Stretch(began, row_y(change.replica), max(1.0, round(x(end_s) - began, 1)))


def _step(length: float, count: int) -> float:
    """1, 2 or 5 times a power of ten, so that about `count` of them make up the length."""
    rough = length / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
