"""What the catalog does when its storage, or a trade, fails it."""

from __future__ import annotations

import logging
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from catalog.decisions import Decision, Failure
from catalog.sqlite import database as database_module
from catalog.sqlite import schema
from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from catalog.stock import DONE, INVALID, NOT_PERMITTED, Stock
from common.domain import EMPTY_DIGEST, Order, next_digest
from common.errors import Busy, Damaged, StaleEpoch, Unavailable
from tests.unit.catalog.support import NOW_S, buy, disk_error, full_error, store_on, volume


class Faulty(sqlite3.Connection):
    """A connection whose statements can be made to fail, before or after their work."""

    before: dict[str, Exception]
    after: dict[str, Exception]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        verb = sql.strip().partition(" ")[0]
        if error := getattr(self, "before", {}).pop(verb, None):
            raise error
        cursor = super().execute(sql, parameters)
        if error := getattr(self, "after", {}).pop(verb, None):
            raise error
        return cursor


@pytest.fixture
def database(data: Path, stocks_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Faulty))
    with closing(Database(data, stocks_file)) as database:
        yield database


@contextmanager
def writer_of(database: Database) -> Iterator[Faulty]:
    with database.writing() as connection:
        assert isinstance(connection, Faulty)
        yield connection


def fail(database: Database, when: str, **errors: Exception) -> None:
    """The writer's next such statements fail, before or after their work."""
    with writer_of(database) as connection:
        setattr(connection, when, errors)


def assert_nothing_happened_and_all_works(store: SqliteStore) -> None:
    assert (volume(store), volume(store, "stock2")) == (100, 50)
    assert store.journal(0) == []
    decisions = store.update(1, [buy("a"), buy("b", 101), buy("c")])
    assert [decision.status for decision in decisions] == [DONE, NOT_PERMITTED, DONE]
    assert [decision.number for decision in decisions] == [1, -1, 2]
    assert not any(decision.replayed for decision in decisions)
    digest = EMPTY_DIGEST
    for order in store.journal(0):
        digest = next_digest(digest, order)
        assert order.digest == digest


# ------------------------------------------------------------ failing disk


def test_a_full_database_leaves_nothing_half_done(store: SqliteStore, database: Database) -> None:
    with writer_of(database) as connection:
        ((pages,),) = schema.rows(connection, "PRAGMA page_count")
        connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [buy(f"{number:0>200}", 1, f"stock{number % 2 + 1}") for number in range(100)]
    with pytest.raises(Unavailable, match="storage failure: database or disk is full"):
        store.update(1, many)
    with writer_of(database) as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert_nothing_happened_and_all_works(store)


def test_a_commit_that_the_disk_refuses_is_not_done(store: SqliteStore, data: Path) -> None:
    log_size = (data / "catalog.db-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log_size, hard))  # as if no block were left
    try:
        with pytest.raises(Unavailable, match="storage failure"):
            store.update(1, [buy("a"), buy("c")])
        with pytest.raises(Unavailable, match="storage failure"):
            store.fence(2, 3)
        assert volume(store) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.registered() == (1, 2)
    assert_nothing_happened_and_all_works(store)


@pytest.mark.parametrize("verb", ["BEGIN", "UPDATE", "INSERT", "COMMIT"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failing_statement_is_unavailable(
    store: SqliteStore, database: Database, verb: str, when: str
) -> None:
    fail(database, when, **{verb: disk_error()})
    trades = [buy("a"), buy("b", 101), buy("c")]
    with pytest.raises(Unavailable, match="storage failure: disk I/O error"):
        store.update(1, trades)
    if (verb, when) == ("COMMIT", "after"):  # it did reach the disk: the repeat is told so
        assert [decision.replayed for decision in store.update(1, trades)] == [True] * 3
        assert [order.number for order in store.journal(0)] == [1, 2]
    else:
        assert_nothing_happened_and_all_works(store)


def test_a_transaction_that_cannot_be_rolled_back_does_not_leak_into_the_next(
    store: SqliteStore, database: Database
) -> None:
    broken = disk_error()
    fail(database, "before", COMMIT=broken, ROLLBACK=broken)
    with pytest.raises(Unavailable):
        store.update(1, [buy("lost", 50)])
    assert_nothing_happened_and_all_works(store)


def test_a_fence_that_was_not_committed_is_not_registered(
    store: SqliteStore, database: Database
) -> None:
    fail(database, "before", COMMIT=disk_error())
    with pytest.raises(Unavailable):
        store.fence(2, 3)
    assert store.registered() == (1, 2)
    assert store.fence(2, 1) == (True, (2, 1))


def test_another_writer_in_the_way_is_unavailable(
    store: SqliteStore, data: Path, database: Database
) -> None:
    with writer_of(database) as connection:
        connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(data / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="database is locked"):
            store.update(1, [buy("a")])
    assert_nothing_happened_and_all_works(store)


def test_a_damaged_database_is_told_as_such(store: SqliteStore, database: Database) -> None:
    malformed = sqlite3.DatabaseError("database disk image is malformed")
    fail(database, "before", UPDATE=malformed)
    with pytest.raises(Damaged, match="malformed"):
        store.update(1, [buy("a")])
    assert_nothing_happened_and_all_works(store)


def test_pages_that_go_bad_while_it_serves_are_damage(data: Path, stocks_file: Path) -> None:
    with closing(Database(data, stocks_file)) as database:
        page = 4096
        content = (data / "catalog.db").read_bytes()
        (data / "catalog.db").write_bytes(content[:page] + b"\xff" * (len(content) - page))
        store = store_on(database, lambda: NOW_S)
        with pytest.raises(Damaged):
            store.stocks()
        with pytest.raises(Damaged):
            store.update(1, [buy("a")])


def test_decisions_are_told_though_the_purge_after_them_fails(
    store: SqliteStore, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    fail(database, "before", DELETE=disk_error())
    assert store.update(1, [buy("a")])[0].number == 1
    assert "cannot delete old refusals" in caplog.text
    assert store.update(1, [buy("b")])[0].number == 2


def test_a_stalled_writer_does_not_hold_up_callers_for_ever(
    store: SqliteStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_TURN_WAIT_S", 0.01)
    with database.writing():
        with pytest.raises(Busy):
            store.update(1, [buy("a")])
        with pytest.raises(Busy):
            store.fence(2, 3)
        assert volume(store) == 100
    assert_nothing_happened_and_all_works(store)


def test_more_readers_than_connections_take_turns(
    tmp_path: Path, stocks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Database(tmp_path / "data", stocks_file, readers=1)) as database:
        store = store_on(database, lambda: NOW_S)
        with database.reading():
            waiting = threading.Thread(target=store.stocks)
            waiting.start()
            monkeypatch.setattr(database_module, "_TURN_WAIT_S", 0.01)
            with pytest.raises(Busy):
                store.stocks()
        waiting.join(timeout=5)
        assert not waiting.is_alive()
        assert len(store.stocks()) == 3


# --------------------------------------------------------- a poisoned trade


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every trade of quantity 13 fail unexpectedly."""
    trade = Stock.trade

    def poisoned(self: Stock, quantity: int, trade_type: str) -> int:
        if quantity == 13:
            raise ZeroDivisionError("poison")
        return trade(self, quantity, trade_type)

    monkeypatch.setattr(Stock, "trade", poisoned)


@pytest.mark.usefixtures("poison")
def test_a_poisoned_trade_is_isolated(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    store.update(1, [buy("earlier")])
    batch = [buy("a"), buy("bad", 13), buy("b", 101), buy("c", 2), buy("a"), buy("earlier", 9)]
    decisions = store.update(1, batch)
    assert [decision.number for decision in decisions] == [2, -1, -1, 3, 2, -1]
    assert decisions[1] == Decision(INVALID, failure=Failure.INTERNAL)
    assert decisions[2] == Decision(NOT_PERMITTED)
    assert decisions[4].replayed
    assert decisions[5].failure is Failure.MISMATCH
    assert volume(store) == 96
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "Trade(request_id='bad'" in errors[-1].getMessage()
    assert errors[-1].exc_info is not None


@pytest.mark.usefixtures("poison")
def test_a_batch_sent_again_with_its_poison_gets_the_same_decisions(store: SqliteStore) -> None:
    batch = [buy("a"), buy("bad", 13), buy("b", 101)]
    first = store.update(1, batch)
    again = store.update(1, batch)
    assert [one.status for one in again] == [one.status for one in first]
    assert [one.order for one in again] == [one.order for one in first]
    assert [one.replayed for one in again] == [True, False, True]


@pytest.mark.usefixtures("poison")
def test_nothing_of_a_poisoned_trade_is_kept(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_healthy = [buy("bad", 13)]
    assert store.update(1, once_healthy)[0].failure is Failure.INTERNAL
    monkeypatch.undo()
    (decision,) = store.update(1, once_healthy)
    assert (decision.number, decision.replayed) == (1, False)
    assert volume(store) == 87


@pytest.mark.usefixtures("poison")
def test_the_poisoned_batch_of_a_stale_leader_is_refused(store: SqliteStore) -> None:
    with pytest.raises(StaleEpoch):
        store.update(2, [buy("a"), buy("bad", 13)])
    assert store.journal(0) == []


@pytest.mark.usefixtures("poison")
def test_a_disk_that_fails_while_isolating_leaves_whole_trades(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert_order = schema.insert_order

    def full_at_c(connection: sqlite3.Connection, order: Order) -> None:
        insert_order(connection, order)
        if order.request_id == "c":
            raise full_error()

    batch = [buy("a"), buy("bad", 13), buy("b"), buy("c")]
    monkeypatch.setattr(schema, "insert_order", full_at_c)
    with pytest.raises(Unavailable):
        store.update(1, batch)
    assert volume(store) == 100 - len(store.journal(0)) == 98
    monkeypatch.setattr(schema, "insert_order", insert_order)
    assert [one.number for one in store.update(1, batch)] == [1, -1, 2, 3]


def test_a_broken_constraint_is_a_defect_and_isolated(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    trade = Stock.trade

    def generous(self: Stock, quantity: int, trade_type: str) -> int:
        status = trade(self, quantity, trade_type)
        if status == NOT_PERMITTED:
            self.volume -= quantity
            return DONE
        return status

    monkeypatch.setattr(Stock, "trade", generous)
    decisions = store.update(1, [buy("a"), buy("b", 100), buy("c")])
    assert [one.failure for one in decisions] == [Failure.NONE, Failure.INTERNAL, Failure.NONE]
    assert volume(store) == 98
