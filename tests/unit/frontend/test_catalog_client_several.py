"""Reads while the catalog changes: they wait for a takeover, and for nothing that has no end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from common.errors import BourseError, NotActive, OutcomeUnknown, Unavailable
from common.rpc_client import Dialogue
from frontend.catalog_client import CatalogClient
from proto import bourse_pb2
from tests.support.clock import Clock
from tests.support.mechanisms import taken_out

LOOKUP_S = 2.0
ATTEMPT_S = 0.5
TAKEOVER_S = 3.0  # as slow as it gets
ROW = bourse_pb2.OrderDBItem(number=3, name="stock1", type=bourse_pb2.SELL, quantity=25)


class Catalogs:
    """Answer from `active_from_s` on. Before that, they fail with the next error of `errors`.

    Silence takes the time of the attempt.
    """

    def __init__(self, clock: Clock) -> None:
        self.errors: list[BourseError] = [NotActive()]
        self.active_from_s = math.inf
        self.limits: list[float] = []  # of the attempts
        self._clock = clock

    def call(self, _method: str, request: Any, timeout_s: float) -> Any:
        self._act(timeout_s)
        return bourse_pb2.LookupResponse(name=request.name, price=1.0, volume=1, version=1)

    def stream(self, _method: str, _request: Any, timeout_s: float) -> Iterator[Any]:
        self._act(timeout_s)
        yield bourse_pb2.OrderBatch(rows=[ROW])

    def is_serving(self, service: str, timeout_s: float) -> bool:
        raise NotImplementedError

    def conversation(self, stream: str, method: str) -> Dialogue:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _act(self, timeout_s: float) -> None:
        self.limits.append(timeout_s)
        if self._clock.now_s >= self.active_from_s:
            return
        error = self.errors[(len(self.limits) - 1) % len(self.errors)]
        if isinstance(error, OutcomeUnknown):
            self._clock.pass_by(timeout_s)
        raise error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogs(clock: Clock) -> Catalogs:
    return Catalogs(clock)


@pytest.fixture
def client(catalogs: Catalogs, clock: Clock) -> CatalogClient:
    return make_client(catalogs, clock)


def make_client(catalogs: Catalogs, clock: Clock) -> CatalogClient:
    return CatalogClient(catalogs, LOOKUP_S, clock, clock.pause, several=True)


Read = Callable[[CatalogClient], object]
READS: dict[str, Read] = {
    "a quote": lambda client: client.lookup("stock1", True),
    "an order": lambda client: client.journal_row(3),
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)

TROUBLES = {
    "the active one died": [Unavailable("refused"), NotActive()],
    "it is silent": [OutcomeUnknown(), NotActive()],
    "all stand by": [NotActive()],
}


@every_read
@pytest.mark.parametrize("errors", TROUBLES.values(), ids=TROUBLES)
def test_a_takeover_costs_time_and_nothing_else(
    client: CatalogClient, catalogs: Catalogs, clock: Clock, read: Read, errors: list[BourseError]
) -> None:
    catalogs.errors, catalogs.active_from_s = errors, TAKEOVER_S
    assert read(client) is not None
    assert TAKEOVER_S <= clock.now_s < TAKEOVER_S + ATTEMPT_S + 0.3
    assert max(catalogs.limits) <= ATTEMPT_S


@every_read
def test_without_the_wait_it_is_an_error(catalogs: Catalogs, clock: Clock, read: Read) -> None:
    catalogs.active_from_s = TAKEOVER_S
    with taken_out("reads wait too"):
        client = make_client(catalogs, clock)
    with pytest.raises(Unavailable):
        read(client)


@every_read
def test_reads_that_came_during_a_takeover_do_not_open_the_breaker(
    client: CatalogClient, catalogs: Catalogs, clock: Clock, read: Read
) -> None:
    for _ in range(5):
        catalogs.active_from_s = clock.now_s + TAKEOVER_S
        assert read(client) is not None


@every_read
@pytest.mark.parametrize("error", [Unavailable("refused"), OutcomeUnknown()])
def test_nobody_waits_longer_for_catalogs_that_say_nothing(
    client: CatalogClient, catalogs: Catalogs, clock: Clock, read: Read, error: BourseError
) -> None:
    catalogs.errors = [error]
    with pytest.raises(Unavailable, match=r"^the catalog (is unavailable|does not answer)$"):
        read(client)
    assert LOOKUP_S - 0.3 <= clock.now_s < LOOKUP_S + 0.1


@every_read
def test_the_wait_for_a_takeover_ends(
    client: CatalogClient, catalogs: Catalogs, clock: Clock, read: Read
) -> None:
    with pytest.raises(Unavailable, match=r"^the catalog is unavailable$"):
        read(client)
    assert TAKEOVER_S + 0.5 < clock.now_s <= 4.0


@every_read
def test_one_silent_catalog_gets_all_the_time(catalogs: Catalogs, clock: Clock, read: Read) -> None:
    """There is no other to go on to, and it may be slow."""
    catalogs.errors = [OutcomeUnknown()]
    with pytest.raises(Unavailable, match=r"^the catalog does not answer$"):
        read(CatalogClient(catalogs, LOOKUP_S, clock, clock.pause))
    assert catalogs.limits == [LOOKUP_S]
