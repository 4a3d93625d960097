"""How a service connects to Redis: fit for a request's path, it answers soon or fails soon."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

# Connections made at once; one that is stuck in name resolution holds a place.
_CONNECTING_AT_ONCE = 4


def connect_redis(
    url: str, timeout_s: float, max_connections: int, password_file: str = ""
) -> redis.Redis:
    """A client that connects when first used; what it reads from Redis is text.

    Args:
        url: `redis://host:port/db`, `rediss://…` or `unix://…`, without a query, which would
            override what is set here.
        timeout_s: of connecting, of authenticating and of each command, each for itself.
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
    if not url.startswith("unix://"):
        is_tls = url.startswith("rediss://")
        options["connection_class"] = _BoundedTlsConnection if is_tls else _BoundedConnection
        options["connector"] = ThreadPoolExecutor(_CONNECTING_AT_ONCE, "redis-connect")
    return redis.Redis.from_url(url, **options)


class PasswordFile(CredentialProvider):
    """The password that a file holds when a connection is made.

    It may come later than this process, and change.
    """

    def __init__(self, user: str, path: str) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str, str]:
        """Raises `redis.ConnectionError`: without its password Redis cannot be had."""
        try:
            with open(self._path, encoding="ascii") as file:
                password = file.read().strip()
        except (OSError, ValueError) as error:
            raise redis.ConnectionError(f"no password for Redis: {error}") from error
        if not password:
            raise redis.ConnectionError(f"no password for Redis: {self._path} is empty")
        return self._user, password


def with_password_file(url: str, path: str) -> tuple[str, Mapping[str, Any]]:
    """A Redis URL and the options for its client: with the URL's user and the file's password.

    Without a path the URL stays as it is.
    """
    if not path:
        return url, {}
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    user = unquote(parts.username or "default")
    return bare, {"credential_provider": PasswordFile(user, path)}


class _BoundedConnection(redis.Connection):
    """Connects within the connect timeout, the resolution of the name included.

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


class _BoundedTlsConnection(_BoundedConnection, redis.SSLConnection):
    """The same, with the TLS handshake included."""


def _close_late(attempt: Future[socket.socket]) -> None:
    """Nobody waits any more for the socket of this attempt."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
