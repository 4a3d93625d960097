"""The loops that run beside a replica's calls: each has a thread, and all end together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Runs until the event is set. It handles its errors itself.
Loop = Callable[[threading.Event], None]


class Loops:
    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._wakers: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, loop: Loop, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called at the end, for a loop that then waits for something else."""
        thread = threading.Thread(target=loop, args=(self._stopping,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        self._wakers.append(wake)

    def stop(self, timeout_s: float) -> bool:
        """Waits until all have ended; False if one has not in time, because its disk hangs."""
        self._stopping.set()
        for wake in self._wakers:
            wake()
        give_up_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
