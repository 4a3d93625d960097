"""The catalog client and readiness, against real gRPC servers that do as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import grpc
import pytest

from common import rpc_server
from common.errors import Busy, Damaged, Internal, InvalidRequest, Unavailable
from common.replicas import ReplicaPeer
from common.rpc_client import Peer
from frontend.catalog_client import CatalogClient
from frontend.model import OrderView, Quote
from frontend.readiness import ServiceReadiness
from proto import bourse_pb2, bourse_pb2_grpc
from tests.support.clock import Clock

CATALOG = "bourse.v1.CatalogService"
ROW = bourse_pb2.OrderDBItem(number=3, name="stock1", type=bourse_pb2.SELL, quantity=25)


class ScriptedCatalog(bourse_pb2_grpc.CatalogServiceServicer):
    """Answers as told, after the errors it was told to raise first."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.requests: list[Any] = []
        self.stock = bourse_pb2.LookupResponse(name="stock1", price=25.78, volume=10, version=4)
        self.rows = [ROW]
        self.silence = threading.Event()
        self.silence.set()

    def Lookup(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self._act(request)
        return self.stock

    def Journal(self, request: Any, _context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802 - gRPC's
        self._act(request)
        yield bourse_pb2.OrderBatch(rows=self.rows)

    def _act(self, request: Any) -> None:
        self.requests.append(request)
        self.silence.wait(10)
        if self.errors:
            raise self.errors.pop(0)


def make_peer(address: str) -> Peer:
    return Peer("the catalog", address, bourse_pb2_grpc.CatalogServiceStub)


@pytest.fixture
def catalog() -> ScriptedCatalog:
    return ScriptedCatalog()


@pytest.fixture
def server(catalog: ScriptedCatalog) -> Iterator[rpc_server.RpcServer]:
    server = rpc_server.RpcServer("127.0.0.1:0", threads=4, queue_limit=4)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server.grpc_server)
    yield server
    catalog.silence.set()
    server.stop(0)


@pytest.fixture
def peer(server: rpc_server.RpcServer) -> Iterator[Peer]:
    port = server.start([CATALOG])
    server.set_serving(True)
    with closing(make_peer(f"127.0.0.1:{port}")) as peer:
        yield peer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(peer: Peer, clock: Clock) -> CatalogClient:
    return CatalogClient(peer, 2.0, clock, clock.pause)


@pytest.mark.parametrize("will_fill", [True, False])
def test_lookup(client: CatalogClient, catalog: ScriptedCatalog, will_fill: bool) -> None:
    assert client.lookup("stock1", will_fill) == Quote("stock1", Decimal("25.78"), 10, 4)
    expected = bourse_pb2.LookupRequest(name="stock1", will_fill=will_fill)
    assert catalog.requests == [expected]


@pytest.mark.parametrize("price", ["0.01", "0.10", "0.29", "1.005e2", "33333333333.33"])
def test_prices_are_exact(client: CatalogClient, catalog: ScriptedCatalog, price: str) -> None:
    catalog.stock.price = float(price)
    quote = client.lookup("stock1", False)
    assert quote is not None
    assert quote.price == Decimal(price)
    assert quote.price.as_tuple().exponent == -2


def test_a_stock_that_does_not_exist(client: CatalogClient, catalog: ScriptedCatalog) -> None:
    catalog.stock = bourse_pb2.LookupResponse(name="nothing", price=-1, volume=-1)
    assert client.lookup("nothing", True) is None


def test_a_stock_that_is_sold_out_exists(client: CatalogClient, catalog: ScriptedCatalog) -> None:
    catalog.stock.volume = 0
    quote = client.lookup("stock1", True)
    assert quote is not None
    assert quote.quantity == 0


def test_journal_row(client: CatalogClient, catalog: ScriptedCatalog) -> None:
    assert client.journal_row(3) == OrderView(3, "stock1", "SELL", 25)
    assert catalog.requests == [bourse_pb2.SyncRequest(last_number=2, limit=1)]


def test_a_number_not_reached_yet(client: CatalogClient, catalog: ScriptedCatalog) -> None:
    catalog.rows = []
    assert client.journal_row(3) is None


def test_a_gap_in_the_journal_is_not_an_answer(client: CatalogClient) -> None:
    with pytest.raises(Damaged):
        client.journal_row(2)


READS: list[Callable[[CatalogClient], object]] = [
    lambda client: client.lookup("stock1", True),
    lambda client: client.journal_row(3),
]


@pytest.mark.parametrize("read", READS)
def test_a_catalog_away_for_a_moment_is_no_error(
    client: CatalogClient,
    catalog: ScriptedCatalog,
    clock: Clock,
    read: Callable[[CatalogClient], object],
) -> None:
    catalog.errors = [Unavailable(), Busy(), Unavailable()]
    assert read(client) is not None
    assert len(clock.pauses) == 3
    assert all(0.02 <= pause_s <= 0.1 for pause_s in clock.pauses)


@pytest.mark.parametrize("read", READS)
def test_repeats_end_in_time(
    client: CatalogClient,
    catalog: ScriptedCatalog,
    clock: Clock,
    read: Callable[[CatalogClient], object],
) -> None:
    catalog.errors = [Unavailable("127.0.0.1 refused")] * 1000
    with pytest.raises(Unavailable, match=r"^the catalog is unavailable$"):
        read(client)
    assert 1.9 <= clock.now_s < 2.0


@pytest.mark.parametrize("read", READS)
def test_a_silent_catalog_is_unavailable(
    peer: Peer, catalog: ScriptedCatalog, read: Callable[[CatalogClient], object]
) -> None:
    catalog.silence.clear()
    with pytest.raises(Unavailable, match=r"^the catalog does not answer$"):
        read(CatalogClient(peer, timeout_s=0.1))


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", [InvalidRequest, Internal])
def test_what_a_repeat_cannot_change_is_not_repeated(
    client: CatalogClient,
    catalog: ScriptedCatalog,
    read: Callable[[CatalogClient], object],
    kind: type[Exception],
) -> None:
    catalog.errors = [kind()]
    with pytest.raises(kind):
        read(client)
    assert len(catalog.requests) == 1


def test_reachable_is_what_says_it_serves(
    client: CatalogClient, server: rpc_server.RpcServer
) -> None:
    assert client.is_reachable()
    server.set_serving(False)
    assert not client.is_reachable()
    server.stop(0)
    assert not client.is_reachable()


class LiveReplica(bourse_pb2_grpc.OrderServiceServicer):
    def IsAlive(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return bourse_pb2.AliveResponse(replica_id=1, last_number=0)


@pytest.fixture
def peers() -> Iterator[list[ReplicaPeer]]:
    """Replica 1 is alive, the others cannot be reached."""
    server = rpc_server.RpcServer("127.0.0.1:0", threads=4, queue_limit=4)
    bourse_pb2_grpc.add_OrderServiceServicer_to_server(LiveReplica(), server.grpc_server)
    port = server.start(["bourse.v1.OrderService"])
    peers = [
        ReplicaPeer(1, f"127.0.0.1:{port}"),
        ReplicaPeer(2, "127.0.0.1:1"),
        ReplicaPeer(3, "127.0.0.1:1"),
    ]
    yield peers
    for peer in peers:
        peer.close()
    server.stop(0)


def test_ready_with_the_catalog_and_one_replica(peers: list[ReplicaPeer]) -> None:
    assert ServiceReadiness(lambda: True, peers).reason_not_ready() is None


def test_not_ready_without_the_catalog(peers: list[ReplicaPeer]) -> None:
    reason = ServiceReadiness(lambda: False, peers).reason_not_ready()
    assert reason == "the catalog does not answer"


def test_not_ready_without_a_replica(peers: list[ReplicaPeer]) -> None:
    reason = ServiceReadiness(lambda: True, peers[1:]).reason_not_ready()
    assert reason == "no order replica answers"
