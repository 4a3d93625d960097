"""Reads while the catalog changes: they wait for a takeover, and for nothing that has no end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from common.catalogs import CatalogPeer, Catalogs, Cluster
from common.errors import BourseError, NotActive, OutcomeUnknown, Unavailable
from frontend.catalog_client import CatalogClient
from proto import bourse_pb2
from tests.support.clock import Clock
from tests.support.mechanisms import taken_out

LOOKUP_S = 2.0
TRY_S = 0.5
TAKEOVER_S = 3.0  # as slow as it gets
ROW = bourse_pb2.OrderDBItem(number=3, name="stock1", type=bourse_pb2.SELL, quantity=25)


class OneCatalog(CatalogPeer):
    """Fails with `error` before `active_from_s`, and answers from then on.

    A silent one takes the time of the call.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__("127.0.0.1:1", Cluster(), clock)
        self.error: BourseError = NotActive()
        self.active_from_s = math.inf
        self.limits: list[float] = []  # of the calls
        self._time = clock

    def call(self, _method: str, request: Any, timeout_s: float) -> Any:
        self._act(timeout_s)
        return bourse_pb2.LookupResponse(name=request.name, price=1.0, volume=1, version=1)

    def stream(self, _method: str, _request: Any, timeout_s: float) -> Iterator[Any]:
        self._act(timeout_s)
        yield bourse_pb2.OrderBatch(rows=[ROW])

    def _act(self, timeout_s: float) -> None:
        self.limits.append(timeout_s)
        if self._time.now_s < self.active_from_s:
            if isinstance(self.error, OutcomeUnknown):
                self._time.pass_by(timeout_s)
            raise self.error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peers(clock: Clock) -> Iterator[list[OneCatalog]]:
    """The first was active so far."""
    peers = [OneCatalog(clock), OneCatalog(clock)]
    yield peers
    for peer in peers:
        peer.close()


@pytest.fixture
def client(peers: list[OneCatalog], clock: Clock) -> CatalogClient:
    return make_client(peers, clock)


def make_client(peers: list[OneCatalog], clock: Clock) -> CatalogClient:
    return CatalogClient(Catalogs(peers, clock), LOOKUP_S, clock, clock.pause, several=True)


Read = Callable[[CatalogClient], object]
READS: dict[str, Read] = {
    "a quote": lambda client: client.lookup("stock1", True),
    "an order": lambda client: client.journal_row(3),
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)

FAULTS = {"died": Unavailable("refused"), "is silent": OutcomeUnknown(), "stands by": NotActive()}


@every_read
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("is_first_in_turn", [True, False])
def test_a_takeover_costs_time_and_nothing_else(
    peers: list[OneCatalog], clock: Clock, read: Read, fault: BourseError, is_first_in_turn: bool
) -> None:
    peers[0].error, peers[1].active_from_s = fault, TAKEOVER_S
    client = make_client(peers if is_first_in_turn else peers[::-1], clock)
    assert read(client) is not None
    assert TAKEOVER_S <= clock.now_s < TAKEOVER_S + 2 * TRY_S + 0.3


@every_read
def test_without_the_wait_it_is_an_error(peers: list[OneCatalog], clock: Clock, read: Read) -> None:
    peers[1].active_from_s = TAKEOVER_S
    with taken_out("reads wait too"):
        client = make_client(peers, clock)
    with pytest.raises(Unavailable):
        read(client)


@every_read
def test_reads_that_came_during_a_takeover_do_not_open_the_breaker(
    client: CatalogClient, peers: list[OneCatalog], clock: Clock, read: Read
) -> None:
    for _ in range(5):
        peers[1].active_from_s = clock.now_s + TAKEOVER_S
        assert read(client) is not None


def test_a_lookup_does_not_wait_long_for_a_silent_one(
    client: CatalogClient, peers: list[OneCatalog], clock: Clock
) -> None:
    peers[0].error, peers[1].active_from_s = OutcomeUnknown(), 0.0
    for _ in range(2):
        client.lookup("stock1", True)
    assert peers[0].limits == [TRY_S]
    assert clock.now_s == TRY_S


@every_read
@pytest.mark.parametrize("error", [Unavailable("refused"), OutcomeUnknown()])
def test_nobody_waits_longer_for_catalogs_that_say_nothing(
    client: CatalogClient, peers: list[OneCatalog], clock: Clock, read: Read, error: BourseError
) -> None:
    for peer in peers:
        peer.error = error
    with pytest.raises(Unavailable, match=r"^the catalog (is unavailable|does not answer)$"):
        read(client)
    assert LOOKUP_S - 0.3 <= clock.now_s <= LOOKUP_S


@every_read
def test_the_wait_for_a_takeover_ends(client: CatalogClient, clock: Clock, read: Read) -> None:
    with pytest.raises(Unavailable, match=r"^the catalog is unavailable$"):
        read(client)
    assert TAKEOVER_S + 0.5 < clock.now_s <= 4.0


@every_read
def test_one_silent_catalog_gets_all_the_time(
    peers: list[OneCatalog], clock: Clock, read: Read
) -> None:
    """There is no other to go on to, and it may be slow."""
    peers[0].error = OutcomeUnknown()
    with pytest.raises(Unavailable, match=r"^the catalog does not answer$"):
        read(CatalogClient(peers[0], LOOKUP_S, clock, clock.pause))
    assert peers[0].limits == [LOOKUP_S]
