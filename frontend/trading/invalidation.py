"""Removes older quotes from the cache, for many trades at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import redis

from common.errors import BourseError, Unavailable
from common.retries import Backoff
from frontend.trading.batching import BatchSender, NotSent

logger = logging.getLogger(__name__)

_BATCH_LIMIT = 64
_QUEUE_LIMIT = 1024
_BACKOFF = Backoff(first_s=0.02, longest_s=0.25, at_least=0.5)


class SharedCache(Protocol):
    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        """Returns once no older version can be read. Raises `redis.RedisError`."""


class CacheInvalidation:
    """Invalidates stocks in Redis. Requests that come during one call share the next one.

    It uses no circuit breaker: a Redis that is slow for one frontend can still serve the others.

    Args:
        cache: where to invalidate, even if this frontend does not read from it.
        clock: seconds, monotonic.
        sleep: waits between two tries; takes seconds.
    """

    def __init__(
        self,
        cache: SharedCache,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._sleep = sleep
        self._sender: BatchSender[tuple[str, int], None] = BatchSender(
            "invalidate",
            self._send,
            batch_limit=_BATCH_LIMIT,
            queue_limit=_QUEUE_LIMIT,
            clock=clock,
        )

    def invalidate(self, name: str, version: int, until: float) -> bool:
        """Tries until Redis confirms, or until `until` on its clock. True if Redis confirmed."""
        failures = 0
        while (left_s := until - self._clock()) > 0:
            try:
                self._sender.put((name, version), until).result(left_s)
            except TimeoutError:
                break
            except (BourseError, NotSent) as error:
                logger.debug("%s v%d is not invalidated yet: %s", name, version, error)
            else:
                return True
            failures += 1
            self._sleep(max(0.0, min(_BACKOFF.pause_s(failures), until - self._clock())))
        if failures or left_s > 0:
            logger.info("%s v%d: Redis did not confirm in time", name, version)
        return False

    def close(self) -> None:
        self._sender.close()

    def _send(self, versions: Sequence[tuple[str, int]], _timeout_s: float) -> list[None]:
        """The cache's own timeouts bound the call."""
        try:
            self._cache.invalidate(versions)
        except redis.RedisError as error:
            raise Unavailable(f"Redis: {error}") from error
        return [None] * len(versions)
