"""The Redis client of a request: a slow or stopped Redis costs little time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from common.redis_connections import connect_redis
from frontend.quotes.redis_client import OwnConnections
from tests.support.redis_server import RedisServer, closed_port, running_redis

TIMEOUT_S = 0.2
# Far below the default timeouts of redis-py, and enough for a busy machine.
SOON_S = 2.5


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running:
        yield running


def connected(server: RedisServer, max_connections: int = 2) -> redis.Redis:
    return connect_redis(server.url, TIMEOUT_S, max_connections)


def test_a_restart_is_not_noticed(server: RedisServer) -> None:
    with connected(server) as client:
        client.set("key", "value")
        server.restart()
        assert client.get("key") is None


def test_a_refusing_port_fails_at_once() -> None:
    with closed_port() as port:
        started_at = time.monotonic()
        with (
            connect_redis(f"redis://127.0.0.1:{port}/0", 60, 2) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()
        assert time.monotonic() - started_at < SOON_S


@pytest.mark.parametrize("warm", [True, False], ids=["connected", "connecting"])
def test_a_paused_server_costs_the_timeout_once(server: RedisServer, warm: bool) -> None:
    with connected(server) as client:
        if warm:
            client.ping()
        server.pause()
        started_at = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert time.monotonic() - started_at < SOON_S
        server.resume()
        client.ping()


def test_a_name_that_does_not_resolve_in_time_is_a_timeout(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, resolver_answers = socket.getaddrinfo, threading.Event()

    def resolve_late(*arguments: Any) -> object:
        assert resolver_answers.wait(30)
        return resolve(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_late)
    tls_url = server.url.replace("redis://", "rediss://")
    with connected(server) as client, connect_redis(tls_url, TIMEOUT_S, 2) as over_tls:
        for one in (client, over_tls):
            started_at = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                one.ping()
            assert time.monotonic() - started_at < SOON_S
        resolver_answers.set()
        client.ping()


def test_no_more_connections_than_allowed(server: RedisServer) -> None:
    with connected(server, max_connections=1) as client, client.pubsub() as holder:
        holder.subscribe("a channel")
        started_at = time.monotonic()
        with pytest.raises(redis.ConnectionError, match="Too many connections"):
            client.ping()
        assert time.monotonic() - started_at < SOON_S


def test_connecting_sends_nothing_but_the_command(server: RedisServer) -> None:
    with server.client() as watcher:
        watcher.config_resetstat()
        with connected(server) as client:
            client.echo("hello")
        seen = set(watcher.info("commandstats"))
    assert seen <= {"cmdstat_config", "cmdstat_config|resetstat", "cmdstat_echo", "cmdstat_info"}


def test_bytes_that_are_no_text_are_read_all_the_same(server: RedisServer) -> None:
    with connected(server) as client:
        client.set("key", b"\xff{}")
        assert client.get("key") == "\ufffd{}"


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="redis://"):
        connect_redis("http://redis:6379", TIMEOUT_S, 1)


# ------------------------------------------------------------ a connection for each thread


def test_threads_keep_connections_of_their_own(server: RedisServer) -> None:
    with connected(server, max_connections=3) as client, ThreadPoolExecutor(3) as executor:
        commands = OwnConnections(client)
        all_are_here = threading.Barrier(3)

        def ids() -> list[int]:
            all_are_here.wait(SOON_S)
            return [commands.execute_command("CLIENT", "ID") for _ in range(5)]

        used = [future.result() for future in [executor.submit(ids) for _ in range(3)]]
    assert all(len(set(mine)) == 1 for mine in used)
    assert len({mine[0] for mine in used}) == 3


def test_with_a_connection_of_its_own_a_thread_does_not_notice_a_restart(
    server: RedisServer,
) -> None:
    with connected(server) as client:
        commands = OwnConnections(client)
        commands.execute_command("SET", "key", "value")
        server.restart()
        assert commands.execute_command("GET", "key") is None


def test_a_late_answer_is_not_taken_for_the_next(server: RedisServer) -> None:
    with connected(server) as client:
        commands = OwnConnections(client)
        commands.execute_command("SET", "key", "value")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            commands.execute_command("GET", "key")
        server.resume()
        assert commands.execute_command("ECHO", "this") == "this"


def test_a_refused_command_leaves_the_connection_as_it_was(server: RedisServer) -> None:
    with connected(server) as client:
        commands = OwnConnections(client)
        before = commands.execute_command("CLIENT", "ID")
        with pytest.raises(redis.ResponseError):
            commands.execute_command("NO-SUCH-COMMAND")
        assert commands.execute_command("CLIENT", "ID") == before


def test_a_connection_to_a_server_that_became_a_replica_is_closed(server: RedisServer) -> None:
    with connected(server) as client, server.client() as operator:
        commands = OwnConnections(client)
        before = commands.execute_command("CLIENT", "ID")
        operator.replicaof("127.0.0.1", 1)
        with pytest.raises(redis.ReadOnlyError):
            commands.execute_command("SET", "key", "value")
        assert before not in {int(one["id"]) for one in operator.client_list()}
        operator.replicaof("NO", "ONE")
        commands.execute_command("SET", "key", "value")


def test_where_nobody_listens_a_command_of_a_thread_fails_at_once() -> None:
    with closed_port() as port, connect_redis(f"redis://127.0.0.1:{port}/0", 60, 2) as client:
        started_at = time.monotonic()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                OwnConnections(client).execute_command("PING")
        assert time.monotonic() - started_at < SOON_S
