"""When a trade may be acknowledged: once no cached quote can be older than it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import redis

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.02
_LONGEST_BACKOFF_S = 0.25


class Invalidations(Protocol):
    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        """Returns once no older version can be read. Raises `redis.RedisError`."""


def _wait(attempt: Future[None], timeout_s: float) -> None:
    wait([attempt], timeout=timeout_s)


class AnswerSafety:
    """Waits until Redis confirmed a trade's invalidation, or the stock's lease has run out.

    An entry older than the trade was looked up under a lease that the catalog knew of when it
    decided the trade. So it is gone when the invalidation is confirmed, and it has expired when
    the lease has run out, whatever state Redis is in. No breaker stands before the tries: a
    Redis that one frontend finds slow can still be serving the others.

    The tries run beside the request, which therefore never outwaits the lease.

    Args:
        cache: where to invalidate, also when this frontend does not read from it.
        threads: trades waiting at once.
        clock: seconds, monotonic.
        sleep: between two tries, in seconds.
        wait_for: returns when the attempt is done, or after so many seconds.
    """

    def __init__(
        self,
        cache: Invalidations,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wait_for: Callable[[Future[None], float], None] = _wait,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._sleep = sleep
        self._wait_for = wait_for
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="invalidate")

    def wait_until_safe(self, name: str, version: int, lease_ms: int, answered_at: float) -> None:
        """Returns when the trade that made `version` of the stock may be acknowledged.

        Args:
            lease_ms: what was left of the stock's lease, as the leader answered.
            answered_at: when that answer came, on this object's clock.
        """
        lease_end = answered_at + lease_ms / 1000
        if self._clock() >= lease_end:
            return
        attempt = self._executor.submit(self._invalidate, name, version, lease_end)
        while not attempt.done() and (left_s := lease_end - self._clock()) > 0:
            self._wait_for(attempt, left_s)
        if attempt.done():
            attempt.result()  # raises if the attempt met a defect

    def close(self) -> None:
        """Call it after the last request; returns when the last try has ended."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _invalidate(self, name: str, version: int, lease_end: float) -> None:
        """Tries until it succeeds or the lease has run out."""
        backoff_s = _FIRST_BACKOFF_S
        while (left_s := lease_end - self._clock()) > 0:
            try:
                self._cache.invalidate([(name, version)])
            except redis.RedisError as error:
                logger.debug("%s v%d is not invalidated yet: %s", name, version, error)
                self._sleep(min(backoff_s, left_s))
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            else:
                return
        logger.info("%s v%d: Redis did not confirm, the lease ran out", name, version)
