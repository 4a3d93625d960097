"""A client finds its server again, however long the server was away, and keeps within bounds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from common.errors import Busy, OutcomeUnknown, Unavailable
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.name_server import NameServer
from tests.unit.common.rpc.rpc_services import (
    TIMEOUT_S,
    Catalog,
    count_opened,
    fail,
    lookup,
    peer_at,
    serving,
)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return count_opened(monkeypatch)


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
