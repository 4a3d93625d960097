"""A bounded number of places, taken for as long as something lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import Busy


class Slots:
    """Keeps long calls from taking every thread of a server.

    Args:
        limit: how many are taken at most.
        refusal: the message for whoever finds none free.
    """

    def __init__(self, limit: int, refusal: str) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._refusal = refusal

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds one. Raises Busy at once when none is free."""
        if not self._free.acquire(blocking=False):
            raise Busy(self._refusal)
        try:
            yield
        finally:
            self._free.release()
