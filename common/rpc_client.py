"""gRPC calls to a peer. It is found again after a restart, and every call has a deadline."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common import logs
from common.errors import (
    BourseError,
    Busy,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WrongPeer,
    from_rpc_error,
)
from common.on_change import OnChange

logger = logging.getLogger(__name__)

# Goes with every call: the id of the request being served.
REQUEST_ID_KEY = "x-request-id"

# A restarted peer must be found again within half a second, at its new address if it has one;
# gRPC's own defaults are patient (reconnect after up to two minutes, resolve every 30 s).
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),  # also the limit of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    # A peer can vanish silently (host lost, cable cut). Without pings its connection would stay.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Our own code repeats calls, with request ids. gRPC must not.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # A channel made anew resolves and connects anew.
    ("grpc.use_local_subchannel_pool", 1),
]

# When calls have failed for so long, the channel is replaced. At least as much time passes between
# two replacements. One attempt to connect takes no longer than this.
_AWAY_S = 0.5
# The same where no call is answered in time: a slow name server may need as much.
_SILENT_S = 2.0

# For so long, a server that had no place for a kept stream is not asked for one again.
_CALLS_AFTER_REFUSAL_S = 30.0


def open_channel(address: str) -> grpc.Channel:
    """A long-lived channel to one peer. It connects when first used."""
    return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)


class Dialogue(Protocol):
    """What a `Conversation` does, with one peer or with several."""

    def ask(self, message: Any, timeout_s: float) -> Any: ...

    def close(self) -> None: ...


class Remote(Protocol):
    """What a `Peer` does, and what several do that are used as one."""

    def call(self, method: str, request: Any, timeout_s: float) -> Any: ...

    def stream(self, method: str, request: Any, timeout_s: float) -> Iterator[Any]: ...

    def is_serving(self, service: str, timeout_s: float) -> bool: ...

    def conversation(self, stream: str, method: str) -> Dialogue: ...

    def close(self) -> None: ...


class Connection:
    """A channel of a peer, and since when its calls fail.

    Calls in flight keep a reference to it. gRPC closes a channel when the last reference is gone.
    """

    def __init__(self, address: str, make_stub: Callable[[grpc.Channel], Any]) -> None:
        self.channel = open_channel(address)
        self.stub = make_stub(self.channel)
        self.failing_since: float | None = None


class Peer:
    """Another service, found by its name.

    After a failed name resolution gRPC pauses. The pause grows to two minutes, and no option of a
    channel bounds it. Containers can also come back with each other's addresses, and a connection
    to the wrong service or replica would stay up for ever. Only a new channel resolves and
    connects at once. So a channel whose calls have failed for a while is replaced. One over which
    somebody else answers is replaced at once.

    Args:
        name: of the peer, for the log and for errors.
        address: host:port.
        make_stub: the generated stub's class.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        address: str,
        make_stub: Callable[[grpc.Channel], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._address = address
        self._make_stub = make_stub
        self._clock = clock
        self._changing = threading.Lock()
        self._is_closed = False
        self._connection = Connection(address, make_stub)
        self._replaced_at: float | None = None
        self._wrong = OnChange(logger)

    def __repr__(self) -> str:
        return self._name

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """Calls a unary method with a deadline.

        Raises:
            BourseError: the error of the family that the answer stands for; `Unavailable` when
                the peer cannot be reached or somebody else answers at its address,
                `OutcomeUnknown` when the deadline passed.
        """
        connection = self._connection
        answer = self._call(connection, getattr(connection.stub, method), request, timeout_s)
        return self._believed(connection, answer)

    def stream(self, method: str, request: Any, timeout_s: float) -> Iterator[Any]:
        """Reads a server stream; the deadline is for the whole of it.

        Raises:
            BourseError: as `call`.
        """
        connection = self._connection
        try:
            yield from getattr(connection.stub, method)(
                request, timeout=timeout_s, metadata=call_metadata()
            )
        except grpc.RpcError as error:
            raise self._failed(connection, from_rpc_error(error)) from None
        except ValueError as error:
            raise closed(error) from error
        self._answered(connection)

    def is_serving(self, service: str, timeout_s: float) -> bool:
        """Whether a server of this service, and of no other, says in time that it serves."""
        connection = self._connection
        check = health_pb2_grpc.HealthStub(connection.channel).Check
        try:
            answer = self._call(
                connection, check, health_pb2.HealthCheckRequest(service=service), timeout_s
            )
        except NotFound:
            self._failed(connection, WrongPeer(f"no {service} there"))
            return False
        except BourseError:
            return False
        self._answered(connection)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def conversation(self, stream: str, method: str) -> Conversation:
        """A kept stream, and the unary method that answers the same messages."""
        return Conversation(self, stream, method)

    def close(self) -> None:
        """Ends the calls in flight; those to come are `Unavailable`."""
        with self._changing:
            self._is_closed = True
            self._connection.channel.close()

    def check(self, answer: Any) -> None:
        """Raises WrongPeer if an answer is not this peer's. To be overridden."""

    def _call(self, connection: Connection, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            answer = method(request, timeout=timeout_s, metadata=call_metadata())
        except grpc.RpcError as error:
            raise self._failed(connection, from_rpc_error(error)) from None
        except BourseError as error:  # of a kept stream
            raise self._failed(connection, error) from None
        except ValueError as error:
            raise closed(error) from error
        return answer

    def _believed(self, connection: Connection, answer: Any) -> Any:
        try:
            self.check(answer)
        except WrongPeer as error:
            self._failed(connection, error)
            raise
        self._answered(connection)
        return answer

    def _answered(self, connection: Connection) -> None:
        connection.failing_since = None
        if self._wrong.is_present:
            self._wrong.over("%s answers again", self)

    def _failed(self, connection: Connection, error: BourseError) -> BourseError:
        """Learns from how a call on that connection ended; returns the same error."""
        if isinstance(error, WrongPeer):
            self._wrong.trouble("%s: %s, connecting anew", self, error, cause=error.message)
            patience_s = 0.0
        elif isinstance(error, Unavailable):
            patience_s = _AWAY_S
        elif isinstance(error, OutcomeUnknown):
            patience_s = _SILENT_S
        else:  # some server answered; an error does not say which
            connection.failing_since = None
            return error
        now = self._clock()
        if connection.failing_since is None:
            connection.failing_since = now
        if now - connection.failing_since >= patience_s:
            self._replace(connection, now)
        return error

    def _replace(self, connection: Connection, now: float) -> None:
        """Has later calls go over a new channel. Those in flight end over the old one."""
        with self._changing:
            if self._is_closed or connection is not self._connection:
                return  # or another call has seen to it already
            if self._replaced_at is not None and now - self._replaced_at < _AWAY_S:
                return
            self._replaced_at = now
            self._connection = Connection(self._address, self._make_stub)
        logger.debug("%s: a new channel to %s", self, self._address)


class Conversation:
    """Messages to a peer over a stream that is kept: one out, one answer back, then the next.

    A call for each message would cost the server almost twice as much. For one thread at a time.

    Whatever goes wrong ends the stream, so a late answer is never taken for that to another
    message. The next message goes over a new stream, on the channel that the peer has then.

    Args:
        stream: the method of the stream.
        method: the unary method that answers the same messages. It is called for a while when the
            server has no place for another stream.
    """

    def __init__(self, peer: Peer, stream: str, method: str) -> None:
        self._peer = peer
        self._stream_name = stream
        self._method = method
        self._kept: _KeptStream | None = None
        self._calls_until = -math.inf

    def ask(self, message: Any, timeout_s: float) -> Any:
        """The answer to one message; raises as `Peer.call` does."""
        peer, began_at = self._peer, self._peer._clock()
        if began_at < self._calls_until:
            return peer.call(self._method, message, timeout_s)
        connection = peer._connection
        if self._kept is not None and not self._kept.can_go_on(connection):
            self.close()
        is_new = self._kept is None
        try:
            answer = peer._call(connection, partial(self._exchange, connection), message, timeout_s)
            return peer._believed(connection, answer)
        except BaseException as error:
            self.close()
            if not (is_new and isinstance(error, Busy)):
                raise
        # The message was not executed. Most likely there is no place for the stream.
        self._calls_until = began_at + _CALLS_AFTER_REFUSAL_S
        return peer.call(self._method, message, timeout_s - (peer._clock() - began_at))

    def close(self) -> None:
        """Ends the stream, if there is one, and its threads."""
        if self._kept is not None:
            self._kept.cancel()
            self._kept = None

    def _exchange(
        self, connection: Connection, message: Any, *, timeout: float, metadata: Any
    ) -> Any:
        """As a stub's unary method, so that failures are handled as those of calls are."""
        if self._kept is None:
            self._kept = _KeptStream(connection, self._stream_name, metadata)
        return self._kept.exchange(message, timeout)


class _KeptStream:
    """One stream of a conversation, and the thread that reads it: a read has no time limit."""

    def __init__(self, connection: Connection, name: str, metadata: Any) -> None:
        self._connection = connection
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # At most one, save that the end of the stream can follow it.
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        method = getattr(connection.stub, name)
        self._call = method(iter(self._messages.get, None), metadata=metadata)
        threading.Thread(target=self._read, name=f"read-{name}", daemon=True).start()

    def can_go_on(self, connection: Connection) -> bool:
        """Whether it is of that connection, and has neither ended nor said what nobody asked."""
        return connection is self._connection and self._answers.empty()

    def exchange(self, message: Any, timeout_s: float) -> Any:
        self._messages.put(message)
        try:
            answer = self._answers.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            raise OutcomeUnknown from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self) -> None:
        self._call.cancel()

    def _read(self) -> None:
        end: Exception = Unavailable("the stream has ended")
        try:
            for answer in self._call:
                self._answers.put(answer)
                if self._answers.qsize() > 1:  # it answers what nobody asked
                    self._call.cancel()
        except grpc.RpcError as error:
            end = error
        self._answers.put(end)
        self._messages.put(None)  # ends the thread of gRPC that waits for messages to send


def closed(error: ValueError) -> Unavailable:
    """grpc's way to say that the channel was closed on this side."""
    return Unavailable(f"this side is stopping: {error}")


def call_metadata() -> tuple[tuple[str, str | bytes], ...]:
    """What goes with every call: the id of the request being served."""
    identifier = logs.request_id.get()
    return () if identifier == "-" else ((REQUEST_ID_KEY, identifier),)
