"""What the tests of the catalog share: a clock to set, small stocks, short names for trades."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from catalog.decisions import Decision
from catalog.leases import Leases
from catalog.sqlite import schema
from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from catalog.store import Store
from common.domain import Trade

NOW_S = 1_700_000_000.0


def write_stocks(directory: Path) -> Path:
    path = directory / "stocks.txt"
    path.write_text(
        "stockname,price,currvol\nstock1,25.78,100\nstock2,0.10,50\nstock10,1.00,9007199254740981\n"
    )
    return path


def store_on(
    database: Database, clock: Callable[[], float], leases: Leases | None = None
) -> SqliteStore:
    return SqliteStore(database, clock, leases or Leases(clock))


def buy(request_id: str, quantity: int = 1, name: str = "stock1") -> Trade:
    return Trade(request_id, name, "BUY", quantity)


def sell(request_id: str, quantity: int = 1, name: str = "stock1") -> Trade:
    return Trade(request_id, name, "SELL", quantity)


def decide(store: Store, trade: Trade, epoch: int = 1) -> Decision:
    (decision,) = store.update(epoch, [trade])
    return decision


def volume(store: Store, name: str = "stock1") -> int:
    stock = store.lookup(name)
    assert stock is not None
    return stock.volume


def disk_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


def full_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


def refusals_kept(database: Database) -> int:
    with database.reading() as connection:
        ((count,),) = schema.rows(connection, "SELECT count(*) FROM refusals")
    return int(count)
