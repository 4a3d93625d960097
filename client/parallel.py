"""Threads that are waited for, and an interrupt that lets them finish."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

if sys.platform != "win32":
    import resource

# How often the main thread looks how far the others are.
_WATCH_INTERVAL_S = 0.1


def in_parallel(tasks: list[Callable[[], None]], watch: Callable[[], None]) -> None:
    """Runs each task in a thread of its own, calling `watch` meanwhile and at the end.

    If some raise, the exception of the first that did is raised when all have ended.
    """
    crashes: list[Exception] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - a thread has no caller; raised again below
            crashes.append(error)

    # Daemons: who gives up on them, by an interrupt, need not wait for them.
    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_WATCH_INTERVAL_S)
            watch()
    watch()
    if crashes:
        raise crashes[0]


@contextmanager
def stopped_by_interrupt(stopping: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stopping`, the second is a KeyboardInterrupt. Main thread only."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def allow_open_files(wanted: int) -> None:
    """Raises this process's limit, often 1,024, towards `wanted` as far as it may be raised."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
