"""What every service process does: wait for a signal to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopped(Exception):
    """The process was told to stop before its start was over."""


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set. Call it in the main thread, before other work."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return stopping


def wait_until_stopped(stopping: threading.Event) -> None:
    """Waits in the main thread for the event.

    It looks again each second: a handler runs only between two steps of this thread, and a
    signal taken by another thread, or just before the wait begins, would not interrupt it.
    """
    while not stopping.wait(timeout=1.0):
        pass
