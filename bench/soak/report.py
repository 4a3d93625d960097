"""What the soak found, for people: as text, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measuring.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, picture
from bench.soak.flatness import RULE, Growth, Level, growths, kind_of, levels, warm_up_s
from bench.soak.samples import FAULTS, MEASURES, Measure, Sample, containers_of
from stack.terminal import table

_COLOURS = {"edge": GREY, "frontend": BLUE, "catalog": RED, "order": ORANGE, "redis": GREEN}
_DASHES = {"2": "--", "3": ":"}  # the second and the third of a kind
_HEADING = ("medians", "first quarter", "last quarter", "after faults", "")
_FLAT = "flat"
_WELL = "Everything stayed flat, and every promise held."


@dataclass(slots=True)
class Results:
    steady_s: float
    samples: list[Sample] = field(default_factory=list)
    load: str = ""  # what was sent, and how it was answered, in words
    promises: str = ""  # the verdicts of `python -m faults`
    problems: list[str] = field(default_factory=list)


def verdicts(results: Results) -> list[str]:
    """All that is wrong, in words. Empty: the service stayed as it was."""
    seen = levels(results.samples, results.steady_s)
    wrong = [f"{_name(one)}: {_verdict(one)}" for one in seen if _verdict(one) != _FLAT]
    return [*wrong, *results.problems]


def as_text(results: Results) -> str:
    rows: list[tuple[str, ...]] = [_HEADING]
    rows += [_row(one) for one in levels(results.samples, results.steady_s)]
    grown = [("grows with the trades", "bytes per trade")]
    grown += [
        (_name(one), f"{one.bytes_per_trade:,.0f}")
        for one in growths(results.samples, results.steady_s)
    ]
    closing = "\n".join(f"WRONG: {one}" for one in verdicts(results)) or _WELL
    sections = [results.promises, results.load, table(rows), RULE, table(grown), closing]
    return "\n\n".join(one.strip() for one in sections if one)


def _row(level: Level) -> tuple[str, ...]:
    medians = (level.first, level.last, level.after)
    shown = ["-" if one is None else f"{one:,.1f}" for one in medians]
    return (_name(level), *shown, _verdict(level))


def _name(of: Level | Growth) -> str:
    return f"{MEASURES[of.measure].title}: {of.container}"


def _verdict(level: Level) -> str:
    wrong = [] if level.is_flat else ["NOT FLAT"]
    wrong += [] if level.is_back else ["NOT BACK"]
    return ", ".join(wrong) or _FLAT


def draw(results: Results, path: Path, subtitle: str) -> None:
    """A row for each measure, a line for each container; times in minutes."""
    containers = containers_of(results.samples)
    with picture(path, 11, 2.1 * len(MEASURES)) as figure:
        rows = figure.subplots(len(MEASURES), 1, sharex=True)
        for axes, (name, measure) in zip(rows, MEASURES.items(), strict=True):
            _shade(axes, results)
            for container in containers:
                _line(axes, name, container, results.samples)
            axes.set_title(_titled(measure))
            axes.set_ylim(bottom=0)
        rows[-1].set_xlabel("minutes")
        handles, labels = rows[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=9)
        figure.supxlabel(subtitle, fontsize=8, color=GREY)


def _titled(measure: Measure) -> str:
    return f"{measure.title[0].upper()}{measure.title[1:]}"


def _shade(axes: Any, results: Results) -> None:
    axes.axvspan(0, warm_up_s(results.steady_s) / 60, color=GREY, alpha=0.12, lw=0, label="warm-up")
    times = [one.moment.at_s / 60 for one in results.samples if one.moment.phase == FAULTS]
    if times:
        axes.axvspan(min(times), max(times), color=PURPLE, alpha=0.2, lw=0, label="faults")


def _line(axes: Any, measure: str, container: str, samples: Sequence[Sample]) -> None:
    """With a gap where it was down."""
    seen = [one for one in samples if one.container == container]
    if any(measure in one.values for one in seen):
        axes.plot(
            [one.moment.at_s / 60 for one in seen],
            [one.values.get(measure, float("nan")) for one in seen],
            color=_COLOURS.get(kind_of(container), PURPLE),
            linestyle=_DASHES.get(container[-1], "-"),
            linewidth=1.2,
            label=container,
        )
