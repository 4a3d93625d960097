"""One keep-alive HTTP connection: opened when needed, and each request sent on it once."""

from __future__ import annotations

import http.client
import selectors
import socket
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from client.api.messages import Answer, Request

if sys.platform != "win32":
    import resource


class BadUrl(ValueError):
    """The base URL cannot be one; the message says why."""


class NoAnswer(Exception):
    """No whole answer came back.

    `may_have_arrived` is False only when the request certainly never left this machine.
    """

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """Where the service is: `http://host:port/prefix` taken apart."""

    scheme: str
    host: str
    port: int
    prefix: str  # "" or "/…" without a slash at its end

    @classmethod
    def parse(cls, text: str) -> BaseUrl:
        """Raises BadUrl."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BadUrl(f"{text!r} is not a URL: {error}") from error
        if parts.scheme not in ("http", "https"):
            raise BadUrl(f"{text!r} must start with http:// or https://")
        if not parts.hostname:
            raise BadUrl(f"{text!r} names no host")
        if parts.username is not None or parts.query or parts.fragment:
            raise BadUrl(f"{text!r} may hold a host, a port and a path, nothing else")
        if not text.isascii() or not text.isprintable() or " " in text:
            raise BadUrl(f"{text!r} holds a character that a URL may not")
        default_port = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, port or default_port, parts.path.rstrip("/"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"


class Connection:
    """Not for more than one thread at a time.

    `timeout_s` bounds each wait for the other side, the one for a new connection too.
    """

    def __init__(self, base: BaseUrl, timeout_s: float) -> None:
        kind = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
        self._http = kind(base.host, base.port, timeout=timeout_s)
        self._base = base
        self.times_opened = 0

    def open(self) -> None:
        """Connects unless it is connected. Raises NoAnswer."""
        if self._http.sock is not None and _was_closed_by_peer(self._http.sock):
            self._http.close()
        if self._http.sock is not None:
            return
        try:
            self._http.connect()
        except OSError as error:
            self._http.close()
            message = f"cannot connect to {self._base}: {_reason(error)}"
            raise NoAnswer(message, may_have_arrived=False) from error
        self.times_opened += 1

    def exchange(self, request: Request) -> Answer:
        """Sends the request once and reads its whole answer. Raises NoAnswer."""
        self.open()
        answered = False
        try:
            path = self._base.prefix + request.path
            self._http.request(request.method, path, request.body, dict(request.headers))
            reply = self._http.getresponse()
            answer = Answer.read(reply.status, reply.headers, reply.read())
            answered = True
        except (OSError, http.client.HTTPException) as error:
            message = f"{request.method} {path}: {_reason(error)}"
            raise NoAnswer(message, may_have_arrived=True) from error
        finally:
            if not answered:  # a late answer must not be taken for that of a later request
                self._http.close()
        return answer

    def close(self) -> None:
        self._http.close()


def _was_closed_by_peer(idle: socket.socket) -> bool:
    """Whether the server has closed an idle connection: nothing else can be read from one.

    A trade without a key must not be repeated. So this check comes first, and the trade is not
    sent on a connection that the server has already closed.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(idle, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def allow_connections(count: int) -> None:
    """Raises this process's limit of open files, often 1,024, so far as it may be raised."""
    if sys.platform == "win32":
        return
    # Two each: the socket, and the selector that looks at it for a moment.
    wanted = 2 * count + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
