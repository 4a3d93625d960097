"""gunicorn's threaded worker, with the answers and bounds of this service."""

from __future__ import annotations

import logging
import signal
import socket
import struct
import time
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from gunicorn import util
from gunicorn.http.errors import (
    ConfigurationProblem,
    ExpectationFailed,
    InvalidHeader,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.workers.gthread import _DEFER, ThreadWorker

from common.errors import Internal
from frontend import arrival
from frontend.answers import error_body

logger = logging.getLogger(__name__)

# How long a client may stop in the middle of a request, or of reading an answer. gunicorn
# has no such bound, and every client that stalls keeps a thread.
_STALL_TIMEOUT_S = 5

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_OUR_OWN_FAULTS = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)
_CLIENT_FAULTS = {
    LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn is not typed
    def init_signals(self) -> None:
        """A worker begins with the master's handlers. What it is sent before it has its own lies
        in its copy of the master's queue, where gunicorn loses it: the master would wait for
        this worker to the end of its patience, and kill it."""
        super().init_signals()
        while not self.inherited_signals.empty():
            if self.inherited_signals.get_nowait() in _STOP_SIGNALS:
                self.alive = False

    def enqueue_req(self, conn: Any) -> None:
        conn.enqueued_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Serves a connection that has sent something; any other goes back to the poller at
        once. gunicorn's own patience with a silent one keeps a thread for seconds."""
        if not conn.initialized and not conn.wait_for_data(0):
            return _DEFER
        arrival.waited_s.set(time.monotonic() - conn.enqueued_at)
        return super().handle(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Of a worker that stops. gunicorn forgets those that have not sent anything yet, and
        would wait for them to the end of its patience."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_error(
        self, _request: Any, client: socket.socket, _address: Any, error: Exception
    ) -> None:
        """Answers a request that never reached the application, in the application's form."""
        if not isinstance(error, ParseException) or isinstance(error, _OUR_OWN_FAULTS):
            logger.error("unexpected error", exc_info=error)
            answer = _answer(Internal.http_status, Internal.default_message)
        else:
            logger.warning("refused a malformed request: %s", error)
            answer = _answer(_CLIENT_FAULTS.get(type(error), HTTPStatus.BAD_REQUEST), str(error))
        try:
            util.write_nonblock(client, answer)
        except OSError as broken:
            logger.debug("nobody to tell: %s", broken)


def _answer(status: HTTPStatus, message: str) -> bytes:
    body = error_body(status, message).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"X-Request-Id: {uuid4()}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body


def keep_signals(server: Any, worker: Any) -> None:
    """In a new worker, before it has handlers of its own."""
    worker.inherited_signals = server.SIG_QUEUE


def bound_stalls(server: Any) -> None:
    """Bounds each wait for a client; connections inherit it from the socket they come in on."""
    timeout = struct.pack("@ll", _STALL_TIMEOUT_S, 0)
    for listener in server.LISTENERS:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)


def refuse_repeated_key(_worker: Any, request: Any) -> None:
    """Two keys would arrive joined to a third, which a repeat through a proxy may not have."""
    if sum(name == "IDEMPOTENCY-KEY" for name, _ in request.headers) > 1:
        raise InvalidHeader("IDEMPOTENCY-KEY", req=request)
