"""Opening, closing, and what a killed process leaves behind."""

from __future__ import annotations

import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from catalog.sqlite import database as database_module
from catalog.sqlite import schema
from catalog.sqlite.database import Database
from catalog.sqlite.files import CannotOpen
from catalog.sqlite.store import SqliteStore
from catalog.sqlite.transactions import transaction
from catalog.stock import Stock
from catalog.stock_file import MalformedStockFile
from common.errors import Busy, Unavailable
from tests.unit.catalog.support import NOW_S, buy, full_error, store_on, volume


def copy_as_after_a_kill(data: Path, to: Path) -> Path:
    """The files as a process leaves them that had no time to close anything."""
    return Path(shutil.copytree(data, to))


def test_what_was_answered_is_there_after_a_kill(
    store: SqliteStore, data: Path, tmp_path: Path, stocks_file: Path
) -> None:
    done, _ = store.update(1, [buy("a", 30), buy("b", 71)])
    copy = copy_as_after_a_kill(data, tmp_path / "copy")
    with closing(Database(copy, stocks_file)) as database:
        again = store_on(database, lambda: NOW_S)
        assert again.registered() == (1, 2)
        assert again.journal(0) == [done.order]
        assert volume(again) == 70
        assert [one.replayed for one in again.update(1, [buy("a", 30), buy("b", 71)])] == [True] * 2


def test_what_was_not_committed_is_gone_after_a_kill(
    database: Database, data: Path, tmp_path: Path, stocks_file: Path
) -> None:
    with database.writing() as connection, transaction(connection):
        connection.execute("UPDATE stocks SET volume = 0")
        copy = copy_as_after_a_kill(data, tmp_path / "copy")
    with closing(Database(copy, stocks_file)) as reopened:
        assert volume(store_on(reopened, lambda: NOW_S)) == 100


def test_closing_leaves_one_whole_file(data: Path, stocks_file: Path) -> None:
    with closing(Database(data, stocks_file)) as database:
        store = store_on(database, lambda: NOW_S)
        store.fence(1, 2)
        store.update(1, [buy("a")])
    assert not list(data.glob("*-wal"))
    with closing(sqlite3.connect(data / "catalog.db")) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone() == (1,)


def test_a_closed_database_serves_nobody(
    data: Path, stocks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_TURN_WAIT_S", 0.01)
    database = Database(data, stocks_file)
    store = store_on(database, lambda: NOW_S)
    database.close()
    with pytest.raises(Unavailable, match="stopping"):
        store.update(1, [buy("a")])
    with pytest.raises(Busy):
        store.lookup("stock1")


def test_a_second_catalog_on_the_same_directory_is_refused(
    database: Database, data: Path, stocks_file: Path
) -> None:
    with pytest.raises(CannotOpen, match="another catalog has it open"):
        Database(data, stocks_file)
    assert len(store_on(database, lambda: NOW_S).stocks()) == 3


@pytest.mark.parametrize("version", [0, 4, -1])
def test_another_schema_is_refused(data: Path, stocks_file: Path, version: int) -> None:
    Database(data, stocks_file).close()
    with closing(sqlite3.connect(data / "catalog.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(
        CannotOpen, match=rf"catalog\.db: schema version {version}, but .* 1 to 3 only"
    ):
        Database(data, stocks_file)


def test_a_file_that_is_no_database_is_refused(data: Path, stocks_file: Path) -> None:
    data.mkdir()
    (data / "catalog.db").write_text("something else altogether" * 100)
    with pytest.raises(CannotOpen, match=r"catalog\.db is damaged: file is not a database"):
        Database(data, stocks_file)


def test_an_sqlite_too_old_is_not_taken_for_damage(
    data: Path, stocks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database(data, stocks_file).close()
    before = (data / "catalog.db").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
        with pytest.raises(CannotOpen, match=r"SQLite .* is too old: 3\.37\.0") as refused:
            Database(data, stocks_file)
    assert "damaged" not in str(refused.value)
    assert (data / "catalog.db").read_bytes() == before
    Database(data, stocks_file).close()


def test_a_directory_that_cannot_be_made_is_refused(stocks_file: Path) -> None:
    with pytest.raises(CannotOpen, match="Not a directory"):
        Database(stocks_file / "data", stocks_file)


def test_a_wrong_stocks_file_fills_nothing(data: Path, stocks_file: Path) -> None:
    good = stocks_file.read_text()
    stocks_file.write_text(good + "stock4,abc,1\n")
    with pytest.raises(MalformedStockFile, match="line 5: price 'abc' is not a number"):
        Database(data, stocks_file)
    stocks_file.write_text(good)
    with closing(Database(data, stocks_file)) as database:
        assert len(store_on(database, lambda: NOW_S).stocks()) == 3


def test_a_first_start_that_fails_half_way_is_begun_again(
    data: Path, stocks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = schema._insert_stock

    def full_at_stock2(connection: sqlite3.Connection, stock: Stock, initial: int) -> None:
        insert(connection, stock, initial)
        if stock.name == "stock2":
            raise full_error()

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_insert_stock", full_at_stock2)
        with pytest.raises(CannotOpen, match="full"):
            Database(data, stocks_file)
    assert not (data / "catalog.db").exists()
    with closing(Database(data, stocks_file)) as database:
        assert len(store_on(database, lambda: NOW_S).stocks()) == 3


def test_a_commit_is_on_disk_before_it_is_told(database: Database) -> None:
    full = 2
    with database.writing() as connection:
        assert schema.rows(connection, "PRAGMA synchronous") == [(full,)]
        assert schema.rows(connection, "PRAGMA journal_mode") == [("wal",)]


def test_its_cluster_gets_an_id_when_it_is_made_and_keeps_it(
    tmp_path: Path, data: Path, stocks_file: Path
) -> None:
    ids = []
    for directory in (data, data, tmp_path / "another"):
        with closing(Database(directory, stocks_file)) as database:
            ids.append(database.cluster_id)
    assert ids[0] == ids[1] != ids[2]
    assert all(str(uuid.UUID(cluster_id)) == cluster_id for cluster_id in ids)
