"""Clients' connections, and for how long they may wait for what."""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn

from frontend.http.reception import Reception

logger = logging.getLogger(__name__)

_PIECE_BYTES = 16 * 1024


class Connection(TConn):  # type: ignore[misc] # gunicorn is not typed
    """A client's connection, in the hands of the poller or of one thread.

    Its parser gets what was received and never reads the socket.
    """

    def __init__(self, config: Any, client: socket.socket, address: Any, server: Any) -> None:
        super().__init__(config, ClientSocket.of(client), address, server)
        self.parser = RequestParser(config, (), address)
        self.initialized = True
        self.reception = Reception()
        self.waiting: Waiting | None = None  # unless a thread has it
        self.then: Callable[[Connection], None] | None = None  # when what it waits for has come
        self.event = 0  # what the poller tells of it
        self.has_ended = False  # nothing more will come
        self.closes_after_answer = False
        self.arrived_at = 0.0
        self.discarded_bytes = 0
        self._room = select.poll()
        self._room.register(self.sock, select.POLLOUT)

    def receive(self) -> bytes:
        """What has come, if anything. Raises OSError when the connection broke."""
        try:
            data = bytes(self.sock.recv(_PIECE_BYTES, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return b""
        self.has_ended = not data
        return data

    def send_now(self, data: bytes) -> None:
        """Sends a few bytes, unless the client does not read."""
        try:
            self.sock.send(data, socket.MSG_DONTWAIT)
        except OSError as error:
            logger.debug("nobody to tell: %s", error)

    def takes_an_answer(self) -> bool:
        """Whether there is room for one: the client read enough of what it was sent before."""
        return bool(self._room.poll(0))


class ClientSocket(socket.socket):
    """A client's socket that is told to block only when it does not: gunicorn says so before
    each request, and each time it is a call to the kernel that lets other threads go first."""

    @classmethod
    def of(cls, client: socket.socket) -> ClientSocket:
        """Takes the socket over."""
        return cls(client.family, client.type, client.proto, client.detach())

    def setblocking(self, flag: bool) -> None:
        if flag != self.getblocking():
            super().setblocking(flag)


class OneSegment:
    """A client's socket for one answer: the head waits for the beginning of the body.

    gunicorn sends one after the other, and each costs a passage through the network's layers on
    both sides.
    """

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._head = b""
        self._has_head = False

    def sendall(self, data: bytes) -> None:
        if self._has_head:
            head, self._head = self._head, b""
            self._client.sendall(head + data)
        else:
            self._head, self._has_head = data, True

    def flush(self) -> None:
        """Sends what waits. An answer without a body is all head."""
        if self._head:
            head, self._head = self._head, b""
            self._client.sendall(head)

    def __getattr__(self, name: str) -> Any:
        """Whatever else is done with it comes after what was sent before."""
        self.flush()
        return getattr(self._client, name)


class Exchange(NamedTuple):
    """What gunicorn asks of a connection while it answers one request."""

    sock: OneSegment
    client: Any  # the client's address
    server: Any  # this server's


class Waiting:
    """Connections that wait for the same thing, each for at most `patience_s`."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        # In the order of their deadlines, since each waits equally long.
        self._deadlines: dict[Connection, float] = {}

    def add(self, connection: Connection) -> None:
        self._deadlines[connection] = time.monotonic() + self._patience_s

    def remove(self, connection: Connection) -> None:
        del self._deadlines[connection]

    def oldest(self) -> Connection | None:
        return next(iter(self._deadlines), None)

    def overdue(self) -> list[Connection]:
        now = time.monotonic()
        overdue: list[Connection] = []
        for connection, deadline in self._deadlines.items():
            if deadline > now:
                break
            overdue.append(connection)
        return overdue

    def shorten(self, patience_s: float) -> None:
        """From now on nobody waits longer than this."""
        self._patience_s = min(self._patience_s, patience_s)
        latest = time.monotonic() + self._patience_s
        for connection, deadline in self._deadlines.items():
            self._deadlines[connection] = min(deadline, latest)
