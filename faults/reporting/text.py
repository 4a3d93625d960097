"""What a person reads on the terminal at the end of a run."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from faults.checks.verdict import Judgement, Verdict
from faults.reporting.figures import FaultFigures, Figures, Waits
from stack.terminal import seconds, table

_WIDTH = 100
_SHOWN_VIOLATIONS = 5


def verdict_word(held: bool | None) -> str:
    return {True: "held", False: "BROKEN", None: "not judged"}[held]


def closing_line(judgement: Judgement) -> str:
    broken = [one.promise for one in judgement.verdicts if one.held is False]
    unjudged = [one.promise for one in judgement.verdicts if one.held is None]
    if broken:
        return f"BROKEN: {', '.join(broken)}"
    return f"NOT JUDGED: {', '.join(unjudged)}" if unjudged else "Every promise held."


def as_text(figures: Figures, judgement: Judgement, *, colour: bool = False) -> str:
    paint = _painted if colour else _plain
    sections = [
        _header(figures),
        _verdicts(judgement.verdicts, paint),
        _faults(figures.faults),
        _requests(figures),
        "\n".join(f"problem: {problem}" for problem in figures.problems),
        paint(closing_line(judgement), judgement.held),
    ]
    return "\n\n".join(section for section in sections if section)


def _header(figures: Figures) -> str:
    run = figures.run
    if run is None:
        return "a history without its beginning"
    cut = ", interrupted" if figures.interrupted else ""
    first = f"{run.started}  {run.url}  {run.clients} clients  {figures.duration_s:.0f} s{cut}"
    return f"{first}\nplay it again: {run.command}"


_Paint = Callable[[str, bool | None], str]


def _plain(text: str, _held: bool | None) -> str:
    return text


def _painted(text: str, held: bool | None) -> str:
    code = {True: 32, False: 31, None: 33}[held]
    return f"\x1b[{code}m{text}\x1b[0m"


def _verdicts(verdicts: Sequence[Verdict], paint: _Paint) -> str:
    lines = []
    for one in verdicts:
        sign = {True: "✓", False: "✗", None: "?"}[one.held]
        word = paint(f"{sign} {verdict_word(one.held):10}", one.held)
        lines.append(f"{one.promise}  {word}  {one.title:42} {one.examined}")
        for violation in one.violations[:_SHOWN_VIOLATIONS]:
            lines += textwrap.wrap(
                violation, _WIDTH, initial_indent="      - ", subsequent_indent="        "
            )
        more = one.violation_count - min(len(one.violations), _SHOWN_VIOLATIONS)
        if more > 0:
            lines.append(f"      and {more:,} more")
    return "\n".join(lines)


def _faults(faults: Iterable[FaultFigures]) -> str:
    kinds: dict[str, list[FaultFigures]] = defaultdict(list)
    for fault in faults:
        kinds[fault.label].append(fault)
    rows = [("fault", "times", "errors", "worst wait", "p99 wait", "new leader", "catch-up")]
    for label, those in sorted(kinds.items()):
        rows.append(
            (
                label,
                str(len(those)),
                str(sum(one.errors for one in those)),
                seconds(max(one.waits.worst_s for one in those)),
                seconds(max(one.waits.p99_s for one in those)),
                _spread([one.new_leader_s for one in those]),
                _spread([one.catch_up_s for one in those]),
            )
        )
    return "\n".join([table(rows), *_remarks(kinds)]) if kinds else "no fault was injected"


def _remarks(kinds: Mapping[str, Sequence[FaultFigures]]) -> Iterable[str]:
    """What the injector reported about the faults: above all, what it could not do."""
    for label, those in sorted(kinds.items()):
        details = Counter(one.detail for one in those if one.detail)
        yield from (f"{label}, {count}x: {detail}" for detail, count in details.items())


def _spread(values: Iterable[float | None]) -> str:
    """The median, and the worst if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    worst = f" (worst {seconds(max(known))})" if len(known) > 1 else ""
    return f"{seconds(median(known))}{worst}"


def _requests(figures: Figures) -> str:
    rows = [("requests", "answers", "", "p50", "p99", "worst")]
    for op, statuses in sorted(figures.requests.items()):
        waits = figures.waits.get(op, Waits(0, 0, 0, 0))
        said = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()))
        times = (seconds(waits.p50_s), seconds(waits.p99_s), seconds(waits.worst_s))
        rows.append((op, f"{sum(statuses.values()):,}", said, *times))
    rate = figures.total / figures.duration_s if figures.duration_s else 0.0
    summary = (
        f"{figures.total:,} requests, {rate:,.0f} a second, {figures.repeats:,} of them repeats"
    )
    return f"{table(rows)}\n{summary}"
