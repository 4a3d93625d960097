"""The catalog over gRPC, in this process, on a free port."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from catalog import schema
from catalog.database import Database
from catalog.leases import Leases
from catalog.service import CatalogService
from catalog.settings import CatalogSettings
from catalog.stock import Stock
from catalog.store import MAX_BATCH, MAX_CHUNK, CatalogStore
from common.records import LEASE_MS
from common.rpc import RpcServer, open_channel
from proto import bourse_pb2, bourse_pb2_grpc
from tests.unit.catalog_support import Clock

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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CatalogStore]:
    with closing(Database(tmp_path, CatalogSettings().stocks_file)) as database:
        yield CatalogStore(database, lambda: 0.0)


@pytest.fixture
def leases(clock: Clock) -> Leases:
    leases = Leases(clock)
    clock.now_s += LEASE_MS / 1000  # the lease on everything, of a start, has run out
    return leases


@pytest.fixture
def client(store: CatalogStore, leases: Leases) -> Iterator[Client]:
    server = RpcServer("127.0.0.1:0", threads=8, queue_limit=8)
    service = CatalogService(store, leases, MAX_STREAMS)
    bourse_pb2_grpc.add_CatalogServiceServicer_to_server(service, server.grpc_server)
    port = server.start(["bourse.v1.CatalogService"])
    try:
        with open_channel(f"127.0.0.1:{port}") as channel:
            yield Client(channel)
    finally:
        server.stop(grace_s=1)


@pytest.fixture
def leading(client: Client) -> Client:
    assert client.fence(1, 3).accepted
    return client


# ------------------------------------------------------------------- lookup


def test_lookup(client: Client) -> None:
    answer = client.lookup("stock1")
    assert (answer.name, answer.price, answer.version) == ("stock1", 25.78, 0)
    assert answer.volume >= 100


@pytest.mark.parametrize("name", ["nosuch", "", "n" * 100_000, "a\nb"])
def test_lookup_of_what_is_not_there(client: Client, name: str) -> None:
    answer = client.lookup(name, will_fill=True)
    assert (answer.name, answer.price, answer.volume, answer.version) == (name, -1, -1, 0)


def test_stocks_come_in_the_order_of_the_file(client: Client) -> None:
    stocks = client.stocks()
    assert [stock.name for stock in stocks] == [f"stock{number}" for number in range(1, 11)]
    assert (stocks[0].price, stocks[0].version) == (25.78, 0)


# ------------------------------------------------------------------- leases


def test_only_a_lookup_that_will_fill_takes_a_lease(leading: Client, clock: Clock) -> None:
    leading.lookup("stock1")
    assert leading.update(1, "a").lease_ms == 0
    leading.lookup("stock1", will_fill=True)
    clock.now_s += 1.5
    assert leading.update(1, "b").lease_ms == LEASE_MS - 1_500
    assert leading.update(1, "c", name="stock2").lease_ms == 0


def test_every_decision_tells_what_is_left_of_the_lease(leading: Client) -> None:
    leading.update(1, "a")
    leading.lookup("stock1", will_fill=True)
    results = leading.update_batch(
        1, trade("a"), trade("b", 10**9), trade("b", 5), trade("c", 0), trade("d", name="stock2")
    )
    assert [result.status for result in results] == [1, 0, -1, -1, 1]
    assert [result.lease_ms for result in results] == [LEASE_MS] * 4 + [0]


def test_the_lease_is_noted_before_the_value_is_read(
    leading: Client, leases: Leases, store: CatalogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = store.lookup
    at_reading = []

    def observed(name: str) -> Stock | None:
        at_reading.append(leases.remaining_ms(name))
        return lookup(name)

    monkeypatch.setattr(store, "lookup", observed)
    leading.lookup("stock1", will_fill=True)
    assert at_reading == [LEASE_MS]


def test_the_lease_is_looked_up_after_the_commit(
    leading: Client, leases: Leases, store: CatalogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = store.update

    def while_someone_reads(*arguments: object) -> object:
        decisions = update(*arguments)  # type: ignore[arg-type]
        leases.grant("stock1")  # someone who read just before the commit
        return decisions

    monkeypatch.setattr(store, "update", while_someone_reads)
    assert leading.update(1, "a").lease_ms == LEASE_MS


def test_a_name_that_can_be_no_stock_takes_no_lease(client: Client, leases: Leases) -> None:
    client.lookup("n" * 100_000, will_fill=True)
    assert leases.remaining_ms("n" * 100_000) == 0


# ------------------------------------------------------------------- update


def test_update_answers_with_the_row(leading: Client) -> None:
    before = leading.lookup("stock1").volume
    first = leading.update(1, "a", 3)
    assert (first.status, first.transaction_number, first.replayed) == (1, 1, False)
    row = first.row
    assert (row.number, row.request_id, row.name, row.type) == (1, "a", "stock1", bourse_pb2.BUY)
    assert (row.quantity, row.version, row.epoch, len(row.digest)) == (3, 1, 1, 32)
    again = leading.update(1, "a", 3)
    assert (again.status, again.transaction_number, again.replayed) == (1, 1, True)
    assert again.row == row
    sold = leading.update(1, "b", 5, type=bourse_pb2.SELL)
    assert sold.row.type == bourse_pb2.SELL
    assert leading.lookup("stock1").volume == before + 2
    assert leading.lookup("stock1").version == 2


def test_update_answers_refusals_as_a_status(leading: Client) -> None:
    refused = leading.update(1, "a", 10**9)
    assert (refused.status, refused.transaction_number) == (0, -1)
    assert not refused.HasField("row")
    assert leading.update(1, "a", 10**9).replayed
    assert leading.update(1, "b", name="nosuch").status == -1
    assert leading.update(1, "c", type=7).status == -1
    assert leading.update(1, "").status == -1
    assert leading.update(1, "d", -(2**63)).status == -1


def test_update_answers_errors_by_the_table(
    leading: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    leading.update(1, "a", 3)
    assert_refused(grpc.StatusCode.ALREADY_EXISTS, lambda: leading.update(1, "a", 4))
    details = assert_refused(grpc.StatusCode.ABORTED, lambda: leading.update(2, "b"))
    assert details == "epoch 2 is refused: registered is epoch 1 of leader 3"

    def broken(*_: object) -> int:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Stock, "trade", broken)
    details = assert_refused(grpc.StatusCode.INTERNAL, lambda: leading.update(1, "c"))
    assert details == "internal error"


def test_a_batch_has_a_result_for_each_trade(
    leading: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Stock.trade

    def poisoned(self: Stock, quantity: int, trade_type: str) -> int:
        return 1 // 0 if quantity == 13 else sound(self, quantity, trade_type)

    monkeypatch.setattr(Stock, "trade", poisoned)
    results = leading.update_batch(
        1, trade("a"), trade("a"), trade("a", 2), trade("b", 13), trade("c", 10**9), trade("d")
    )
    assert [result.transaction_number for result in results] == [1, 1, -1, -1, -1, 2]
    assert [result.replayed for result in results] == [False, True, False, False, False, False]
    none, mismatch, internal = Result.NONE, Result.MISMATCH, Result.INTERNAL
    assert [result.failure for result in results] == [none, none, mismatch, internal, none, none]
    assert [result.HasField("row") for result in results] == [True, True, False, False, False, True]


def test_a_batch_has_a_bound(leading: Client) -> None:
    trades = [trade(str(number)) for number in range(MAX_BATCH + 1)]
    assert_refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: leading.update_batch(1, *trades))
    assert len(leading.update_batch(1, *trades[1:])) == MAX_BATCH


def test_the_log_has_a_line_for_a_batch_and_one_for_each_trade(
    leading: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    leading.update_batch(1, trade("a"), trade("b", 10**9), trade("a"), trade("a", 2), trade("c"))
    leading.update_batch(1, trade("a"))
    lines = [record.getMessage() for record in caplog.records if "batch" in record.getMessage()]
    assert lines == [
        "epoch 1, batch of 5: orders 1 to 2, 1 replayed, 1 failed",
        "epoch 1, batch of 1: no new order, 1 replayed, 0 failed",
    ]
    told = [
        (record.request_id, record.getMessage())
        for record in caplog.records
        if hasattr(record, "request_id")
    ]
    assert [request_id for request_id, _ in told] == ["a", "b", "a", "a", "c", "a"]
    assert [message.partition(": ")[2] for _, message in told] == [
        "order 1",
        "refused with 0",
        "order 1, as before",
        "not decided (mismatch)",
        "order 2",
        "order 1, as before",
    ]


# -------------------------------------------------------------------- fence


def test_fence(client: Client) -> None:
    refused = client.fence(2, 3)
    assert (refused.accepted, refused.epoch, refused.leader_id) == (False, 0, 0)
    accepted = client.fence(1, 3)
    assert (accepted.accepted, accepted.epoch, accepted.leader_id) == (True, 1, 3)
    repeated = client.fence(1, 3)
    assert (repeated.accepted, repeated.epoch, repeated.leader_id) == (False, 1, 3)


# ------------------------------------------------------------------ journal


@pytest.fixture
def rows(leading: Client) -> int:
    """A journal of three chunks, the last one not full."""
    count = 2 * MAX_CHUNK + 10
    trades = [
        bourse_pb2.TradeRequest(request_id=str(n), name="stock1", type=bourse_pb2.SELL, quantity=1)
        for n in range(count)
    ]
    for start in range(0, count, MAX_BATCH):
        leading.update_batch(1, *trades[start : start + MAX_BATCH])
    return count


def test_the_journal_comes_in_chunks_to_its_end(leading: Client, rows: int) -> None:
    chunks = list(leading.journal())
    assert [len(chunk.rows) for chunk in chunks] == [MAX_CHUNK, MAX_CHUNK, 10]
    assert numbers(iter(chunks)) == list(range(1, rows + 1))


@pytest.mark.parametrize(
    ("last_number", "limit", "expected"),
    [
        (2_000, 0, range(2_001, 2_011)),
        (2_010, 0, range(0)),
        (5_000, 1, range(0)),
        (2**63 - 1, 0, range(0)),
        (1_499, 1, range(1_500, 1_501)),
        (0, MAX_CHUNK, range(1, 1_001)),
        (500, 1_200, range(501, 1_701)),
        (0, 2**63 - 1, range(1, 2_011)),
    ],
)
@pytest.mark.usefixtures("rows")
def test_the_journal_from_a_number_up_to_a_limit(
    leading: Client, last_number: int, limit: int, expected: range
) -> None:
    assert numbers(leading.journal(last_number, limit)) == list(expected)


@pytest.mark.parametrize(("last_number", "limit"), [(-1, 0), (0, -1)])
def test_the_journal_has_no_negative_numbers(client: Client, last_number: int, limit: int) -> None:
    assert_refused(
        grpc.StatusCode.INVALID_ARGUMENT, lambda: list(client.journal(last_number, limit))
    )


def wait_until_streamable(client: Client) -> None:
    """Polls until a stream is served again; the last refusal shows if none is."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            assert numbers(client.journal())
        except grpc.RpcError:
            if time.monotonic() > deadline_s:
                raise
        else:
            return


@pytest.mark.usefixtures("rows")
def test_streams_have_a_bound_below_the_thread_pool(
    leading: Client, store: CatalogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = store.journal
    go_on = threading.Event()

    def stalled(after: int, limit: int) -> object:
        if after == MAX_CHUNK:
            go_on.wait(TIMEOUT_S)
        return journal(after, limit)

    monkeypatch.setattr(store, "journal", stalled)
    streams = [leading.journal() for _ in range(MAX_STREAMS)]
    for stream in streams:
        assert len(next(stream).rows) == MAX_CHUNK
    details = assert_refused(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: next(leading.journal()))
    assert details == "too many journal streams at once"
    assert numbers(leading.journal(6, limit=1)) == [7]  # an order lookup is no long stream
    assert leading.update(1, "meanwhile").status == 1
    assert leading.lookup("stock1").version > 0
    streams[0].cancel()
    go_on.set()
    assert len(numbers(streams[1])) == MAX_CHUNK + 11
    wait_until_streamable(leading)


@pytest.mark.usefixtures("rows")
def test_a_stream_that_fails_gives_its_slot_back(
    leading: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(schema, "orders_above", broken)
        for _ in range(MAX_STREAMS + 1):
            assert_refused(grpc.StatusCode.INTERNAL, lambda: next(leading.journal()))
    wait_until_streamable(leading)
