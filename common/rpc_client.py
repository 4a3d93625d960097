"""gRPC calls: channels that notice the dead, deadlines on every call, errors of one family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from common import logs
from common.errors import Unavailable, from_rpc_error

# Goes with every call: the id of the request being served.
REQUEST_ID_KEY = "x-request-id"

# A restarted peer must be found again within half a second, at its new address if it has one;
# gRPC's own defaults are patient (reconnect after up to two minutes, resolve every 30 s).
_CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),  # also the limit of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    # A peer that is gone without a word (host lost, cable cut) keeps its connection otherwise.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Repeats are the protocol's business, under request ids; gRPC makes none of its own.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # A channel made anew resolves and connects anew.
    ("grpc.use_local_subchannel_pool", 1),
]

Answer = TypeVar("Answer")


def open_channel(address: str) -> grpc.Channel:
    """A long-lived channel to one peer. It connects when first used."""
    return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)


def call(method: Callable[..., Answer], request: Any, timeout_s: float) -> Answer:
    """Calls a unary method with a deadline.

    Raises:
        BourseError: the error of the family that the answer stands for; `Unavailable` when
            the peer cannot be reached, `OutcomeUnknown` when the deadline passed.
    """
    try:
        return method(request, timeout=timeout_s, metadata=call_metadata())
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
    except ValueError as error:
        raise closed(error) from error


def stream(method: Callable[..., Any], request: Any, timeout_s: float) -> Iterator[Any]:
    """Reads a server stream; the deadline is for the whole of it.

    Raises:
        BourseError: as `call`.
    """
    try:
        yield from method(request, timeout=timeout_s, metadata=call_metadata())
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None
    except ValueError as error:
        raise closed(error) from error


def closed(error: ValueError) -> Unavailable:
    """grpc's way to say that the channel was closed on this side."""
    return Unavailable(f"this side is stopping: {error}")


def call_metadata() -> tuple[tuple[str, str | bytes], ...]:
    """What goes with every call: the id of the request being served."""
    identifier = logs.request_id.get()
    return () if identifier == "-" else ((REQUEST_ID_KEY, identifier),)
