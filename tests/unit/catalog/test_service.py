"""The catalog over gRPC: lookups and their leases, updates, and the fence."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import grpc
import pytest

from catalog import refusals
from catalog.leases import Leases
from catalog.sqlite.store import SqliteStore
from catalog.stock import Stock
from catalog.store import MAX_BATCH
from common.domain import LEASE_MS
from proto import bourse_pb2
from tests.support.clock import Clock
from tests.unit.catalog.calls import (
    MAX_STREAMS,
    Client,
    Result,
    assert_refused,
    made_leader,
    open_store,
    serve,
    trade,
)
from tests.unit.catalog.support import NOW_S


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW_S)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    with open_store(tmp_path, clock) as store:
        clock.now_s += LEASE_MS / 1000  # the lease on everything, of a start, has run out
        yield store


@pytest.fixture
def leases(store: SqliteStore) -> Leases:
    return store.leases


@pytest.fixture
def client(store: SqliteStore) -> Iterator[Client]:
    with serve(lambda: store) as client:
        yield client


@pytest.fixture
def leading(client: Client) -> Client:
    return made_leader(client)


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
    leading: Client, leases: Leases, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
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
    leading: Client, leases: Leases, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
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


def test_a_refusal_that_cannot_be_recorded_is_none(
    leading: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_REFUSALS", 0)
    details = assert_refused(
        grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: leading.update(1, "a", 10**9)
    )
    assert details == "no more refusals can be recorded; this trade was not executed"
    results = leading.update_batch(1, trade("a", 10**9), trade("b"), trade("a", 1))
    assert [result.failure for result in results] == [Result.FULL, Result.NONE, Result.NONE]
    assert [result.transaction_number for result in results] == [-1, 1, 2]


def test_a_batch_has_a_bound(leading: Client) -> None:
    trades = [trade(str(number)) for number in range(MAX_BATCH + 1)]
    assert_refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: leading.update_batch(1, *trades))
    assert len(leading.update_batch(1, *trades[1:])) == MAX_BATCH


def batches(*batches: tuple[int, list[str]]) -> Iterator[bourse_pb2.UpdateBatchRequest]:
    """Of an epoch and trades each."""
    for epoch, ids in batches:
        yield bourse_pb2.UpdateBatchRequest(epoch=epoch, trades=[trade(one) for one in ids])


def test_a_stream_answers_each_of_its_batches(leading: Client, store: SqliteStore) -> None:
    answers = list(leading.updates(batches((1, ["a", "b"]), (1, ["b", "c"]))))
    numbers = [[one.transaction_number for one in answer.results] for answer in answers]
    assert numbers == [[1, 2], [2, 3]]
    assert {answer.cluster_id for answer in answers} == {store.cluster_id}


def test_a_stream_ends_with_the_status_of_the_call(leading: Client) -> None:
    answers = leading.updates(batches((1, ["a"]), (9, ["b"]), (1, ["c"])))
    assert len(next(answers).results) == 1
    assert_refused(grpc.StatusCode.ABORTED, lambda: next(answers))
    assert leading.update(1, "d").transaction_number == 2


def test_streams_of_updates_are_bounded(leading: Client) -> None:
    ends = [queue.SimpleQueue[None]() for _ in range(MAX_STREAMS)]
    streams = [leading.updates(chain(batches((1, ["a"])), iter(end.get, None))) for end in ends]
    for stream in streams:
        next(stream)
    refused = leading.updates(batches((1, ["b"])))
    details = assert_refused(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: next(refused))
    assert details == "too many streams of updates at once"
    assert leading.update_batch(1, trade("c"))[0].transaction_number == 2
    for stream, end in zip(streams, ends, strict=True):
        end.put(None)
        assert list(stream) == []
    assert len(list(leading.updates(batches((1, ["b"]))))) == 1


def test_the_log_has_one_line_for_a_batch_and_for_each_trade_only_if_wanted(
    leading: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    leading.update_batch(1, trade("a"), trade("b", 10**9), trade("a"), trade("a", 2), trade("c"))
    leading.update_batch(1, trade("a"))
    told = [
        (record.levelno, record.request_id, record.getMessage())
        for record in caplog.records
        if hasattr(record, "request_id")
    ]
    assert [(ids, message) for level, ids, message in told if level == logging.INFO] == [
        ("a b a a c", "epoch 1, batch of 5: orders 1 to 2, 1 replayed, 1 failed"),
        ("a", "epoch 1, batch of 1: no new order, 1 replayed, 0 failed"),
    ]
    assert [
        (request_id, message.partition(": ")[2])
        for level, request_id, message in told
        if level == logging.DEBUG
    ] == [
        ("a", "order 1"),
        ("b", "refused with 0"),
        ("a", "order 1, as before"),
        ("a", "not decided (mismatch)"),
        ("c", "order 2"),
        ("a", "order 1, as before"),
    ]


# -------------------------------------------------------------------- fence


def test_fence(client: Client) -> None:
    refused = client.fence(2, 3)
    assert (refused.accepted, refused.epoch, refused.leader_id) == (False, 0, 0)
    accepted = client.fence(1, 3)
    assert (accepted.accepted, accepted.epoch, accepted.leader_id) == (True, 1, 3)
    repeated = client.fence(1, 3)
    assert (repeated.accepted, repeated.epoch, repeated.leader_id) == (False, 1, 3)
