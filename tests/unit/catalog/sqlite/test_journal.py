"""The catalog's journal over gRPC: its rows in chunks, and how many may read it at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from catalog.sqlite import schema
from catalog.sqlite.store import SqliteStore
from catalog.store import MAX_BATCH, MAX_CHUNK
from proto import bourse_pb2
from tests.unit.catalog.calls import (
    MAX_STREAMS,
    TIMEOUT_S,
    Client,
    assert_refused,
    made_leader,
    numbers,
    open_store,
    serve,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with open_store(tmp_path) as store:
        yield store


@pytest.fixture
def client(store: SqliteStore) -> Iterator[Client]:
    with serve(lambda: store) as client:
        yield client


@pytest.fixture
def leading(client: Client) -> Client:
    return made_leader(client)


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
    leading: Client, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
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
