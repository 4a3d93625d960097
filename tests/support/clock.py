"""A clock that a test sets."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Clock:
    """Time that passes only when it is told to; for more than one thread.

    Give `clock` where the time is asked for, and `clock.pause` where somebody sleeps.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        self.pauses: list[float] = []
        self.during_pause: Callable[[], None] = lambda: None
        self._changing = threading.Lock()

    def __call__(self) -> float:
        return self.now_s

    def pass_by(self, duration_s: float) -> None:
        with self._changing:
            self.now_s += duration_s

    def pause(self, duration_s: float) -> None:
        assert duration_s >= 0
        self.pauses.append(duration_s)
        self.pass_by(duration_s)
        self.during_pause()
