"""The catalog's write-ahead log stays short, though readers never rest."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from catalog.sqlite import database as database_module
from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from tests.unit.catalog.support import NOW_S, buy, store_on, volume, write_stocks

LIMIT_BYTES = 200_000
READERS = 3


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteStore]:
    monkeypatch.setattr(database_module, "_LOG_LIMIT_BYTES", LIMIT_BYTES)
    with closing(Database(tmp_path / "data", write_stocks(tmp_path))) as database:
        store = store_on(database, lambda: NOW_S)
        store.fence(1, 2)
        yield store


def log_size(tmp_path: Path) -> int:
    return (tmp_path / "data" / "catalog.db-wal").stat().st_size


@contextmanager
def restless_readers(path: Path) -> Iterator[None]:
    """At any moment one of them reads: each begins before the one before it ends."""
    is_over = threading.Event()
    baton = [threading.Event() for _ in range(READERS)]

    def read(index: int) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            while not is_over.is_set():
                if not baton[index].wait(0.5):
                    continue
                baton[index].clear()
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM journal").fetchall()
                baton[(index + 1) % READERS].set()
                is_over.wait(0.003)
                connection.execute("COMMIT")

    threads = [threading.Thread(target=read, args=(index,)) for index in range(READERS)]
    for thread in threads:
        thread.start()
    baton[0].set()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_readers_that_never_rest_do_not_make_it_grow(tmp_path: Path, store: SqliteStore) -> None:
    sizes = []
    with restless_readers(tmp_path / "data" / "catalog.db"):
        for number in range(400):
            store.update(1, [buy(f"{number}", 1, "stock10")])
            sizes.append(log_size(tmp_path))
    assert max(sizes) < 8 * LIMIT_BYTES  # of 24 that are written
    assert sum(later < earlier for earlier, later in pairwise(sizes)) > 1
    assert volume(store, "stock10") == 9007199254740981 - 400


def test_a_reader_that_stays_is_waited_for_seldom(
    tmp_path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is told all the same."""
    tries = []
    truncate = database_module._truncate_log
    monkeypatch.setattr(
        database_module,
        "_truncate_log",
        lambda connection: tries.append(log_size(tmp_path)) or truncate(connection),
    )
    with closing(sqlite3.connect(tmp_path / "data" / "catalog.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM journal").fetchall()
        for number in range(100):
            assert store.update(1, [buy(f"{number}", 1, "stock10")])[0].number == number + 1
        grown = log_size(tmp_path)
    assert grown > 3 * LIMIT_BYTES
    assert 1 <= len(tries) <= grown // LIMIT_BYTES
    for number in range(20):
        store.update(1, [buy(f"later-{number}", 1, "stock10")])
    assert log_size(tmp_path) <= LIMIT_BYTES < grown  # it was begun anew, and cut
