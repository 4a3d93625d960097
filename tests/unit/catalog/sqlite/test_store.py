"""The store on SQLite: readers beside the writer, and a directory that is opened again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from catalog.sqlite.transactions import transaction
from tests.support.clock import Clock
from tests.unit.catalog.support import store_on, volume


def test_readers_neither_wait_for_the_writer_nor_see_what_is_not_committed(
    store: SqliteStore, database: Database
) -> None:
    with database.writing() as connection:
        with transaction(connection):
            connection.execute("UPDATE stocks SET volume = 1, version = 9")
            assert volume(store) == 100
            assert store.journal(0) == []
            assert store.registered() == (1, 2)
        assert volume(store) == 1


def test_a_later_start_keeps_what_the_volume_holds(
    data: Path, stocks_file: Path, clock: Clock
) -> None:
    with closing(Database(data, stocks_file)) as database:
        store_on(database, clock).fence(1, 2)
    stocks_file.write_text("no stocks at all")
    with closing(Database(data, stocks_file)) as database:
        store = store_on(database, clock)
        assert store.registered() == (1, 2)
        assert volume(store) == 100
