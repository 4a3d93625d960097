"""A gRPC server that answers by the error table, with health, reflection and bounds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from functools import wraps
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common import logs
from common.errors import BourseError, Busy, Internal, Unavailable
from common.rpc_client import REQUEST_ID_KEY

logger = logging.getLogger(__name__)

# The health and reflection services have their own errors.
_OUR_METHODS = "/bourse."

# How long streams may go on when a server stops. A chunk of a pull takes less.
_STREAM_GRACE_S = 1.0

_REFLECTION_STREAMS = 2

_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a second server on the port is a mistake: refuse to start
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]


class Slots:
    """Keeps long calls from taking every thread of a server.

    Args:
        limit: how many there are.
        refusal: the message of the error when none is free.
    """

    def __init__(self, limit: int, refusal: str) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._refusal = refusal

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Holds one. Raises Busy at once when none is free."""
        if not self._free.acquire(blocking=False):
            raise Busy(self._refusal)
        try:
            yield
        finally:
            self._free.release()


class _Wrapped(grpc.ServerInterceptor):
    """Wraps each handler once, not for each call as a chain of interceptors does."""

    def __init__(self, wraps: Sequence[Callable[[str, Any], Any]]) -> None:
        self._wraps = wraps
        self._wrapped: dict[str, Any] = {}  # by method; a handler is the same for every call

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        wrapped = self._wrapped.get(details.method)
        if wrapped is not None:
            return wrapped
        handler = continuation(details)
        if handler is None:
            return None  # nothing is stored: a caller can invent any number of methods
        for wrap in self._wraps:
            handler = wrap(details.method, handler)
        self._wrapped[details.method] = handler
        return handler


def _bounding_reflection() -> Callable[[str, Any], Any]:
    """Bounds the reflection streams: each keeps a thread until its caller ends it."""
    slots = Slots(_REFLECTION_STREAMS, "too many reflection streams at once")

    def wrap(method: str, handler: Any) -> Any:
        if not method.startswith("/grpc.reflection."):
            return handler

        def bounded(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                with slots.taken():
                    yield from handler.stream_stream(requests, context)
            except Busy as refusal:
                _abort(context, refusal)

        return handler._replace(stream_stream=bounded)

    return wrap


class _OpenStreams:
    """Knows the streams, so that it can end them when the server stops."""

    def __init__(self) -> None:
        self._open: set[grpc.ServicerContext] = set()  # only answers come over them
        self._idle: set[grpc.ServicerContext] = set()  # they wait for their caller's next message
        self._is_stopping = False
        self._changing = threading.Lock()

    def wrap(self, _method: str, handler: Any) -> Any:
        if not handler.response_streaming:
            return handler
        if handler.request_streaming:
            return handler._replace(stream_stream=self._reading(handler.stream_stream))
        return handler._replace(unary_stream=self._noting(handler.unary_stream))

    def end_idle(self) -> None:
        """Ends the streams of messages, each as soon as it has answered the current one."""
        with self._changing:
            self._is_stopping = True
            for context in self._idle:
                context.cancel()

    def cancel(self) -> None:
        with self._changing:
            still_open = list(self._open)
        for context in still_open:
            context.cancel()

    def _noting(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)  # grpc reads attributes of the handler of `Watch`
        def noting(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            with self._changing:
                self._open.add(context)
            if not context.add_callback(lambda: self._forget(context)):
                self._forget(context)
            return handler(request, context, *more)

        return noting

    def _reading(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def reading(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return handler(self._each(messages, context), context)

        return reading

    def _each(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        while True:
            with self._changing:
                if self._is_stopping:
                    return
                self._idle.add(context)
            try:
                message = next(messages, None)
            except grpc.RpcError:  # gRPC's way to say that the stream was cancelled
                message = None
            with self._changing:
                self._idle.discard(context)
                if message is None or self._is_stopping:
                    return
            yield message

    def _forget(self, context: grpc.ServicerContext) -> None:
        with self._changing:
            self._open.discard(context)


def _guarded(method: str, handler: Any) -> Any:
    """Runs a handler with the caller's request id, and turns its exceptions into a status."""
    if not method.startswith(_OUR_METHODS):
        return handler
    if handler.request_streaming:
        return handler._replace(stream_stream=_guard_stream(handler.stream_stream))
    if handler.response_streaming:
        return handler._replace(unary_stream=_guard_stream(handler.unary_stream))
    return handler._replace(unary_unary=_guard(handler.unary_unary))


def _guard(handler: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        with _answering(context):
            return handler(request, context)

    return guarded


def _guard_stream(handler: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        with _answering(context):
            yield from handler(request, context)

    return guarded


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    logs.request_id.set(_identifier(context))
    try:
        yield
    except BourseError as error:
        _abort(context, error)
    except Exception:
        logger.exception("unexpected error")
        _abort(context, Internal())
    finally:
        logs.request_id.set("-")


def _identifier(context: grpc.ServicerContext) -> str:
    """The request id that came with a call."""
    return next(
        (str(value) for key, value in context.invocation_metadata() if key == REQUEST_ID_KEY), "-"
    )


def _abort(context: grpc.ServicerContext, error: BourseError) -> None:
    context.abort(error.grpc_status, error.message)


class RpcServer:
    """A gRPC server with health, reflection, the error table and bounds.

    Args:
        address: host:port; port 0 takes a free one.
        threads: calls served at once.
        queue_limit: calls that may wait for a thread; beyond it they are refused at once.
    """

    def __init__(self, address: str, threads: int, queue_limit: int) -> None:
        self._address = address
        self._streams = _OpenStreams()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
            interceptors=[_Wrapped([_bounding_reflection(), _guarded, self._streams.wrap])],
            options=_SERVER_OPTIONS,
            maximum_concurrent_rpcs=threads + queue_limit,
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    @property
    def grpc_server(self) -> grpc.Server:
        return self._server

    def start(self, service_names: Sequence[str]) -> int:
        """Starts listening and returns the port; the health service says NOT_SERVING yet.

        Raises:
            Unavailable: the address cannot be bound.
        """
        reflection.enable_server_reflection(
            (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self._service_names = tuple(service_names)
        self.set_serving(False)
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {self._address}: {error}") from error
        self._server.start()
        return int(port)

    def set_serving(self, serving: bool) -> None:
        """What the health service says of the process and of its services."""
        self.set_alive(serving)
        self.set_active(serving)

    def set_alive(self, alive: bool) -> None:
        """What it says of the process, which is asked for under no name."""
        self._say("", alive)

    def set_active(self, active: bool) -> None:
        """What it says of the services by name. A process that stands by is alive, not active."""
        for name in self._service_names:
            self._say(name, active)

    def _say(self, name: str, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets those in flight finish for at most `grace_s`, then returns.

        Streams of answers get only the first second of it: some never end by themselves, and their
        readers can continue at another server. Streams of messages end between two messages.
        """
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace_s)
        self._streams.end_idle()
        if not stopped.wait(min(_STREAM_GRACE_S, grace_s)):
            self._streams.cancel()
        stopped.wait()
