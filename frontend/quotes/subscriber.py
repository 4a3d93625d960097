"""Applies the invalidations that the order leader publishes.

Nothing depends on a message arriving. It only removes an old entry a little earlier than the
entry's end, when the trade's frontend died or the trade came from no frontend.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import redis

from common.domain import INVALIDATION_CHANNEL, is_valid_name
from common.on_change import OnChange
from common.retries import Backoff
from frontend.quotes.fitness import unfit_because

logger = logging.getLogger(__name__)

# Random, so that not all workers connect at once.
_BACKOFF = Backoff(first_s=0.1, longest_s=2.0, at_least=0.5)
_MAX_VERSION = 2**53 - 1


class InvalidatedCache(Protocol):
    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        """Raises `redis.RedisError`."""


class InvalidationSubscriber:
    """A daemon thread that listens until it is stopped.

    Whenever it connects, it also checks whether this Redis can be the cache at all.

    If Redis is silent for `silence_s`, it sends a ping. If Redis is silent for as long again, it
    takes the connection for dead: a half-open socket shows no other sign.
    """

    def __init__(
        self, client: redis.Redis, cache: InvalidatedCache, silence_s: float = 1.0
    ) -> None:
        self._client = client
        self._cache = cache
        self._silence_s = silence_s
        self._stopping = threading.Event()
        self._failures = 0
        self._deaf = OnChange(logger)
        self._unfit = OnChange(logger)
        self._thread = threading.Thread(
            target=self._run, name="invalidation-subscriber", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended: within `silence_s` and one call to Redis."""
        self._stopping.set()
        if self._thread.ident is not None:  # else it was never started
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                self._lost(error)
            except Exception as error:
                logger.exception("the subscriber met a defect and starts anew")
                self._lost(error)

    def _listen(self) -> None:
        with self._client.pubsub() as pubsub:  # type: ignore[no-untyped-call] # redis-py's
            pubsub.subscribe(INVALIDATION_CHANNEL)
            awaiting_pong = False
            while not self._stopping.is_set():
                message = pubsub.get_message(timeout=self._silence_s)
                if message is not None:
                    self._heard(message)
                elif awaiting_pong:
                    raise redis.TimeoutError("Redis does not answer a ping")
                else:
                    pubsub.ping()
                awaiting_pong = message is None

    def _check_fitness(self) -> None:
        reason = unfit_because(self._client.info())
        if reason:
            self._unfit.trouble(
                "this Redis is not fit to be the cache: %s",
                reason,
                cause=reason,
                level=logging.ERROR,
            )
        else:
            self._unfit.over("this Redis is fit to be the cache")

    def _heard(self, message: dict[str, Any]) -> None:
        self._deaf.over("listening to invalidations again")
        self._failures = 0
        if message["type"] == "subscribe":  # after each connecting, redis-py's own included
            self._check_fitness()
        elif message["type"] == "message":
            self._apply(message["data"])

    def _apply(self, data: str) -> None:
        try:
            versions = decode_invalidations(data)
        except ValueError as error:
            logger.warning("ignoring a message: %s", error)
            return
        try:
            self._cache.invalidate(versions)
        except redis.RedisError as error:
            logger.debug("an invalidation was lost: %s", error)

    def _lost(self, error: Exception) -> None:
        """Waits before the next attempt."""
        self._deaf.trouble("not listening to invalidations: %s", error)
        self._failures += 1
        self._stopping.wait(_BACKOFF.pause_s(self._failures))


def decode_invalidations(data: str) -> list[tuple[str, int]]:
    """`[["stock1", 7], ...]` as pairs of name and version. Raises ValueError otherwise."""
    try:
        pairs = [(name, version) for name, version in json.loads(data)]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"not a list of pairs: {data[:200]!r}") from error
    for name, version in pairs:
        if not (is_valid_name(name) and type(version) is int and 0 < version <= _MAX_VERSION):
            raise ValueError(f"not a stock and its version: {(name, version)!r:.200}")
    return pairs
