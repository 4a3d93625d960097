"""How a service connects to Redis. Each command answers soon or fails soon."""

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

# How many connections are made at once. One that hangs in name resolution holds a place.
_CONNECTING_AT_ONCE = 4


def connect_redis(
    url: str, timeout_s: float, max_connections: int, password_file: str = ""
) -> redis.Redis:
    """A client that connects when it is first used. It reads answers as text.

    Args:
        url: `redis://host:port/db`, `rediss://…` or `unix://…`. It has no query, which could
            override the options here.
        timeout_s: the time limit of connecting, of authenticating and of each command.
        max_connections: of this client. A command that needs another one fails at once.
        password_file: has the password of the URL's user, and is read at each connection. Empty:
            the URL has the password, or there is none.

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
        # Bytes that are not text must not raise in the client. The reader refuses the value.
        "encoding_errors": "replace",
        # One repeat, at once: after a restart every pooled connection is dead. There is no repeat
        # after a timeout, because the time is over.
        "retry": Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        # A new connection sends only AUTH, and that only with a password. It sends no HELLO, which
        # RESP 3 needs and which turns maintenance notifications on, and no CLIENT SETINFO.
        "protocol": 2,
        "driver_info": None,
    }
    if not url.startswith("unix://"):
        is_tls = url.startswith("rediss://")
        options["connection_class"] = _BoundedTlsConnection if is_tls else _BoundedConnection
        options["connector"] = ThreadPoolExecutor(_CONNECTING_AT_ONCE, "redis-connect")
    return redis.Redis.from_url(url, **options)


class PasswordFile(CredentialProvider):
    """Reads the password from a file at each connection.

    The file may be made after this process starts, and may change.
    """

    def __init__(self, user: str, path: str) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str, str]:
        """Raises `redis.ConnectionError` if the file has no password."""
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

    `getaddrinfo()` has no timeout, and the name of a container that is gone can take many seconds
    to resolve. So another thread connects. Commands do not need that thread.
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
