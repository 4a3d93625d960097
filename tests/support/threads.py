"""Threads that work around a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def working(works: Iterable[Callable[[], None]], stopping: threading.Event) -> Iterator[None]:
    """Each work runs in a thread of its own, until it sees that the event is set."""
    threads = [
        threading.Thread(target=work, name=f"client-{index}") for index, work in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
