"""Connections on which an answer leaves whole, or not at all.

gunicorn sends the head of an answer and its body by two calls. A frontend that is killed or paused
between the two leaves half an answer, and the edge cannot repeat a request whose answer has begun.
So a connection keeps what is sent until the answer is complete.
"""

from __future__ import annotations

import logging
import socket
from contextlib import suppress
from typing import Any

logger = logging.getLogger(__name__)

# A longer answer leaves in pieces. None of ours comes near it.
_MOST_HELD_BYTES = 1024 * 1024


class Connection(socket.socket):
    """Sends what it holds on `flush`, and before it waits for the client or ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._held = bytearray()

    def sendall(self, data: Any, _flags: int = 0) -> None:
        # Without it, a killed frontend leaves half an answer ("whole answers": test_server.py).
        self._held += data
        if len(self._held) > _MOST_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Raises OSError if the client has gone."""
        held, self._held = self._held, bytearray()
        if held:
            super().sendall(held)

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.flush()
        return super().recv(size, flags)

    def shutdown(self, how: int) -> None:
        self.flush()
        super().shutdown(how)

    def close(self) -> None:
        with suppress(OSError):  # there is nobody left to tell
            self.flush()
        super().close()


class Listener(socket.socket):
    """Accepts connections of the kind above."""

    def accept(self) -> tuple[Connection, Any]:
        accepted, address = super().accept()
        return Connection(fileno=accepted.detach()), address


def send_whole_answers(server: Any) -> None:
    """For gunicorn's hook `when_ready`, before the workers are forked."""
    for listener in server.LISTENERS:
        listener.sock = Listener(fileno=listener.sock.detach())


def flush_answer(_worker: Any, _request: Any, environ: dict[str, Any], _answer: Any) -> None:
    """For gunicorn's hook `post_request`, when the application has given the whole answer."""
    connection = environ.get("gunicorn.socket")  # none, where the request was malformed
    if connection is None:
        return
    try:
        connection.flush()
    except OSError as error:
        logger.debug("nobody takes the answer: %s", error)
