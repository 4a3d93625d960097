"""A circuit breaker: when calls keep failing, it makes none for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class CircuitOpen(Exception):
    """The call was not made, because too many calls before it failed."""


class CircuitBreaker:
    """Opens after consecutive failures; then lets one call in each interval try again.

    Args:
        name: the name in the log of what is called.
        failures_to_open: so many failures in a row open it.
        retry_after_s: seconds between two tries while it is open.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        failures_to_open: int = 3,
        retry_after_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._failures_to_open = failures_to_open
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._next_try = 0.0
        self._failures = 0

    @property
    def failures(self) -> int:
        """Calls that failed since the start."""
        return self._failures

    def call(self, operation: Callable[[], Answer]) -> Answer:
        """Runs the operation, and counts a failure if it raises.

        Raises:
            CircuitOpen: the operation was not run.
            Exception: any exception of the operation.
        """
        self._enter()
        try:
            answer = operation()
        except Exception as error:
            self._failed(error)
            raise
        self._succeeded()
        return answer

    def _enter(self) -> None:
        with self._lock:
            if self._failures_in_a_row < self._failures_to_open:
                return
            now = self._clock()
            if now < self._next_try:
                raise CircuitOpen(self._name)
            self._next_try = now + self._retry_after_s  # this call is the probe, the only one

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            self._failures_in_a_row += 1
            self._next_try = self._clock() + self._retry_after_s
            opened = self._failures_in_a_row == self._failures_to_open
        if opened:
            logger.warning("%s fails, going on without it: %s", self._name, error)

    def _succeeded(self) -> None:
        with self._lock:
            failures, self._failures_in_a_row = self._failures_in_a_row, 0
        if failures >= self._failures_to_open:
            logger.info("%s answers again, after %d failures", self._name, failures)
