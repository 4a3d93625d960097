"""The client of the catalog: it translates answers, and distinguishes kinds of errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest

from common import logs
from common.domain import BUY, SELL, Order, Trade
from common.errors import (
    BourseError,
    Busy,
    Contradiction,
    Damaged,
    Internal,
    KeyReused,
    OutcomeUnknown,
    StaleEpoch,
    Unavailable,
)
from common.rpc_client import Peer
from common.rpc_server import RpcServer
from common.wire import order_to_item
from order.trading.catalog_client import CatalogClient, Decided, FenceAnswer, Result
from order.trading.queue import TradeAnswer
from proto import bourse_pb2, bourse_pb2_grpc
from tests.unit.order.fakes import CLUSTER, OTHER_CLUSTER, TIMEOUT_S, make_rows, make_trade

ROWS = make_rows(5)
NOW_S = 77.0
Update = bourse_pb2.UpdateResponse


class Catalog(bourse_pb2_grpc.CatalogServiceServicer):
    """Gives the answer that a test sets, and records the requests."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.metadata: dict[str, str | bytes] = {}
        self.answer: Callable[[], Any] = lambda: pytest.fail("no answer was set")

    def UpdateBatch(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._tell(request, context)

    def Updates(self, requests: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        for request in requests:
            yield self._tell(request, context)

    def Fence(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._tell(request, context)

    def Compare(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return self._tell(request, context)

    def Journal(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        yield from self._tell(request, context)

    def _tell(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        self.metadata = dict(context.invocation_metadata())
        return self.answer()

    def results(self, *messages: Update) -> None:
        self.answer = lambda: bourse_pb2.UpdateBatchResponse(results=messages)


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def peer(catalog: Catalog) -> Iterator[Peer]:
    server = RpcServer("127.0.0.1:0", threads=2, queue_limit=2)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server.grpc_server)
    address = f"127.0.0.1:{server.start(['bourse.v1.CatalogService'])}"
    with closing(Peer("the catalog", address, bourse_pb2_grpc.CatalogServiceStub)) as peer:
        yield peer
    server.stop(grace_s=0)


@pytest.fixture
def client(peer: Peer) -> CatalogClient:
    return CatalogClient(peer, TIMEOUT_S, clock=lambda: NOW_S)


def update(client: CatalogClient, *trades: Trade) -> Decided:
    return client.update_batch(7, trades, TIMEOUT_S)


def fail(error: BourseError) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


# ------------------------------------------------------------ batches


def test_a_batch_is_sent_under_its_epoch_in_its_order(
    client: CatalogClient, catalog: Catalog
) -> None:
    catalog.results(Update(status=0, transaction_number=-1), Update(status=0))
    update(client, Trade("a", "株 1", SELL, 10**9), Trade("b", "stock2", BUY, 1))
    (request,) = catalog.asked
    assert request == bourse_pb2.UpdateBatchRequest(
        epoch=7,
        trades=[
            bourse_pb2.TradeRequest(
                request_id="a", name="株 1", type=bourse_pb2.SELL, quantity=10**9
            ),
            bourse_pb2.TradeRequest(request_id="b", name="stock2", type=bourse_pb2.BUY, quantity=1),
        ],
    )


def test_each_result_is_translated(client: CatalogClient, catalog: Catalog) -> None:
    row = Order(9, "a", "stock1", SELL, 2**40, 2**50, 7, b"d" * 32)
    catalog.results(
        Update(status=1, transaction_number=9, lease_ms=4_999, row=order_to_item(row)),
        Update(status=0, transaction_number=-1, replayed=True, lease_ms=1),
        Update(status=-1, transaction_number=-1),
    )
    assert update(client, *[make_trade("any")] * 3).results == [
        Result(TradeAnswer(1, 9, 2**50, 4_999, NOW_S, replayed=False), row),
        Result(TradeAnswer(0, -1, 0, 1, NOW_S, replayed=True), None),
        Result(TradeAnswer(-1, -1, 0, 0, NOW_S, replayed=False), None),
    ]


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Update.MISMATCH, KeyReused),
        (Update.INTERNAL, Internal),
        (Update.FULL, Busy),
        (99, Internal),
    ],
)
def test_a_trade_that_was_not_decided_is_an_error_of_its_own(
    client: CatalogClient, catalog: Catalog, failure: int, kind: type[BourseError]
) -> None:
    catalog.results(Update(status=1, transaction_number=1), Update(failure=failure))  # type: ignore[arg-type]
    good, bad = update(client, make_trade("good"), make_trade("bad")).results
    assert isinstance(good.outcome, TradeAnswer)
    assert type(bad.outcome) is kind
    assert bad.row is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_results_that_do_not_fit_the_trades_are_a_defect(
    client: CatalogClient, catalog: Catalog, count: int
) -> None:
    catalog.results(*[Update(status=0)] * count)
    with pytest.raises(Internal, match=f"{count} results for 2 trades"):
        update(client, make_trade("a"), make_trade("b"))


def test_damage_in_the_catalog_is_not_damage_here(client: CatalogClient, catalog: Catalog) -> None:
    catalog.answer = fail(Damaged("a page is bad"))
    with pytest.raises(Unavailable, match="a page is bad"):
        update(client, make_trade("a"))


@pytest.mark.parametrize("error", [StaleEpoch("epoch 9 is registered"), Unavailable("starting")])
def test_what_the_catalog_refuses_arrives_as_its_error(
    client: CatalogClient, catalog: Catalog, error: BourseError
) -> None:
    catalog.answer = fail(error)
    with pytest.raises(type(error), match=error.message):
        update(client, make_trade("a"))


def test_no_answer_in_time_is_an_unknown_outcome(client: CatalogClient, catalog: Catalog) -> None:
    may_answer = threading.Event()
    catalog.answer = lambda: may_answer.wait(TIMEOUT_S) and bourse_pb2.UpdateBatchResponse()
    with pytest.raises(OutcomeUnknown):
        client.update_batch(7, [make_trade("a")], 0.05)
    may_answer.set()


# ------------------------------------------------------------ the fence


def test_the_fence(client: CatalogClient, catalog: Catalog) -> None:
    catalog.answer = lambda: bourse_pb2.FenceResponse(accepted=True, epoch=8, leader_id=2)
    assert client.fence(8, 2, TIMEOUT_S) == FenceAnswer(True, 8, 2)
    assert catalog.asked == [bourse_pb2.FenceRequest(epoch=8, leader_id=2)]
    claim = {"last_number": 5, "digest": b"digest", "cluster_id": CLUSTER}
    client.fence(8, 2, TIMEOUT_S, **claim)
    assert catalog.asked[1:] == [bourse_pb2.FenceRequest(epoch=8, leader_id=2, **claim)]
    catalog.answer = lambda: bourse_pb2.FenceResponse(accepted=False, epoch=9, leader_id=3)
    assert client.fence(9, 2, TIMEOUT_S) == FenceAnswer(False, 9, 3)
    catalog.answer = fail(Unavailable("starting"))
    with pytest.raises(Unavailable, match="starting"):
        client.fence(9, 2, TIMEOUT_S)


def test_a_batch_is_for_the_catalog_that_registered_the_epoch(
    client: CatalogClient, catalog: Catalog
) -> None:
    """A refusal does not make another catalog this process's."""
    for accepted, cluster_id in ((True, CLUSTER), (False, OTHER_CLUSTER)):
        answer = bourse_pb2.FenceResponse(accepted=accepted, cluster_id=cluster_id)
        catalog.answer = lambda answer=answer: answer
        client.fence(8, 2, TIMEOUT_S)
    catalog.answer = lambda: bourse_pb2.UpdateBatchResponse(
        results=[Update(status=0)], cluster_id=CLUSTER
    )
    assert update(client, make_trade("a")).cluster_id == CLUSTER
    assert catalog.asked[-1].cluster_id == CLUSTER
    catalog.answer = fail(Contradiction("another cluster"))
    with pytest.raises(Contradiction, match="another cluster"):
        update(client, make_trade("a"))


def test_comparing_tells_whose_catalog_it_is(client: CatalogClient, catalog: Catalog) -> None:
    catalog.answer = lambda: bourse_pb2.CompareResponse(cluster_id=CLUSTER)
    assert client.compare(2, 5, b"digest", "", TIMEOUT_S) == CLUSTER
    assert client.compare(2, 5, b"digest", CLUSTER, TIMEOUT_S) == CLUSTER
    claim = {"replica_id": 2, "last_number": 5, "digest": b"digest"}
    assert catalog.asked == [
        bourse_pb2.CompareRequest(**claim),
        bourse_pb2.CompareRequest(**claim, cluster_id=CLUSTER),
    ]


def test_calls_carry_the_id_of_the_request_they_serve(
    client: CatalogClient, catalog: Catalog
) -> None:
    catalog.answer = bourse_pb2.FenceResponse
    token = logs.request_id.set("the-request")
    try:
        client.fence(1, 1, TIMEOUT_S)
    finally:
        logs.request_id.reset(token)
    assert catalog.metadata["x-request-id"] == "the-request"


# ------------------------------------------------------------ the journal


def chunk(rows: list[Order]) -> bourse_pb2.OrderBatch:
    return bourse_pb2.OrderBatch(rows=[order_to_item(row) for row in rows], cluster_id=CLUSTER)


def serve(catalog: Catalog, rows: list[Order]) -> None:
    """Makes the catalog serve these rows as its journal, two in each message."""

    def answer() -> Iterator[bourse_pb2.OrderBatch]:
        request = catalog.asked[-1]
        wanted = rows[request.last_number :][: request.limit or len(rows)]
        for start in range(0, len(wanted), 2):
            yield chunk(wanted[start : start + 2])

    catalog.answer = answer


def test_the_journal_comes_in_chunks(client: CatalogClient, catalog: Catalog) -> None:
    """A call fetches only one chunk, so no call takes long."""
    rows = make_rows(2_300)
    serve(catalog, rows)
    chunks = list(client.journal(100))
    assert [len(one.orders) for one in chunks] == [1_000, 1_000, 200]
    assert [row for one in chunks for row in one.orders] == rows[100:]
    assert {one.cluster_id for one in chunks} == {CLUSTER}
    assert [(one.last_number, one.limit) for one in catalog.asked] == [
        (100, 1_000),
        (1_100, 1_000),
        (2_100, 1_000),
    ]


def test_a_journal_that_has_no_more(client: CatalogClient, catalog: Catalog) -> None:
    serve(catalog, ROWS)
    assert list(client.journal(5)) == []


@pytest.mark.parametrize("error", [Unavailable("stopping"), Damaged("a page is bad")])
def test_a_journal_that_breaks_off_is_an_error_after_what_came(
    client: CatalogClient, catalog: Catalog, error: BourseError
) -> None:
    """Damage in the catalog is not damage in this replica's log."""
    serve(catalog, make_rows(1_500))
    journal = client.journal(0)
    assert len(next(journal).orders) == 1_000
    catalog.answer = fail(error)
    with pytest.raises(Unavailable, match=error.message):
        next(journal)


def test_each_chunk_has_the_timeout_to_itself(peer: Peer, catalog: Catalog) -> None:
    client = CatalogClient(peer, pull_timeout_s=0.05)
    may_answer = threading.Event()
    catalog.answer = lambda: [may_answer.wait(TIMEOUT_S) and chunk([])]
    with pytest.raises(OutcomeUnknown):
        next(client.journal(0))
    may_answer.set()


# ------------------------------------------------------------ this side is stopping


def test_a_call_on_a_closed_channel_is_unavailable(client: CatalogClient, peer: Peer) -> None:
    peer.close()
    with pytest.raises(Unavailable, match="this side is stopping"):
        update(client, make_trade("a"))
    with pytest.raises(Unavailable, match="this side is stopping"):
        client.fence(1, 1, TIMEOUT_S)


def test_the_journal_on_a_closed_channel_is_unavailable(client: CatalogClient, peer: Peer) -> None:
    peer.close()
    with pytest.raises(Unavailable):
        list(client.journal(0))
