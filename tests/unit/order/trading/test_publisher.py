"""Publishing sends the newest version of each stock to every sink, and waits for no slow one."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import redis

from common.domain import BUY, Order
from common.errors import Busy
from order.loops import Loops
from order.trading import publisher as publisher_module
from order.trading.publisher import (
    INVALIDATION_CHANNEL,
    Changes,
    Publisher,
    RedisPublisher,
    UpdateHub,
    UpdateStream,
)
from tests.support.redis_server import RedisServer, running_redis
from tests.unit.order.fakes import TIMEOUT_S, make_rows


def row(name: str, version: int) -> Order:
    return Order(version, f"request-{version}", name, BUY, 1, version, 1)


# ------------------------------------------------------------ the publisher


class Sink:
    def __init__(self) -> None:
        self.offered: list[Changes] = []

    def offer(self, changes: Changes) -> None:
        self.offered.append(changes)


def test_each_sink_gets_the_newest_version_of_each_stock() -> None:
    sinks = [Sink(), Sink()]
    Publisher(sinks).publish([row("a", 3), row("b", 9), row("a", 5), row("b", 8), row("a", 4)])
    for sink in sinks:
        assert sink.offered == [{"a": 5, "b": 9}]


def test_a_batch_is_one_offer_and_nothing_is_none() -> None:
    sink = Sink()
    publisher = Publisher([sink])
    publisher.publish(make_rows(30))
    publisher.publish([])
    assert sink.offered == [{"stock0": 30, "stock1": 28, "stock2": 29}]


# ------------------------------------------------------------ streams


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "_POLL_S", 0.01)
    monkeypatch.setattr(publisher_module, "_STREAM_CAPACITY", 5)
    monkeypatch.setattr(publisher_module, "_PUBLISHED_AT_ONCE", 3)
    monkeypatch.setattr(publisher_module, "_BETWEEN_S", 0.001)


def taken(stream: UpdateStream) -> list[tuple[str, int]]:
    return list(iter(stream.take, None))


def test_a_stream_hands_out_changes_in_order() -> None:
    stream = UpdateStream()
    stream.push({"a": 1, "b": 2})
    stream.push({"a": 3})
    assert taken(stream) == [("a", 1), ("b", 2), ("a", 3)]
    assert stream.take() is None
    stream.push({"c": 4})
    assert taken(stream) == [("c", 4)]


def test_a_stream_that_lost_a_change_says_so_from_then_on() -> None:
    stream = UpdateStream()
    stream.push(dict.fromkeys("abcdef", 1))  # one more than the stream can hold
    for _ in range(3):
        with pytest.raises(Busy, match="too slow: updates were lost"):
            stream.take()


def test_a_stream_may_be_as_far_behind_as_it_holds() -> None:
    stream = UpdateStream()
    stream.push(dict.fromkeys("abcde", 1))
    assert len(taken(stream)) == 5


def test_every_subscriber_gets_every_change() -> None:
    hub = UpdateHub()
    hub.offer({"before": 1})
    with hub.subscribe() as first:
        hub.offer({"a": 2})
        with hub.subscribe() as second:
            hub.offer({"b": 3, "c": 4})
            assert taken(second) == [("b", 3), ("c", 4)]
        hub.offer({"d": 5})
        assert taken(first) == [("a", 2), ("b", 3), ("c", 4), ("d", 5)]
        assert taken(second) == []  # it has unsubscribed
    hub.offer({"after": 6})
    assert taken(first) == []


def test_a_slow_subscriber_does_not_hurt_the_others() -> None:
    hub = UpdateHub()
    with hub.subscribe() as slow, hub.subscribe() as quick:
        for version in range(20):
            hub.offer({"a": version})
            assert quick.take() == ("a", version)
        with pytest.raises(Busy):
            slow.take()


def test_a_subscriber_that_fails_is_forgotten() -> None:
    hub = UpdateHub()
    with pytest.raises(ZeroDivisionError), hub.subscribe():
        raise ZeroDivisionError
    assert not hub._streams


def test_subscribers_come_and_go_while_changes_are_offered() -> None:
    hub = UpdateHub()
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            with hub.subscribe():
                pass

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    with hub.subscribe() as stream:
        for version in range(500):
            hub.offer({"a": version})
            assert stream.take() == ("a", version)
    is_over.set()
    for thread in threads:
        thread.join()


# ------------------------------------------------------------ Redis


class FakeRedis:
    """Each call does what the script says. After the script, every call succeeds."""

    def __init__(self) -> None:
        self.published: list[list[list[Any]]] = []
        self.script: deque[Callable[[], None]] = deque()
        self.is_closed = False
        self._tries = threading.Semaphore(0)

    def publish(self, channel: str, message: str) -> None:
        assert channel == INVALIDATION_CHANNEL
        try:
            if self.script:
                self.script.popleft()()
            self.published.append(json.loads(message))
        finally:
            self._tries.release()

    def wait_for_tries(self, count: int) -> None:
        """Waits until that many more calls have ended."""
        for _ in range(count):
            assert self._tries.acquire(timeout=TIMEOUT_S)

    def close(self) -> None:
        self.is_closed = True


def fail(error: Exception) -> Callable[[], None]:
    def play() -> None:
        raise error

    return play


class LoopingPublisher(RedisPublisher):
    """In a loop, as a replica runs it."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.loops = Loops()

    def start(self) -> None:
        self.loops.start("publisher", self.run)

    def stop(self) -> None:
        self.loops.stop(TIMEOUT_S)
        self.close()


@pytest.fixture
def client() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def publisher(client: FakeRedis) -> LoopingPublisher:
    return LoopingPublisher(client)


def test_what_waits_goes_in_one_message(publisher: LoopingPublisher, client: FakeRedis) -> None:
    publisher.offer({"a": 1, "b": 2})
    publisher.offer({"a": 3, "c": 1})
    publisher.offer({"a": 2})  # an old version that comes late
    publisher.start()
    client.wait_for_tries(1)
    publisher.offer({"a": 4})
    client.wait_for_tries(1)
    publisher.stop()
    assert client.published == [[["a", 3], ["b", 2], ["c", 1]], [["a", 4]]]
    assert client.is_closed


@contextmanager
def hanging(publisher: LoopingPublisher, client: FakeRedis) -> Iterator[None]:
    """During the block, Redis does not answer."""
    is_publishing, may_go_on = threading.Event(), threading.Event()

    def hang() -> None:
        is_publishing.set()
        assert may_go_on.wait(TIMEOUT_S)

    client.script.append(hang)
    publisher.offer({"hangs": 0})
    publisher.start()
    assert is_publishing.wait(TIMEOUT_S)
    try:
        yield
    finally:
        may_go_on.set()


@pytest.mark.timeout(20)
def test_a_redis_that_hangs_blocks_nobody(publisher: LoopingPublisher, client: FakeRedis) -> None:
    with hanging(publisher, client):
        for version in range(100):
            publisher.offer(dict.fromkeys("abcd", version))  # returns at once
        assert client.published == []
    client.wait_for_tries(2)
    publisher.stop()
    # A full publisher drops changes: no promise depends on them.
    assert client.published == [[["hangs", 0]], [["a", 99], ["b", 99], ["c", 99]]]


@pytest.mark.parametrize("error", [redis.TimeoutError("slow"), redis.ConnectionError("gone")])
def test_a_redis_that_fails_is_tried_again_with_the_next_batch(
    publisher: LoopingPublisher,
    client: FakeRedis,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    caplog.set_level("INFO", "order.trading.publisher")
    client.script.extend([fail(error)] * 2)
    publisher.start()
    for version in range(3):
        publisher.offer({"a": version})
        client.wait_for_tries(1)
    publisher.stop()
    assert client.published == [[["a", 2]]]
    assert caplog.messages == [
        f"cannot publish invalidations: {error}",  # logged only once
        "publishing invalidations again",
    ]


def test_a_defect_does_not_end_the_publishing(
    publisher: LoopingPublisher, client: FakeRedis, caplog: pytest.LogCaptureFixture
) -> None:
    client.script.append(fail(ZeroDivisionError("a defect")))
    publisher.start()
    for version in (1, 2):
        publisher.offer({"a": version})
        client.wait_for_tries(1)
    publisher.stop()
    assert client.published == [[["a", 2]]]
    assert "ZeroDivisionError" in caplog.text


def test_stopping_waits_for_the_call_under_way_and_no_other(
    publisher: LoopingPublisher, client: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Redis is down, each waiting batch would take a timeout."""
    with ExitStack() as stack:
        stack.enter_context(hanging(publisher, client))
        (thread,) = publisher.loops._threads
        join = thread.join
        publisher.offer({"a": 1})
        publisher.offer({"a": 2})
        # Redis answers again as soon as `stop` begins to wait.
        monkeypatch.setattr(thread, "join", lambda _timeout_s: (stack.close(), join()))
        publisher.stop()
    assert client.published == [[["hangs", 0]]]
    assert client.is_closed


# ------------------------------------------------------------ a real one


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def connect(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=0.05, socket_connect_timeout=0.05)


def test_subscribers_of_the_channel_get_what_a_batch_changed(server: RedisServer) -> None:
    with server.client() as subscriber, closing(subscriber.pubsub()) as pubsub:
        pubsub.subscribe("bourse:invalidations")
        assert pubsub.get_message(timeout=TIMEOUT_S)["type"] == "subscribe"
        publisher = LoopingPublisher(connect(server))
        publisher.start()
        Publisher([publisher]).publish([row("株 a", 1), row("b", 2), row("株 a", 3)])
        message = pubsub.get_message(timeout=TIMEOUT_S)
        publisher.stop()
    assert json.loads(message["data"]) == [["株 a", 3], ["b", 2]]


@pytest.mark.timeout(20)
def test_a_paused_redis_delays_nobody_and_is_found_again(server: RedisServer) -> None:
    publisher = LoopingPublisher(connect(server))
    with server.client() as subscriber, closing(subscriber.pubsub()) as pubsub:
        pubsub.subscribe("bourse:invalidations")
        assert pubsub.get_message(timeout=TIMEOUT_S)["type"] == "subscribe"
        publisher.start()
        server.pause()
        try:
            for version in range(50):
                publisher.offer({"a": version})
        finally:
            server.resume()
        publisher.offer({"b": 1})
        while True:
            names = [name for name, _ in json.loads(pubsub.get_message(timeout=TIMEOUT_S)["data"])]
            if "b" in names:
                break
            assert names == ["a"]
        publisher.stop()
