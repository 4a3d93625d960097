"""The subscriber against a real Redis: it applies each message and survives every fault."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from common.domain import INVALIDATION_CHANNEL
from common.redis_connections import connect_redis
from frontend.quotes.subscriber import (
    InvalidationSubscriber,
    decode_invalidations,
)
from stack.waiting import wait_for
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer, running_redis

TIMEOUT_S = 20.0


class Recorder:
    """A cache that records the invalidations it gets."""

    def __init__(self) -> None:
        self.applied: list[tuple[str, int]] = []
        self.error: Exception | None = None
        self.failures = 0

    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        if self.error is not None:
            self.failures += 1
            raise self.error
        self.applied += versions


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
def cache() -> Recorder:
    return Recorder()


@pytest.fixture
def subscriber(server: RedisServer, cache: Recorder) -> Iterator[InvalidationSubscriber]:
    with connect_redis(server.url, timeout_s=0.5, max_connections=2) as client:
        running = InvalidationSubscriber(client, cache, silence_s=0.1)
        running.start()
        yield running
        running.stop()


def publish(server: RedisServer, message: str | bytes) -> None:
    """Publishes until a subscriber got it: the subscriber may be reconnecting."""
    with server.client() as client:
        wait_for(
            lambda: client.publish(INVALIDATION_CHANNEL, message) > 0,
            TIMEOUT_S,
            lambda: client.pubsub_numsub(INVALIDATION_CHANNEL),
        )


def expect(cache: Recorder, *versions: tuple[str, int]) -> None:
    wait_for(lambda: set(versions) <= set(cache.applied), TIMEOUT_S, lambda: cache.applied)


pytestmark = pytest.mark.usefixtures("subscriber")


def test_applies_what_is_published(server: RedisServer, cache: Recorder) -> None:
    publish(server, json.dumps([["stock1", 7], ["stock2", 3]]))
    expect(cache, ("stock1", 7), ("stock2", 3))


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no json",
        b"\xff\xfe",
        "7",
        "{}",
        '[["stock1"]]',
        '[["stock1", 0]]',
        '[["stock1", true]]',
        '[["stock1", 1.5]]',
        '[["stock1", "1"]]',
        '[["stock1", 9007199254740992]]',
        '[["", 1]]',
        "[" * 100_000,
    ],
)
def test_survives_a_malformed_message(
    server: RedisServer, cache: Recorder, caplog: pytest.LogCaptureFixture, message: str | bytes
) -> None:
    publish(server, message)
    publish(server, '[["stock1", 1]]')
    expect(cache, ("stock1", 1))
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


@pytest.mark.parametrize(
    "error", [redis.TimeoutError("slow"), ZeroDivisionError("a defect")], ids=["slow", "defect"]
)
def test_survives_a_cache_that_fails(
    server: RedisServer, cache: Recorder, error: Exception
) -> None:
    cache.error = error
    publish(server, '[["stock1", 1]]')
    wait_for(lambda: cache.failures > 0, TIMEOUT_S, lambda: cache.applied)
    cache.error = None
    publish(server, '[["stock1", 2]]')
    expect(cache, ("stock1", 2))


def test_reconnects_after_a_restart(server: RedisServer, cache: Recorder) -> None:
    publish(server, '[["stock1", 1]]')
    server.kill()
    time.sleep(0.5)
    server.start()
    publish(server, '[["stock1", 2]]')
    expect(cache, ("stock1", 2))


def test_a_silent_connection_is_given_up_and_said_so_once(
    server: RedisServer, cache: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    publish(server, '[["stock1", 1]]')
    server.pause()
    wait_for(lambda: "not listening" in caplog.text, TIMEOUT_S, lambda: caplog.text)
    time.sleep(0.5)
    server.resume()
    wait_for(lambda: "again" in caplog.text, TIMEOUT_S, lambda: caplog.text)
    publish(server, '[["stock1", 2]]')
    expect(cache, ("stock1", 2))
    assert caplog.text.count("not listening") == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (["REPLICAOF", "127.0.0.1", "1"], "it is a replica"),
        (["CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru"], "allkeys-lru"),
    ],
    ids=["replica", "evicts"],
)
def test_says_at_once_that_a_redis_does_not_fit(
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    spoil: list[str],
    reason: str,
) -> None:
    publish(server, '[["stock1", 1]]')  # the subscriber has connected, and found nothing wrong
    with server.client() as operator:
        operator.execute_command(*spoil)
        operator.client_kill_filter(_type="pubsub")
    wait_for(lambda: "not fit to be the cache" in caplog.text, TIMEOUT_S, lambda: caplog.text)
    assert reason in caplog.text


def test_says_at_once_that_it_is_a_cluster(
    cache: Recorder, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_ports(1))]
    with (
        running_redis(directory=tmp_path, options=options) as cluster,
        connect_redis(cluster.url, timeout_s=0.5, max_connections=2) as client,
    ):
        running = InvalidationSubscriber(client, cache, silence_s=0.1)
        running.start()
        wait_for(lambda: "it is a Redis Cluster" in caplog.text, TIMEOUT_S, lambda: caplog.text)
        running.stop()


def test_stops_while_redis_is_away(server: RedisServer, subscriber: InvalidationSubscriber) -> None:
    server.kill()
    subscriber.stop()


def test_decodes_names_and_versions() -> None:
    assert decode_invalidations('[["stock1", 7]]') == [("stock1", 7)]
