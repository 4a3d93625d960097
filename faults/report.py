"""What a person reads on the terminal: while a run lasts, and at its end."""

from __future__ import annotations

import math
import os
import sys
import textwrap
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import median
from typing import TextIO

from faults.checks.verdict import Judgement, Verdict
from faults.figures import FaultFigures, Figures, Waits

_WIDTH = 100
_SHOWN_VIOLATIONS = 5
_LINE_EVERY_S = 10.0
_REDRAWN_EVERY_S = 0.5


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
    """What the injector said of the faults: above all, what it could not do."""
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


def seconds(value: float) -> str:
    """Three digits are enough."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} s"


def table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the heading, the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def say_at_once(text: str) -> None:
    """For a handler of signals: it may have interrupted a Progress that holds its lock."""
    with suppress(OSError):  # a terminal that was closed
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode())


class Progress:
    """While it runs: a line for each event; how far it is on a line of its own, or now and then."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began_s = clock()
        self._shown_s = self._began_s
        self._lock = threading.Lock()
        self._is_tty = stream.isatty()

    def say(self, text: str) -> None:
        with self._lock:
            self._print(f"{self._elapsed_s():7.1f} s  {text}\n")

    def show(self, requests: int, unknown: int) -> None:
        every_s = _REDRAWN_EVERY_S if self._is_tty else _LINE_EVERY_S
        with self._lock:
            if self._clock() - self._shown_s < every_s:
                return
            self._shown_s = self._clock()
            end = "" if self._is_tty else "\n"
            self._print(
                f"{self._elapsed_s():7.1f} s  {requests:,} requests, {unknown} in doubt{end}"
            )

    def _print(self, text: str) -> None:
        clear = "\r\x1b[2K" if self._is_tty else ""
        # A terminal that was closed is told nothing; the stack is healed all the same.
        with suppress(OSError):
            print(f"{clear}{text}", end="", file=self._stream, flush=True)

    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s
