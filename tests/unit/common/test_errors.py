"""The error table, and a real gRPC server that answers by it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest

from common import errors, logs, rpc_server
from common.errors import (
    BourseError,
    Busy,
    Internal,
    OutcomeUnknown,
    Unavailable,
    WrongPeer,
    from_rpc_error,
)
from common.rpc_client import Peer, open_channel
from proto import bourse_pb2, bourse_pb2_grpc

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BourseError)
    if kind not in (BourseError, WrongPeer)  # which no service answers
]


class ScriptedCatalog(bourse_pb2_grpc.CatalogServiceServicer):
    """`Lookup` and, after its first answer, `Journal` do what the test says."""

    def __init__(self) -> None:
        self.act: Callable[[], object] = lambda: None
        self.seen_ids: list[str] = []

    def Lookup(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self.seen_ids.append(logs.request_id.get())
        self.act()
        return bourse_pb2.LookupResponse(name="answer")

    def Journal(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self.seen_ids.append(logs.request_id.get())
        yield bourse_pb2.OrderBatch(epoch=1)
        self.act()
        self.seen_ids.append(logs.request_id.get())

    def will_raise(self, error: Exception) -> None:
        def act() -> None:
            raise error

        self.act = act


@pytest.fixture
def catalog() -> ScriptedCatalog:
    return ScriptedCatalog()


@pytest.fixture
def server(catalog: ScriptedCatalog) -> Iterator[rpc_server.RpcServer]:
    server = rpc_server.RpcServer("127.0.0.1:0", threads=2, queue_limit=1)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server.grpc_server)
    yield server
    server.stop(0)


@pytest.fixture
def address(server: rpc_server.RpcServer) -> str:
    return f"127.0.0.1:{server.start(['bourse.v1.CatalogService'])}"


@pytest.fixture
def peer(address: str) -> Iterator[Peer]:
    with closing(make_peer(address)) as peer:
        yield peer


def make_peer(address: str) -> Peer:
    return Peer("the catalog", address, bourse_pb2_grpc.CatalogServiceStub)


Call = Callable[[Peer, float], object]


def lookup(peer: Peer, timeout_s: float = 10) -> object:
    return peer.call("Lookup", bourse_pb2.LookupRequest(name="stock1"), timeout_s)


def journal(peer: Peer, timeout_s: float = 10) -> object:
    return list(peer.stream("Journal", bourse_pb2.SyncRequest(), timeout_s))


BOTH = pytest.mark.parametrize("call", [lookup, journal])


def test_the_table_has_one_error_for_each_grpc_status() -> None:
    assert len({kind.grpc_status for kind in KINDS}) == len(KINDS) >= 10


def test_every_error_has_a_message_of_its_own() -> None:
    assert len({kind.default_message for kind in KINDS}) == len(KINDS)
    assert Busy().message == Busy.default_message
    assert Busy("full").message == str(Busy("full")) == "full"


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_the_wire_as_itself(
    peer: Peer,
    catalog: ScriptedCatalog,
    call: Call,
    kind: type[BourseError],
) -> None:
    catalog.will_raise(kind("of its own: ünïcode"))
    with pytest.raises(kind) as raised:
        call(peer, 10)
    assert type(raised.value) is kind
    if kind is not Internal:  # whose message stays in the logs
        assert raised.value.message == "of its own: ünïcode"


@BOTH
def test_an_unexpected_exception_is_told_to_the_log_only(
    peer: Peer,
    catalog: ScriptedCatalog,
    caplog: pytest.LogCaptureFixture,
    call: Call,
) -> None:
    catalog.will_raise(RuntimeError("the secret of the house"))
    with pytest.raises(Internal) as raised:
        call(peer, 10)
    assert raised.value.message == "internal error"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the secret of the house"


@BOTH
def test_a_deadline_leaves_the_outcome_unknown(
    peer: Peer, catalog: ScriptedCatalog, call: Call
) -> None:
    answered = threading.Event()
    catalog.act = lambda: answered.wait(10)
    with pytest.raises(OutcomeUnknown):
        call(peer, 0.1)
    answered.set()


@BOTH
def test_a_peer_that_is_away_is_unavailable(call: Call) -> None:
    with (
        closing(make_peer("127.0.0.1:1")) as away,
        pytest.raises(Unavailable),
    ):
        call(away, 10)


@BOTH
def test_a_server_that_stops_meanwhile_is_unavailable(
    peer: Peer,
    server: rpc_server.RpcServer,
    catalog: ScriptedCatalog,
    call: Call,
) -> None:
    called, stopped = threading.Event(), threading.Event()

    def act() -> None:
        called.set()
        stopped.wait(10)

    def stop() -> None:
        called.wait(10)
        server.stop(0)

    catalog.act = act
    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(Unavailable):
        call(peer, 10)
    stopped.set()
    stopper.join()


def test_calls_beyond_the_bound_are_refused_at_once(address: str, catalog: ScriptedCatalog) -> None:
    answered = threading.Event()
    catalog.act = lambda: answered.wait(10)
    request = bourse_pb2.LookupRequest()
    with open_channel(address) as channel:
        stub = bourse_pb2_grpc.CatalogServiceStub(channel)
        bound = [stub.Lookup.future(request, timeout=10) for _ in range(3)]
        while len(catalog.seen_ids) < 2:  # two served, one waits
            threading.Event().wait(0.01)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Lookup(request, timeout=10)
        assert type(from_rpc_error(refused.value)) is Busy
        answered.set()
        assert [call.result().name for call in bound] == ["answer"] * 3


@BOTH
def test_the_request_id_goes_with_the_call_and_no_further(
    peer: Peer, catalog: ScriptedCatalog, call: Call
) -> None:
    before = logs.request_id.set("key-1")
    call(peer, 10)
    logs.request_id.reset(before)
    assert set(catalog.seen_ids) == {"key-1"}
    catalog.seen_ids.clear()
    for _ in range(4):  # every thread of the server
        call(peer, 10)
    assert set(catalog.seen_ids) == {"-"}


class ForeignError(grpc.RpcError):
    def __init__(self, status: grpc.StatusCode) -> None:
        super().__init__()
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return "not one of ours"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, WrongPeer),  # another service has this address
        (grpc.StatusCode.UNKNOWN, Internal),
        (grpc.StatusCode.CANCELLED, Unavailable),  # a channel that was closed meanwhile
    ],
)
def test_statuses_that_no_service_of_ours_sends(
    status: grpc.StatusCode, kind: type[BourseError]
) -> None:
    assert type(from_rpc_error(ForeignError(status))) is kind


def test_an_address_that_is_taken_cannot_be_served() -> None:
    first = rpc_server.RpcServer("127.0.0.1:0", threads=1, queue_limit=1)
    port = first.start([])
    second = rpc_server.RpcServer(f"127.0.0.1:{port}", threads=1, queue_limit=1)
    with pytest.raises(Unavailable, match="cannot listen"):
        second.start([])
    first.stop(0)
