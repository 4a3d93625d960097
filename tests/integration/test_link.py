"""Each mode of the link that other tests cut, seen from a client of Redis."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis

from common.redis_connections import connect_redis
from stack.waiting import wait_for
from tests.support.link import HOST, Link, Mode
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


@pytest.fixture
def link(server: RedisServer) -> Iterator[Link]:
    link = Link(free_ports(1), server.port)
    yield link
    link.close()


@pytest.fixture
def client(server: RedisServer, link: Link) -> Iterator[redis.Redis]:
    """The Redis client of the frontend, connected through the link."""
    server.flush()
    with connect_redis(f"redis://127.0.0.1:{link.port}/0", 0.2, max_connections=2) as client:
        client.set("before", "1")
        yield client


def is_there(server: RedisServer, key: str) -> bool:
    with server.client() as direct:
        return bool(direct.exists(key))


def test_what_a_silent_link_holds_back_arrives_late(
    server: RedisServer, link: Link, client: redis.Redis
) -> None:
    link.set(Mode.SILENT)
    for key in ("on the old connection", "on a new one"):
        with pytest.raises(redis.TimeoutError):
            client.set(key, 1)
        assert not is_there(server, key)
    link.set(Mode.OPEN)
    wait_for(lambda: is_there(server, "on the old connection"), 5, "nothing came")
    wait_for(lambda: is_there(server, "on a new one"), 5, "nothing came")
    assert client.get("before") == "1"


def test_a_one_way_link_carries_requests_alone(
    server: RedisServer, link: Link, client: redis.Redis
) -> None:
    link.set(Mode.ONE_WAY)
    for key in ("on the old connection", "on a new one"):
        with pytest.raises(redis.TimeoutError):
            client.set(key, 1)
        wait_for(lambda key=key: is_there(server, key), 5, "nothing came")
    link.set(Mode.OPEN)
    assert client.get("before") == "1"


def test_a_refusing_link_resets_and_refuses(link: Link, client: redis.Redis) -> None:
    link.set(Mode.REFUSED)
    for _ in ("the old connection", "a new one"):
        with pytest.raises(redis.ConnectionError):
            client.get("before")
    link.set(Mode.OPEN)
    assert client.get("before") == "1"


def test_a_link_closes_all_that_came_even_while_more_comes(server: RedisServer) -> None:
    """A socket that stays open fails the test in which the garbage collector finds it."""
    with ThreadPoolExecutor(2) as executor:
        for _ in range(20):
            link, stopping = Link(free_ports(1), server.port), threading.Event()
            callers = [executor.submit(call, link.port, stopping) for _ in range(2)]
            time.sleep(0.02)
            link.close()
            stopping.set()
            assert sum(caller.result() for caller in callers) > 0
    gc.collect()


def call(port: int, stopping: threading.Event) -> int:
    """Connects until it is stopped. Returns how many connections were accepted."""
    accepted = 0
    while not stopping.is_set():
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            accepted += 1
    return accepted
