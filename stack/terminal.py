"""A tool and the person at its terminal: tables, how far it is, and Ctrl-C."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self, TextIO

# A terminal that is closed, and `docker stop` or a shutdown, ask for the same as Ctrl-C.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_LINE_EVERY_S = 10.0
_REDRAWN_EVERY_S = 0.5


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
        self.update(f"{requests:,} requests, {unknown} in doubt")

    def update(self, text: str) -> None:
        """Says how far it is; most calls print nothing."""
        every_s = _REDRAWN_EVERY_S if self._is_tty else _LINE_EVERY_S
        with self._lock:
            if self._clock() - self._shown_s < every_s:
                return
            self._shown_s = self._clock()
            end = "" if self._is_tty else "\n"
            self._print(f"{self._elapsed_s():7.1f} s  {text}{end}")

    def _print(self, text: str) -> None:
        clear = "\r\x1b[2K" if self._is_tty else ""
        # The terminal may be closed. The stack is healed anyway.
        with suppress(OSError):
            print(f"{clear}{text}", end="", file=self._stream, flush=True)

    def _elapsed_s(self) -> float:
        return self._clock() - self._began_s


class Interrupts:
    """While entered, in the main thread, an interrupt is

    - a KeyboardInterrupt, at first;
    - a wish to end early from `end_early` on: it sets `stopping`, and the next one gives up, as a
      KeyboardInterrupt;
    - nothing once there was a KeyboardInterrupt, and from `not_any_more` on: what is being healed
      and put back then would otherwise stay broken.

    Args:
        say: is called in the middle of whatever the main thread does; it may wait for no lock.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.stopping = threading.Event()
        self._say = say
        self._ends_early = False
        self._is_over = False
        self._previous: dict[signal.Signals, object] = {}

    def end_early(self) -> None:
        self._ends_early = True

    def not_any_more(self) -> None:
        self._is_over = True

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self._is_over:
            self._say("not before everything is put back")
        elif self._ends_early and not self.stopping.is_set():
            self.stopping.set()
            self._say("ending early; once more gives up at once")
        else:
            self._is_over = True
            self.stopping.set()
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # With nohup, a hangup is ignored on purpose.
            if number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
