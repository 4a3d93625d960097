"""A peer is found again after any time away, even if another service has its address now."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from common import rpc_client
from common.errors import BourseError, Busy, OutcomeUnknown, Unavailable, WrongPeer
from common.replicas import ReplicaPeer
from common.rpc_client import Peer
from common.rpc_server import RpcServer
from proto import bourse_pb2, bourse_pb2_grpc
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.name_server import NameServer

CATALOG = "bourse.v1.CatalogService"
ORDER = "bourse.v1.OrderService"
TIMEOUT_S = 10.0
LOOKUP = bourse_pb2.LookupRequest(name="stock1")
EMPTY = bourse_pb2.Empty()


class Catalog(bourse_pb2_grpc.CatalogServiceServicer):
    """Counts its callers; a lookup fails with `error`, and waits while `may_answer` is clear."""

    def __init__(self) -> None:
        self.callers: set[str] = set()
        self.error: BourseError | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.waiting = threading.Semaphore(0)

    def Lookup(self, _request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        self.callers.add(context.peer())
        self.waiting.release()
        self.may_answer.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return bourse_pb2.LookupResponse(name="stock1", price=1, volume=1, version=1)


class Replica(bourse_pb2_grpc.OrderServiceServicer):
    def IsAlive(self, _request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return bourse_pb2.AliveResponse(replica_id=1)


@contextmanager
def serving(service: Any, address: str = "127.0.0.1:0") -> Iterator[int]:
    """The port of a server of this service alone, healthy."""
    server = RpcServer(address, threads=16, queue_limit=200)
    if isinstance(service, Catalog):
        bourse_pb2_grpc.add_CatalogServiceServicer_to_server(service, server.grpc_server)
    else:
        bourse_pb2_grpc.add_OrderServiceServicer_to_server(service, server.grpc_server)
    try:
        port = server.start([CATALOG if isinstance(service, Catalog) else ORDER])
        server.set_serving(True)
        yield port
    finally:
        server.stop(0)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The address of each channel that is opened."""
    addresses: list[str] = []

    def open_channel(address: str) -> grpc.Channel:
        addresses.append(address)
        return original(address)

    original = rpc_client.open_channel
    monkeypatch.setattr(rpc_client, "open_channel", open_channel)
    return addresses


@contextmanager
def peer_at(address: str, clock: Clock) -> Iterator[Peer]:
    stub = bourse_pb2_grpc.CatalogServiceStub
    with closing(Peer("the catalog", address, stub, clock)) as peer:
        yield peer


def lookup(peer: Peer, timeout_s: float = TIMEOUT_S) -> Any:
    return peer.call("Lookup", LOOKUP, timeout_s)


def fail(peer: Peer, kind: type[BourseError] = Unavailable, timeout_s: float = TIMEOUT_S) -> None:
    with pytest.raises(kind):
        lookup(peer, timeout_s)


# ---------------------------------------------------------------- names


@pytest.fixture
def names() -> Iterator[NameServer]:
    with closing(NameServer()) as names:
        yield names


def test_a_name_that_did_not_resolve_is_found_as_soon_as_it_does(
    names: NameServer, catalog: Catalog, clock: Clock
) -> None:
    """gRPC itself pauses after a failed resolution, and each time for longer."""
    with serving(catalog) as port, peer_at(names.target(port), clock) as peer:
        fail(peer)
        names.address = "127.0.0.1"
        fail(peer)  # the pause
        clock.pass_by(0.5)
        fail(peer)
        assert lookup(peer).name == "stock1"


def test_a_peer_that_comes_back_at_another_address_is_found_there(
    names: NameServer, catalog: Catalog, clock: Clock
) -> None:
    names.address = "127.0.0.1"
    with ExitStack() as peers:
        with serving(catalog) as port:
            peer = peers.enter_context(peer_at(names.target(port), clock))
            lookup(peer)
        names.address = None
        fail(peer)
        clock.pass_by(0.5)
        names.address = "127.0.0.2"
        with serving(catalog, f"127.0.0.2:{port}"):
            fail(peer)
            assert lookup(peer).name == "stock1"


def test_a_name_server_that_is_silent_is_asked_again(
    names: NameServer, catalog: Catalog, clock: Clock
) -> None:
    """gRPC itself asks again after two seconds, then three, then nine."""
    names.address, names.is_silent = "127.0.0.1", True
    with serving(catalog) as port, peer_at(names.target(port), clock) as peer:
        fail(peer, OutcomeUnknown, 0.05)
        names.is_silent = False
        clock.pass_by(2)
        fail(peer, OutcomeUnknown, 0.05)
        assert lookup(peer, 1.0).name == "stock1"


def test_a_slow_name_server_is_waited_for(
    names: NameServer, catalog: Catalog, clock: Clock, opened: list[str]
) -> None:
    names.is_silent = True
    with peer_at(names.target(1), clock) as peer:
        for _ in range(5):
            fail(peer, OutcomeUnknown, 0.02)
            clock.pass_by(0.4)
    assert len(opened) == 1


# ---------------------------------------------------------------- the pace


def test_a_channel_has_half_a_second_before_it_is_replaced(clock: Clock, opened: list[str]) -> None:
    with peer_at("127.0.0.1:1", clock) as peer:
        for _ in range(100):
            fail(peer)
            clock.pass_by(0.1)
    # Of 10 s; each fails for the first time when it is first used.
    assert 14 <= len(opened) <= 20


def test_a_peer_that_fails_now_and_then_keeps_its_channel(
    catalog: Catalog, clock: Clock, opened: list[str]
) -> None:
    with serving(catalog) as port, peer_at(f"127.0.0.1:{port}", clock) as peer:
        for _ in range(10):
            catalog.error = Unavailable()
            fail(peer)
            clock.pass_by(0.4)
            fail(peer)
            catalog.error = None
            lookup(peer)
            clock.pass_by(0.4)
    assert len(opened) == 1


def test_a_peer_that_refuses_keeps_its_channel(
    catalog: Catalog, clock: Clock, opened: list[str]
) -> None:
    with serving(catalog) as port, peer_at(f"127.0.0.1:{port}", clock) as peer:
        for _ in range(10):
            for error in (Unavailable(), Busy()):
                catalog.error = error
                fail(peer, type(error))
                clock.pass_by(0.4)
    assert len(opened) == 1


def test_a_closed_peer_opens_no_channel(catalog: Catalog, clock: Clock, opened: list[str]) -> None:
    catalog.may_answer.clear()
    with (
        serving(catalog) as port,
        peer_at(f"127.0.0.1:{port}", clock) as peer,
        ThreadPoolExecutor(1) as callers,
    ):
        fail(peer, OutcomeUnknown, 0.05)
        in_flight = callers.submit(fail, peer)
        for _ in range(2):
            assert catalog.waiting.acquire(timeout=TIMEOUT_S)
        clock.pass_by(10)
        peer.close()
        in_flight.result(TIMEOUT_S)
        fail(peer)
        catalog.may_answer.set()
    assert len(opened) == 1


def test_threads_that_fail_at_once_replace_the_channel_once(
    clock: Clock, opened: list[str]
) -> None:
    with peer_at("127.0.0.1:1", clock) as peer, ThreadPoolExecutor(100) as callers:
        for _ in range(5):
            list(callers.map(fail, [peer] * 200))
            clock.pass_by(0.5)
            list(callers.map(fail, [peer] * 200))
            clock.pass_by(0.5)
    assert 6 <= len(opened) <= 11


# ---------------------------------------------------------------- calls in flight, and what is left


def sockets() -> int:
    """Sockets of this process."""
    links = (link for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return sum(_target(link).startswith("socket:") for link in links)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def test_calls_in_flight_end_over_the_channel_they_began_on(
    catalog: Catalog, clock: Clock, opened: list[str]
) -> None:
    catalog.may_answer.clear()
    with (
        serving(catalog) as port,
        peer_at(f"127.0.0.1:{port}", clock) as peer,
        ThreadPoolExecutor(8) as callers,
    ):
        in_flight = []
        for _ in range(4):
            in_flight.append(callers.submit(lookup, peer))
            assert catalog.waiting.acquire(timeout=TIMEOUT_S)
            fail(peer, OutcomeUnknown, 0.05)
            clock.pass_by(2)
            fail(peer, OutcomeUnknown, 0.05)
            while catalog.waiting.acquire(blocking=False):
                pass
        assert len(opened) == 5
        catalog.may_answer.set()
        assert [call.result(TIMEOUT_S).name for call in in_flight] == ["stock1"] * 4


def test_replaced_channels_leave_no_sockets_and_no_threads(
    catalog: Catalog, clock: Clock, opened: list[str]
) -> None:
    with serving(catalog) as port, peer_at(f"127.0.0.1:{port}", clock) as peer:
        lookup(peer)
        sockets_before, threads_before = sockets(), threading.active_count()
        for _ in range(100):
            catalog.error = Unavailable()
            fail(peer)
            clock.pass_by(0.5)
            fail(peer)
            catalog.error = None
            lookup(peer)
        assert len(opened) == 101
        wait_for(
            lambda: sockets() <= sockets_before,
            TIMEOUT_S,
            f"{sockets()} of {sockets_before} sockets",
        )
        # A server's pool of 16 grows to its size, one thread with each call that finds none idle.
        assert threading.active_count() <= threads_before + 16


# ---------------------------------------------------------------- somebody else at the address


class TwoAddresses:
    """A catalog and a replica behind names that can be swapped, as containers swap addresses.

    What is connected stays connected to where it was; a new connection follows the name.
    """

    def __init__(self, folder: Path, catalog: Catalog, resources: ExitStack) -> None:
        self._folder = folder
        resources.enter_context(serving(catalog, self.address("catalog")))
        resources.enter_context(serving(Replica(), self.address("order")))

    def address(self, name: str) -> str:
        return f"unix:{self._folder}/{name}"

    def swap(self) -> None:
        first, second, aside = (self._folder / name for name in ("catalog", "order", "aside"))
        first.rename(aside)
        second.rename(first)
        aside.rename(second)


@pytest.fixture
def addresses(tmp_path: Path, catalog: Catalog) -> Iterator[TwoAddresses]:
    with ExitStack() as resources:
        yield TwoAddresses(tmp_path, catalog, resources)


def test_a_replica_at_the_catalogs_address_is_left_at_once(
    addresses: TwoAddresses, clock: Clock
) -> None:
    with peer_at(addresses.address("catalog"), clock) as peer:
        addresses.swap()
        with pytest.raises(Unavailable, match="another service answered"):
            lookup(peer)
        addresses.swap()
        assert lookup(peer).name == "stock1"


def test_a_stream_finds_it_out_too(addresses: TwoAddresses, clock: Clock) -> None:
    with peer_at(addresses.address("catalog"), clock) as peer:
        addresses.swap()
        with pytest.raises(WrongPeer):
            list(peer.stream("Journal", bourse_pb2.SyncRequest(), TIMEOUT_S))
        addresses.swap()
        assert lookup(peer).name == "stock1"


def test_a_healthy_replica_is_no_catalog(addresses: TwoAddresses, clock: Clock) -> None:
    with peer_at(addresses.address("catalog"), clock) as peer:
        addresses.swap()
        assert not peer.is_serving(CATALOG, TIMEOUT_S)
        addresses.swap()
        assert peer.is_serving(CATALOG, TIMEOUT_S)


def test_a_catalog_at_a_replicas_address_is_left_at_once(addresses: TwoAddresses) -> None:
    with closing(ReplicaPeer(1, addresses.address("order"))) as peer:
        addresses.swap()
        with pytest.raises(Unavailable, match="another service answered"):
            peer.call("IsAlive", EMPTY, TIMEOUT_S)
        addresses.swap()
        assert peer.call("IsAlive", EMPTY, TIMEOUT_S).replica_id == 1


def test_a_wrong_service_is_logged_once(
    addresses: TwoAddresses, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with peer_at(addresses.address("catalog"), clock) as peer:
        addresses.swap()
        for _ in range(10):
            fail(peer, WrongPeer)
            clock.pass_by(0.2)
        addresses.swap()
        lookup(peer)
    assert [record.message for record in caplog.records] == [
        "the catalog: another service answered, connecting anew",
        "the catalog answers again",
    ]


# ---------------------------------------------------------------- proxies


PROXIES = {
    variable: "http://192.0.2.1:3128"  # an address that nobody has
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    for variable in (name, name.upper())
}


def test_a_proxy_in_the_environment_is_not_for_calls(
    catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, proxy in PROXIES.items():
        monkeypatch.setenv(variable, proxy)
    monkeypatch.setenv("no_proxy", "")
    with serving(catalog) as port, peer_at(f"127.0.0.1:{port}", clock) as peer:
        assert lookup(peer).name == "stock1"
