"""What the service answers while its catalog is not, or no longer, the active one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from catalog.sqlite.store import SqliteStore
from catalog.store import Store
from common.domain import LEASE_MS
from common.errors import NotActive
from proto import bourse_pb2
from tests.support.clock import Clock
from tests.unit.catalog.calls import TIMEOUT_S, Client, assert_refused, open_store, serve, trade
from tests.unit.catalog.support import NOW_S

READS: dict[str, Callable[[Client], object]] = {
    "lookup": lambda client: client.lookup("stock1", will_fill=True),
    "lookup of no stock": lambda client: client.lookup("a\nb"),
    "journal": lambda client: list(client.journal()),
    "one order": lambda client: list(client.journal(limit=1)),
    "stocks": Client.stocks,
    "compare": lambda client: client._stub.Compare(bourse_pb2.CompareRequest(), timeout=TIMEOUT_S),
}
WRITES: dict[str, Callable[[Client], object]] = {
    "update": lambda client: client.update(1, "a"),
    "batch": lambda client: client.update_batch(1, trade("a")),
    "stream": lambda client: list(
        client.updates(iter([bourse_pb2.UpdateBatchRequest(epoch=1, trades=[trade("a")])]))
    ),
    "fence": lambda client: client.fence(2, 3),
}


class Terms:
    """The stores of a process, one after the other; none while it stands by."""

    def __init__(self) -> None:
        self.store: Store | None = None

    def current(self) -> Store:
        if self.store is None:
            raise NotActive
        return self.store


@pytest.fixture
def terms() -> Terms:
    return Terms()


@pytest.fixture
def client(terms: Terms) -> Iterator[Client]:
    with serve(terms.current) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW_S)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    with open_store(tmp_path, clock) as store:
        clock.now_s += LEASE_MS / 1000  # the lease on everything, of a start, has run out
        assert store.fence(1, 2).accepted
        yield store


@pytest.mark.parametrize("call", {**READS, **WRITES}.values(), ids={**READS, **WRITES})
def test_a_catalog_that_stands_by_answers_nothing(
    client: Client, call: Callable[[Client], object]
) -> None:
    details = assert_refused(grpc.StatusCode.PERMISSION_DENIED, lambda: call(client))
    assert details == "this catalog is not the active one"


@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_term_that_may_be_over_is_not_read_from(
    client: Client,
    terms: Terms,
    store: SqliteStore,
    call: Callable[[Client], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def over() -> None:
        raise NotActive

    terms.store = store
    monkeypatch.setattr(store, "check_active", over)
    for reading in ("lookup", "journal", "stocks", "compare"):
        monkeypatch.setattr(store, reading, None)
    assert_refused(grpc.StatusCode.PERMISSION_DENIED, lambda: call(client))
    assert store.leases.remaining_ms("stock1") == 0


def test_each_call_is_answered_by_the_term_it_began_in(
    client: Client, terms: Terms, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = store.update

    def until_the_term_ends(*arguments: object) -> object:
        terms.store = None
        return update(*arguments)  # type: ignore[arg-type]

    terms.store = store
    monkeypatch.setattr(store, "update", until_the_term_ends)
    result = client.update(1, "a")
    assert (result.transaction_number, result.cluster_id) == (1, store.cluster_id)
    assert_refused(grpc.StatusCode.PERMISSION_DENIED, lambda: client.update(1, "b"))
    assert [order.request_id for order in store.journal(0)] == ["a"]
