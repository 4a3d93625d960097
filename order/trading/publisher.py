"""Publishing: which stocks changed, to Redis and to every stream of updates.

No promise depends on either. A cache entry that nobody invalidates ends with its lease. A stream
that cannot keep up ends with an error; it never leaves out a change without saying so.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import redis

from common.domain import INVALIDATION_CHANNEL, Order
from common.errors import Busy
from common.on_change import OnChange

logger = logging.getLogger(__name__)

_STREAM_CAPACITY = 10_000  # changes a slow subscriber may be behind
_PUBLISHED_AT_ONCE = 10_000  # stocks in one message
_BETWEEN_S = 0.05  # from one message to the next
_POLL_S = 0.5

Changes = Mapping[str, int]  # stock name -> its newest version


class Sink(Protocol):
    def offer(self, changes: Changes) -> None:
        """Takes the changes without ever waiting."""


class Publisher:
    """Hands the newest version of each stock of a batch to every sink."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def publish(self, rows: Sequence[Order]) -> None:
        changes: dict[str, int] = {}
        for row in rows:
            changes[row.name] = max(row.version, changes.get(row.name, 0))
        if changes:
            for sink in self._sinks:
                sink.offer(changes)


class UpdateStream:
    """One subscriber's changes, in order, until it is closed or falls too far behind."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[str, int]] = queue.Queue(_STREAM_CAPACITY)
        self._overflowed = False

    def push(self, changes: Changes) -> None:
        for change in changes.items():
            try:
                self._waiting.put_nowait(change)
            except queue.Full:
                self._overflowed = True

    def take(self) -> tuple[str, int] | None:
        """The next change; None when there was none for a while.

        Raises:
            Busy: changes were lost because this subscriber is too slow.
        """
        if self._overflowed:
            raise Busy("too slow: updates were lost")
        try:
            return self._waiting.get(timeout=_POLL_S)
        except queue.Empty:
            return None


class UpdateHub:
    """The subscribers of `StreamDBUpdates`; every one of them gets every change."""

    def __init__(self) -> None:
        self._streams: set[UpdateStream] = set()
        self._changing = threading.Lock()

    def offer(self, changes: Changes) -> None:
        with self._changing:
            streams = list(self._streams)
        for stream in streams:
            stream.push(changes)

    @contextmanager
    def subscribe(self) -> Iterator[UpdateStream]:
        stream = UpdateStream()
        with self._changing:
            self._streams.add(stream)
        try:
            yield stream
        finally:
            with self._changing:
                self._streams.discard(stream)


class RedisPublisher:
    """Publishes from a loop of its own, so that a slow Redis never delays a trade.

    Changes that come while it publishes wait for the next message, which has the newest version of
    each stock. Every worker of every frontend acts on every message, so there should be few.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._waiting: dict[str, int] = {}
        self._arrived = threading.Condition()
        self._failing = OnChange(logger)

    def offer(self, changes: Changes) -> None:
        with self._arrived:
            for name, version in changes.items():
                if name in self._waiting or len(self._waiting) < _PUBLISHED_AT_ONCE:
                    self._waiting[name] = max(version, self._waiting.get(name, 0))
                else:
                    logger.debug("publisher is behind, %s is not published", name)
            self._arrived.notify()

    def close(self) -> None:
        self._client.close()

    def run(self, stopping: threading.Event) -> None:
        """Ends, at the latest after the call to Redis that is under way."""
        while not stopping.is_set():
            changes = self._take()
            if not changes:
                continue
            try:
                self._client.publish(INVALIDATION_CHANNEL, json.dumps(list(changes.items())))
                self._failing.over("publishing invalidations again")
            except redis.RedisError as error:
                self._failing.trouble("cannot publish invalidations: %s", error)
            except Exception:
                logger.exception("unexpected error while publishing")
            stopping.wait(_BETWEEN_S)

    def _take(self) -> Changes:
        """What waits; nothing if nothing came for a while."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting, _POLL_S)
            changes, self._waiting = self._waiting, {}
        return changes
