"""gunicorn's threaded worker, with a poller that keeps slow clients away from its threads.

A thread gets a request that has arrived, of a client that reads its answers. Everything that
has to be waited for, the poller waits for: of all clients at once, and of each for a bounded time.
"""

from __future__ import annotations

import errno
import logging
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.http.errors import InvalidHeader, ParseException
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from frontend.http import arrival
from frontend.http.connections import Connection, Exchange, OneSegment, Waiting
from frontend.http.reception import Arrival
from frontend.http.refusals import refusal, refusal_for
from frontend.http.request_threads import CallQueue, RequestThreads

logger = logging.getLogger(__name__)

# How long a request may take to arrive, from its first byte on.
_ARRIVAL_TIMEOUT_S = 10

# How long a client may leave its answers unread and yet expect another one.
_UNREAD_TIMEOUT_S = 5

# How long a client has to close a connection that was closed here, and what it may still send:
# to end it at once could cost the client the answer (RFC 9112, section 9.6).
_CLOSING_TIMEOUT_S = 2
_CLOSING_BYTES = 1024 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn is not typed
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.method_queue = CallQueue()
        self._idle = Waiting(self.cfg.keepalive)
        self._arriving = Waiting(_ARRIVAL_TIMEOUT_S)
        self._unread = Waiting(_UNREAD_TIMEOUT_S)
        self._closing = Waiting(_CLOSING_TIMEOUT_S)

    def get_thread_pool(self) -> RequestThreads:
        return RequestThreads(self.cfg.threads, self.handle, self._served)

    def init_signals(self) -> None:
        """A worker begins with the master's handlers. What it is sent before it has its own lies
        in its copy of the master's queue, where gunicorn loses it: the master would wait for
        this worker to the end of its patience, and kill it."""
        super().init_signals()
        while not self.inherited_signals.empty():
            if self.inherited_signals.get_nowait() in _STOP_SIGNALS:
                self.alive = False

    # ---------------------------------------------------------------- in a thread

    def handle(self, connection: Connection) -> Any:
        arrival.waited_s.set(time.monotonic() - connection.arrived_at)
        return super().handle(connection)

    def handle_request(self, request: Any, connection: Connection) -> Any:
        # Whoever waited to be told got it from the poller, or gets the answer instead.
        request._expected_100_continue = False
        if connection.closes_after_answer:
            request.force_close()
        answer = OneSegment(connection.sock)
        try:
            exchange = Exchange(answer, connection.client, connection.server)
            return super().handle_request(request, exchange)
        finally:
            answer.flush()

    def _keepalive_after(self, connection: Connection, keepalive: bool) -> bool:
        """Reads what the application left of the body. Should that turn out malformed, the
        request has its answer already: a second one would be taken for the next request's."""
        try:
            return bool(super()._keepalive_after(connection, keepalive))
        except ParseException as error:
            logger.debug("closing behind a malformed body: %.200s", error)
            return False

    def handle_error(
        self, _request: Any, client: socket.socket, _address: Any, error: Exception
    ) -> None:
        try:
            client.send(refusal_for(error), socket.MSG_DONTWAIT)
        except OSError as broken:
            logger.debug("nobody to tell: %s", broken)

    def _served(self, connection: Connection, keeps_alive: bool) -> None:
        self.method_queue.defer(self.finish_request, connection, keeps_alive)

    # ---------------------------------------------------------------- in the poller

    def accept(self, listener: socket.socket) -> None:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._lower_limit()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        self.nr_conns += 1
        self._make_room()
        connection = Connection(self.cfg, client, address, listener.getsockname())
        self._step(connection, self._receive)

    def enqueue_req(self, connection: Connection) -> None:
        self.tpool.submit(connection)

    def finish_request(self, connection: Connection, keeps_alive: bool) -> None:
        """Called when a thread is done with a connection."""
        self._step(connection, partial(self._go_on, keeps_alive=keeps_alive))

    def murder_pending(self) -> None:
        """Ends what has waited too long; gunicorn calls this at least once a second."""
        for connection in self._arriving.overdue():
            message = "the request took too long to arrive"
            refuse = partial(self._refuse, status=HTTPStatus.REQUEST_TIMEOUT, message=message)
            self._step(connection, refuse)
        for waiting in (self._idle, self._unread, self._closing):
            for connection in waiting.overdue():
                self._drop(connection)

    def _cap_keepalive(self, _deadline: float) -> None:
        """Called once, when the worker stops."""
        for waiting in (self._idle, self._arriving):
            waiting.shorten(STOP_KEEPALIVE_LINGER)

    def _step(self, connection: Connection, step: Callable[[Connection], None]) -> None:
        """Takes one connection a step further; its trouble is nobody else's."""
        try:
            step(connection)
        except OSError as error:
            logger.debug("a connection broke: %s", error)
            self._drop(connection)
        except Exception:
            logger.exception("dropping a connection that met a defect")
            self._drop(connection)

    def _receive(self, connection: Connection) -> None:
        self._proceed(connection, connection.receive())

    def _go_on(self, connection: Connection, keeps_alive: bool) -> None:
        if not keeps_alive or connection.closes_after_answer:
            self._close(connection)
        else:
            self._proceed(connection, connection.parser.unreader.take_buffered())
            self._make_room()

    def _proceed(self, connection: Connection, data: bytes) -> None:
        """Decides what becomes of a connection on which these bytes came."""
        arrived = connection.reception.add(data)
        if arrived is Arrival.ENDLESS and not connection.reception.has_head:
            self._refuse_head(connection)
        elif arrived in (Arrival.WHOLE, Arrival.ENDLESS):
            connection.closes_after_answer = arrived is Arrival.ENDLESS
            self._hand_over(connection)
        elif connection.has_ended and arrived is Arrival.PART:
            self._hand_over(connection)  # for the parser to say what is wrong
        elif connection.has_ended:
            self._drop(connection)
        elif arrived is Arrival.PART:
            self._await_rest(connection)
        else:
            self._wait(connection, self._idle, self._receive)

    def _await_rest(self, connection: Connection) -> None:
        self._wait(connection, self._arriving, self._receive)
        if connection.reception.expects_continue:
            connection.reception.expects_continue = False
            connection.send_now(_CONTINUE)

    def _hand_over(self, connection: Connection) -> None:
        """Has a thread serve the request, once the client reads its answers."""
        if not connection.takes_an_answer():
            self._wait(connection, self._unread, self._hand_over, selectors.EVENT_WRITE)
            return
        self._stop_waiting(connection)
        connection.parser.unreader.unread(connection.reception.take())
        connection.arrived_at = time.monotonic()
        self.enqueue_req(connection)

    def _refuse_head(self, connection: Connection) -> None:
        status = (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            if connection.reception.has_request_line
            else HTTPStatus.REQUEST_URI_TOO_LONG
        )
        self._refuse(connection, status, "the head of the request is too long")

    def _refuse(self, connection: Connection, status: HTTPStatus, message: str) -> None:
        logger.info("refused a request: %s", message)
        connection.send_now(refusal(status, message))
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        """Closes it for sending now, and for good once the client has closed it too."""
        connection.sock.shutdown(socket.SHUT_WR)
        self._wait(connection, self._closing, self._discard)

    def _discard(self, connection: Connection) -> None:
        connection.discarded_bytes += len(connection.receive())
        if connection.has_ended or connection.discarded_bytes > _CLOSING_BYTES:
            self._drop(connection)

    def _make_room(self) -> None:
        """Idle connections do not lock out new ones: at the limit the longest idle one goes."""
        oldest = self._idle.oldest()
        if self.nr_conns >= self.worker_connections and oldest is not None:
            self._drop(oldest)

    def _lower_limit(self) -> None:
        """The process may have fewer files than the connections would need."""
        self.worker_connections = max(1, self.nr_conns)
        logger.warning(
            "no file for another connection: the limit is now %d", self.worker_connections
        )
        self._make_room()

    def _drop(self, connection: Connection) -> None:
        self._stop_waiting(connection)
        self._watch(connection, 0)
        self.nr_conns -= 1
        connection.close()

    def _wait(
        self,
        connection: Connection,
        waiting: Waiting,
        then: Callable[[Connection], None],
        event: int = selectors.EVENT_READ,
    ) -> None:
        """Has `then` called when the event comes; `murder_pending` is for when it does not."""
        if connection.waiting is waiting:
            return  # and its time runs on
        self._stop_waiting(connection)
        self._watch(connection, event)
        connection.then = then
        connection.waiting = waiting
        waiting.add(connection)

    def _stop_waiting(self, connection: Connection) -> None:
        if connection.waiting is not None:
            connection.waiting.remove(connection)
            connection.waiting = None

    def _watch(self, connection: Connection, event: int) -> None:
        """Has the poller tell of this event and no other; of none with 0.

        A connection stays watched while a thread has it: most clients send nothing then, and to
        have the kernel forget each and learn it anew is dear.
        """
        if connection.event == event:
            return
        if connection.event == 0:
            self.poller.register(connection.sock, event, partial(self._resume, connection))
        elif event == 0:
            self.poller.unregister(connection.sock)
        else:
            self.poller.modify(connection.sock, event, partial(self._resume, connection))
        connection.event = event

    def _resume(self, connection: Connection, _socket: object) -> None:
        if connection.waiting is not None and connection.then is not None:
            self._step(connection, connection.then)
        else:
            self._watch(connection, 0)  # it would tell again and again


def keep_signals(server: Any, worker: Any) -> None:
    """In a new worker, before it has handlers of its own."""
    worker.inherited_signals = server.SIG_QUEUE


def bound_answers(server: Any) -> None:
    """Bounds how long a thread waits for a client to take one answer. Connections inherit it
    from the socket they come in on."""
    timeout = struct.pack("@ll", _UNREAD_TIMEOUT_S, 0)
    for listener in server.LISTENERS:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)


def refuse_repeated_key(_worker: Any, request: Any) -> None:
    """Two keys would arrive joined to a third, which a repeat through a proxy may not have."""
    if sum(name == "IDEMPOTENCY-KEY" for name, _ in request.headers) > 1:
        raise InvalidHeader("IDEMPOTENCY-KEY", req=request)
