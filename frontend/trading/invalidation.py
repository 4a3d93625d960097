"""When a trade may be acknowledged: once no cached quote can be older than it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Protocol

import redis

from common.domain import Trade
from common.errors import BourseError, OutcomeUnknown
from frontend.model import DONE, Decision

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 0.02
_LONGEST_BACKOFF_S = 0.25


class Invalidations(Protocol):
    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        """Returns once no older version can be read. Raises `redis.RedisError`."""


def _wait(attempt: Future[bool], timeout_s: float) -> None:
    wait([attempt], timeout=timeout_s)


class AnswerSafety:
    """Waits until Redis confirmed a trade's invalidation, or the stock's lease has run out.

    An entry older than the trade was looked up under a lease that the catalog knew of when it
    decided the trade. So it is gone when the invalidation is confirmed, and it has expired when
    the lease has run out, whatever state Redis is in. No breaker stands before the tries: a
    Redis that one frontend finds slow can still be serving the others.

    Trades that were decided together are invalidated together, by one call. Where that fails
    each goes on trying, beside its request, which therefore never outwaits the lease.

    Args:
        cache: where to invalidate, also when this frontend does not read from it.
        threads: trades waiting at once.
        call_takes_s: one call to the cache at most, connecting included. A lease that ends sooner
            is not kept waiting for one.
        clock: seconds, monotonic.
        sleep: between two tries, in seconds.
        wait_for: returns when the attempt is done, or after so many seconds.
    """

    def __init__(
        self,
        cache: Invalidations,
        *,
        threads: int,
        call_takes_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        wait_for: Callable[[Future[bool], float], None] = _wait,
    ) -> None:
        self._cache = cache
        self._call_takes_ms = call_takes_s * 1000
        self._clock = clock
        self._sleep = sleep
        self._wait_for = wait_for
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="invalidate")

    def end_leases(
        self, trades: Sequence[Trade], outcomes: Sequence[Decision | BourseError]
    ) -> list[Decision | BourseError]:
        """Invalidates with one call to Redis what was decided together.

        Returns:
            The outcomes, with what is left of their leases: nothing where Redis confirmed.
        """
        after = list(outcomes)
        ending = [
            (place, trades[place].name, outcome)
            for place, outcome in enumerate(outcomes)
            if isinstance(outcome, Decision)
            and outcome.status == DONE
            and outcome.lease_ms >= self._call_takes_ms
        ]
        if not ending:
            return after
        began_at = self._clock()
        is_confirmed = self._is_confirmed([(name, done.version) for _, name, done in ending])
        passed_ms = int((self._clock() - began_at) * 1000)
        for place, _, done in ending:
            left_ms = 0 if is_confirmed else max(0, done.lease_ms - passed_ms)
            after[place] = replace(done, lease_ms=left_ms)
        return after

    def _is_confirmed(self, versions: Sequence[tuple[str, int]]) -> bool:
        """Whether one call to Redis invalidated them all."""
        try:
            self._cache.invalidate(versions)
        except redis.RedisError as error:
            logger.debug("%d trades are not invalidated yet: %s", len(versions), error)
            return False
        except Exception:
            # The trades are done, and the ends of their leases make the answers right.
            logger.exception("unexpected error while invalidating")
            return False
        return True

    def wait_until_safe(
        self,
        name: str,
        version: int,
        lease_ms: int,
        answered_at: float,
        give_up_at: float = math.inf,
    ) -> None:
        """Returns when the trade that made `version` of the stock may be acknowledged.

        Args:
            lease_ms: what was left of the stock's lease, as the leader answered.
            answered_at: when that answer came, on this object's clock.
            give_up_at: when the caller's time is over, on this object's clock.

        Raises:
            OutcomeUnknown: the caller's time is over, and the lease is not.
        """
        # Without it, a stale quote follows a 200 ("lease wait": test_failure_table.py).
        lease_end = answered_at + lease_ms / 1000
        if self._clock() >= lease_end:
            return
        until = min(lease_end, give_up_at)
        attempt = self._executor.submit(self._invalidate, name, version, until)
        while not attempt.done() and (left_s := until - self._clock()) > 0:
            self._wait_for(attempt, left_s)
        is_confirmed = attempt.done() and attempt.result()
        if not is_confirmed and self._clock() < lease_end:
            raise OutcomeUnknown

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _invalidate(self, name: str, version: int, until: float) -> bool:
        """Tries until it succeeds or the time is over; whether it succeeded."""
        backoff_s = _FIRST_BACKOFF_S
        while (left_s := until - self._clock()) > 0:
            try:
                self._cache.invalidate([(name, version)])
            except redis.RedisError as error:
                logger.debug("%s v%d is not invalidated yet: %s", name, version, error)
            except Exception:
                # The trade is done and the end of the lease makes its answer right all the same.
                logger.exception("unexpected error while invalidating")
                self._sleep(left_s)
                return False
            else:
                return True
            self._sleep(min(backoff_s, left_s))
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
        logger.info("%s v%d: Redis did not confirm in time", name, version)
        return False
