"""Has a replica stop leading when its work hangs: a disk can hang instead of failing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_INTERVAL_S = 0.25


class Progress:
    """The work under way in all threads, and when each piece of it last moved."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._moved_at: dict[object, float] = {}  # by piece of work

    @contextmanager
    def of_work(self) -> Iterator[Callable[[], None]]:
        """The block is a piece of work; yields what notes that it has moved."""
        work = object()

        def moved() -> None:
            with self._changing:
                self._moved_at[work] = self._clock()

        moved()
        try:
            yield moved
        finally:
            with self._changing:
                del self._moved_at[work]

    def longest_idle_s(self) -> float:
        """How long the piece of work that hangs the longest has not moved; 0 without work."""
        with self._changing:
            return self._clock() - min(self._moved_at.values(), default=self._clock())


class Watchdog:
    """Looks whether the work under way moves.

    The thread that hangs cannot look itself, and calls that ask this replica something only read.

    Args:
        give_up: has this replica stop leading, and rest; called with the reason at every look
            for as long as something hangs.
        stuck_after_s: work that has not moved for longer hangs.
    """

    def __init__(
        self, progress: Progress, give_up: Callable[[str], None], stuck_after_s: float
    ) -> None:
        self._progress = progress
        self._give_up = give_up
        self._stuck_after_s = stuck_after_s

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(_INTERVAL_S):
            try:
                self.look()
            except Exception:
                logger.exception("unexpected error in the watchdog")

    def look(self) -> None:
        idle_s = self._progress.longest_idle_s()
        if idle_s > self._stuck_after_s:
            self._give_up(f"nothing has moved for {idle_s:.1f} s")
