"""A Redis client fit for a request's path: it answers soon, or fails soon."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.redis_credentials import with_password_file

# A call that has to connect waits for the connection, for authenticating and for its answer.
CALL_TIMEOUTS = 3

# Connections made at once; one that is stuck in name resolution holds a place.
_CONNECTING_AT_ONCE = 4


def connect_redis(
    url: str, timeout_s: float, max_connections: int, password_file: str = ""
) -> redis.Redis:
    """A client that connects when first used; what it reads from Redis is text.

    Args:
        url: `redis://host:port/db`, `rediss://…` or `unix://…`; its query may override the rest.
        timeout_s: of connecting, of authenticating and of each command. A call takes up to
            `CALL_TIMEOUTS` of them.
        max_connections: of this client; a call beyond them fails at once.
        password_file: read at each connection, for the URL's user; empty: the URL says it all.

    Raises:
        ValueError: the URL is none of these.
    """
    url, credentials = with_password_file(url, password_file)
    options: dict[str, Any] = {
        **credentials,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "max_connections": max_connections,
        "decode_responses": True,
        # Bytes that are not text must not raise in the client: the reader finds the value bad.
        "encoding_errors": "replace",
        # Once more, at once: after a restart every pooled connection is dead. A timeout is not
        # repeated, it has cost enough.
        "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        # Connecting is TCP, and AUTH where there is a password, and nothing else: no HELLO, which
        # RESP 3 needs and which switches on maintenance notifications, and no CLIENT SETINFO.
        "protocol": 2,
        "driver_info": None,
    }
    if url.startswith("redis://"):
        options["connection_class"] = _BoundedConnection
        options["connector"] = ThreadPoolExecutor(_CONNECTING_AT_ONCE, "redis-connect")
    return redis.Redis.from_url(url, **options)


class OwnConnections:
    """Commands to Redis over a connection that each thread keeps to itself.

    A pool hands connections out and takes them back, and looks before each use whether they
    still live: half of what a command costs. Here a dead one is noticed when it is used; like
    the client's own commands, the command is then sent once more, over a new one.

    Args:
        client: from `connect_redis`; its pool bounds the connections, and closes them.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._of_thread = threading.local()

    def execute_command(self, *arguments: str | int) -> Any:
        """The answer to one command. Raises `redis.RedisError`."""
        connection = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._pool.get_connection()
        try:
            return _ask(connection, arguments)
        except redis.ConnectionError:
            return _ask(connection, arguments)


def _ask(connection: Any, arguments: tuple[str | int, ...]) -> Any:
    """A connection that failed in between has closed itself, and connects when it is used next."""
    connection.send_command(*arguments)
    return connection.read_response()


class _BoundedConnection(redis.Connection):
    """A connection made within its connect timeout, the resolution of the name included.

    `getaddrinfo()` knows no timeout, and the name of a container that is gone can take the
    resolver many seconds. Only connecting pays for the other thread, commands do not.
    """

    def __init__(self, *, connector: Executor, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call] # redis-py's is not typed
        self._connector = connector

    def _connect(self) -> socket.socket:
        attempt: Future[socket.socket] = self._connector.submit(super()._connect)
        try:
            return attempt.result(self.socket_connect_timeout)
        except TimeoutError:
            attempt.cancel()
            attempt.add_done_callback(_close_late)
            raise


def _close_late(attempt: Future[socket.socket]) -> None:
    """Nobody waits any more for the socket of this attempt."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
