"""What the tests of damage, migration and restoring share: catalogs with trades, their files."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from catalog.sqlite.database import Database
from catalog.stock import Stock
from common.domain import Order, Trade
from order.log.log import OrderLog
from tests.unit.catalog.support import NOW_S, store_on, write_stocks

Content = tuple[list[Stock], list[Order], tuple[int, int]]
STOCKS = ("stock1", "stock2", "stock10")


def trades(count: int, seed: int = 1) -> list[Trade]:
    """Some of them must be refused."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return [
        Trade(
            f"{seed}-{chance.getrandbits(64):x}",
            chance.choice(STOCKS),
            chance.choice(("BUY", "SELL")),
            chance.randrange(1, 30),
        )
        for _ in range(count)
    ]


def write_catalog(directory: Path, count: int = 300, seed: int = 1) -> Path:
    """A catalog that was stopped after some trades; its directory."""
    directory.mkdir(parents=True)
    stocks_file = write_stocks(directory.parent)
    with closing(Database(directory, stocks_file)) as database:
        store = store_on(database, lambda: NOW_S)
        store.fence(1, 2)
        store.fence(2, 3)
        store.update(2, trades(count, seed))
    return directory


def write_log(directory: Path, name: str, orders: Sequence[Order], cluster_id: str = "") -> Path:
    path = directory / name / "orders.db"
    path.parent.mkdir()
    with closing(OrderLog(path)) as log:
        if orders:
            log.append(orders, cluster_id)
    return path


def content(directory: Path) -> Content:
    """Stocks, journal and fence, as a catalog serves them after a start."""
    with closing(Database(directory, directory.parent / "stocks.txt")) as database:
        store = store_on(database, lambda: NOW_S)
        stocks, journal, registered = store.stocks(), store.journal(0), store.registered()
        for stock in stocks:
            assert store.lookup(stock.name) == stock
        repeats = [Trade(one.request_id, one.name, one.type, one.quantity) for one in journal]
        store.fence(registered.epoch + 1, 1)
        decisions = store.update(registered.epoch + 1, repeats)
        assert [decision.number for decision in decisions] == [one.number for one in journal]
    return stocks, journal, tuple(registered)


def change(database: Path, statements: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript(statements)


def bytes_of(directory: Path) -> dict[str, bytes]:
    """Of every file that holds data: all but SQLite's index of the write-ahead log."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if not path.name.endswith("-shm") and path.stat().st_size > 0
    }
