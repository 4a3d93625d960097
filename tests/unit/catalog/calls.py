"""The catalog over gRPC, in this process, on a free port; and a client to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from catalog.service import CatalogService
from catalog.settings import CatalogSettings
from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from catalog.store import Store
from common.rpc_client import open_channel
from common.rpc_server import RpcServer
from proto import bourse_pb2, bourse_pb2_grpc
from tests.unit.catalog.support import store_on

TIMEOUT_S = 10
MAX_STREAMS = 2
Result = bourse_pb2.UpdateResponse


class Client:
    """The stub with a deadline on every call."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = bourse_pb2_grpc.CatalogServiceStub(channel)

    def lookup(self, name: str, will_fill: bool = False) -> bourse_pb2.LookupResponse:
        request = bourse_pb2.LookupRequest(name=name, will_fill=will_fill)
        return self._stub.Lookup(request, timeout=TIMEOUT_S)

    def update(self, epoch: int, request_id: str, quantity: int = 1, **other: object) -> Result:
        fields = {"name": "stock1", "type": bourse_pb2.BUY, **other}
        request = bourse_pb2.UpdateRequest(
            epoch=epoch,
            request_id=request_id,
            quantity=quantity,
            **fields,  # type: ignore[arg-type]
        )
        return self._stub.Update(request, timeout=TIMEOUT_S)

    def update_batch(self, epoch: int, *trades: bourse_pb2.TradeRequest) -> list[Result]:
        request = bourse_pb2.UpdateBatchRequest(epoch=epoch, trades=trades)
        return list(self._stub.UpdateBatch(request, timeout=TIMEOUT_S).results)

    def updates(self, requests: Iterator[bourse_pb2.UpdateBatchRequest]) -> Any:
        return self._stub.Updates(requests, timeout=TIMEOUT_S)

    def fence(self, epoch: int, leader_id: int) -> bourse_pb2.FenceResponse:
        request = bourse_pb2.FenceRequest(epoch=epoch, leader_id=leader_id)
        return self._stub.Fence(request, timeout=TIMEOUT_S)

    def journal(self, last_number: int = 0, limit: int = 0) -> Any:
        request = bourse_pb2.SyncRequest(last_number=last_number, limit=limit)
        return self._stub.Journal(request, timeout=TIMEOUT_S)

    def stocks(self) -> list[bourse_pb2.Stock]:
        return list(self._stub.ListStocks(bourse_pb2.Empty(), timeout=TIMEOUT_S).stocks)


def trade(request_id: str, quantity: int = 1, name: str = "stock1") -> bourse_pb2.TradeRequest:
    return bourse_pb2.TradeRequest(request_id=request_id, name=name, quantity=quantity)


def numbers(chunks: Iterator[bourse_pb2.OrderBatch]) -> list[int]:
    return [row.number for chunk in chunks for row in chunk.rows]


def assert_refused(code: grpc.StatusCode, call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code
    return str(caught.value.details())


@contextmanager
def open_store(directory: Path, clock: Callable[[], float] = lambda: 0.0) -> Iterator[SqliteStore]:
    """Its leases are those of a start at this moment of the clock."""
    with closing(Database(directory, CatalogSettings().stocks_file)) as database:
        yield store_on(database, clock)


@contextmanager
def serving(current: Callable[[], Store]) -> Iterator[str]:
    """Gives the address."""
    server = RpcServer("127.0.0.1:0", threads=8, queue_limit=8)
    service = CatalogService(current, MAX_STREAMS, max_update_streams=MAX_STREAMS)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(service, server.grpc_server)
    port = server.start(["bourse.v1.CatalogService"])
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace_s=1)


@contextmanager
def serve(current: Callable[[], Store]) -> Iterator[Client]:
    with serving(current) as address, open_channel(address) as channel:
        yield Client(channel)


def made_leader(client: Client) -> Client:
    """Of replica 3, which leads epoch 1."""
    assert client.fence(1, 3).accepted
    return client
