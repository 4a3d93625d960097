"""A catalog over gRPC for tests, a client to call it, and addresses that two servers can swap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from common import rpc_client
from common.errors import BourseError, Unavailable
from common.rpc_client import Peer
from common.rpc_server import RpcServer
from proto import bourse_pb2, bourse_pb2_grpc
from tests.support.clock import Clock

CATALOG = "bourse.v1.CatalogService"
TIMEOUT_S = 10.0
_LOOKUP = bourse_pb2.LookupRequest(name="stock1")


class Catalog(bourse_pb2_grpc.CatalogServiceServicer):
    """A lookup fails with `error`, and waits while `may_answer` is clear.

    Each lookup that arrives releases `waiting` once.
    """

    def __init__(self) -> None:
        self.error: BourseError | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.waiting = threading.Semaphore(0)

    def Lookup(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self.waiting.release()
        self.may_answer.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return bourse_pb2.LookupResponse(name="stock1", price=1, volume=1, version=1)


@contextmanager
def serving(catalog: Catalog, address: str = "127.0.0.1:0") -> Iterator[int]:
    """Runs a healthy server of this catalog; gives its port."""
    server = RpcServer(address, threads=16, queue_limit=200)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server.grpc_server)
    try:
        port = server.start([CATALOG])
        server.set_serving(True)
        yield port
    finally:
        server.stop(0)


@contextmanager
def peer_at(address: str, clock: Clock) -> Iterator[Peer]:
    stub = bourse_pb2_grpc.CatalogServiceStub
    with closing(Peer("the catalog", address, stub, clock)) as peer:
        yield peer


def lookup(peer: Peer, timeout_s: float = TIMEOUT_S) -> Any:
    return peer.call("Lookup", _LOOKUP, timeout_s)


def fail(peer: Peer, kind: type[BourseError] = Unavailable, timeout_s: float = TIMEOUT_S) -> None:
    with pytest.raises(kind):
        lookup(peer, timeout_s)


def count_opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets the address of each channel that is opened from now on."""
    opened: list[str] = []

    def open_channel(address: str) -> grpc.Channel:
        opened.append(address)
        return original(address)

    original = rpc_client.open_channel
    monkeypatch.setattr(rpc_client, "open_channel", open_channel)
    return opened


class TwoAddresses:
    """Addresses for two servers, which can be swapped, as containers can swap theirs.

    An open connection stays with its server. A new connection follows the address.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.first, self.second = f"unix:{folder}/1", f"unix:{folder}/2"

    def swap(self) -> None:
        first, second, aside = (self._folder / name for name in ("1", "2", "aside"))
        first.rename(aside)
        second.rename(first)
        aside.rename(second)
