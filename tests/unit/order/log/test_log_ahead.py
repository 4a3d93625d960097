"""The write-ahead log of an order log stays short while others read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.domain import Order
from common.sqlite import LOG_LIMIT_BYTES
from order.log.log import OrderLog
from tests.unit.order.fakes import make_rows

PAGE_BYTES = 4096
ROWS = make_rows(6_000)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[OrderLog]:
    with closing(OrderLog(tmp_path / "orders.db")) as log:
        yield log


def append_each(log: OrderLog, first: int, last: int) -> int:
    """Appends these rows one by one. Returns the longest write-ahead log, in bytes."""
    ahead = log._path.with_name("orders.db-wal")
    longest = 0
    for row in ROWS[first:last]:
        log.append([row])
        longest = max(longest, ahead.stat().st_size)
    return longest


def test_many_small_appends_keep_it_short(log: OrderLog) -> None:
    assert append_each(log, 0, 6_000) < LOG_LIMIT_BYTES < 6_000 * PAGE_BYTES


def test_large_appends_keep_it_short(log: OrderLog) -> None:
    ahead = log._path.with_name("orders.db-wal")
    rows: list[Order] = []
    for _ in range(60):
        rows = make_rows(1_000, after=rows)
        log.append(rows)
        assert ahead.stat().st_size < LOG_LIMIT_BYTES


def test_a_slow_reader_of_a_stream_does_not_hold_it_open(log: OrderLog) -> None:
    log.append(ROWS[:2_000])
    chunks = log.chunks(0)
    next(chunks)
    assert append_each(log, 2_000, 6_000) < LOG_LIMIT_BYTES
    assert sum(len(rows) for rows in chunks) == 5_000


def test_it_is_cut_again_after_a_long_reader(log: OrderLog) -> None:
    """The reader is another process, for example a backup."""
    append_each(log, 0, 10)
    with closing(sqlite3.connect(log._path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM orders").fetchone()
        assert append_each(log, 10, 5_000) > LOG_LIMIT_BYTES
        other.execute("COMMIT")
    append_each(log, 5_000, 5_010)
    assert append_each(log, 5_010, 5_020) <= LOG_LIMIT_BYTES
    assert log.rows(4_999, 30) == ROWS[4_999:5_020]
