"""Ctrl-C, and what else asks a run to end: never in the middle of healing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

# A terminal that is closed, and `docker stop` or a shutdown, ask for the same as Ctrl-C.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
            self._say("not before everything is healed")
        elif self._ends_early and not self.stopping.is_set():
            self.stopping.set()
            self._say("ending early, healed and judged; once more gives up at once")
        else:
            self._is_over = True
            self.stopping.set()
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # Whoever starts something with nohup has said what a hangup is to be.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
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
