"""The tables, and how their rows become objects."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from catalog.stock import Stock
from catalog.stock_file import read_stocks
from catalog.transactions import transaction
from common.records import EMPTY_DIGEST, Order

VERSION = 1

# The CHECKs state what must always hold. The code never relies on one of them failing.
# The columns of the journal are the fields of an Order, in their order.
_TABLES = """
CREATE TABLE stocks (
    name        TEXT NOT NULL PRIMARY KEY,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    volume      INTEGER NOT NULL CHECK (volume BETWEEN 0 AND 9007199254740991),
    version     INTEGER NOT NULL CHECK (version >= 0)
) STRICT;

CREATE TABLE journal (
    number     INTEGER PRIMARY KEY CHECK (number >= 1),
    request_id TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    type       TEXT NOT NULL CHECK (type IN ('BUY', 'SELL')),
    quantity   INTEGER NOT NULL CHECK (quantity >= 1),
    version    INTEGER NOT NULL CHECK (version >= 1),
    epoch      INTEGER NOT NULL CHECK (epoch >= 1),
    digest     BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;

CREATE TABLE refusals (
    request_id TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    type       TEXT NOT NULL CHECK (type IN ('BUY', 'SELL')),
    quantity   INTEGER NOT NULL CHECK (quantity >= 1),
    status     INTEGER NOT NULL CHECK (status IN (0, -1)),
    refused_at_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX refusals_by_age ON refusals (refused_at_s);

CREATE TABLE fence (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    leader_id INTEGER NOT NULL CHECK (leader_id >= 0)
) STRICT;
INSERT INTO fence VALUES (1, 0, 0);
"""


class OtherSchema(Exception):
    """The database was written by another version of the catalog."""


class Registration(NamedTuple):
    """Who leads, as the fence has it; epoch 0 and leader 0 when nobody ever led."""

    epoch: int
    leader_id: int


class Refusal(NamedTuple):
    name: str
    type: str
    quantity: int
    status: int


def prepare(connection: sqlite3.Connection, stocks_file: Path) -> None:
    """Makes sure that the tables are there, filling them if this is the first start.

    Raises:
        OtherSchema: the database has other tables than these.
        MalformedStockFile: this is the first start and the stocks file is wrong.
    """
    ((found,),) = rows(connection, "PRAGMA user_version")
    ((tables,),) = rows(connection, "SELECT count(*) FROM sqlite_master")
    if found == VERSION:
        return
    if found != 0 or tables != 0:
        raise OtherSchema(f"schema version {found}, but this catalog knows version {VERSION} only")
    stocks = read_stocks(stocks_file)
    with transaction(connection):
        for statement in _TABLES.split(";"):  # executescript() would commit on its own
            connection.execute(statement)
        for stock in stocks:
            _insert_stock(connection, stock)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def rows(connection: sqlite3.Connection, sql: str, *parameters: Any) -> list[Any]:
    """All rows at once: a statement left half read would keep its snapshot of the database, and
    whoever reads next on that connection would see the past."""
    return connection.execute(sql, parameters).fetchall()


def _insert_stock(connection: sqlite3.Connection, stock: Stock) -> None:
    cents = int(stock.price * 100)
    connection.execute(
        "INSERT INTO stocks (name, price_cents, volume, version) VALUES (?, ?, ?, ?)",
        (stock.name, cents, stock.volume, stock.version),
    )


def _stock(row: Sequence[Any]) -> Stock:
    name, cents, volume, version = row
    return Stock(name, Decimal(cents).scaleb(-2), volume, version)


def find_stock(connection: sqlite3.Connection, name: str) -> Stock | None:
    sql = "SELECT name, price_cents, volume, version FROM stocks WHERE name = ?"
    found = rows(connection, sql, name)
    return _stock(found[0]) if found else None


def all_stocks(connection: sqlite3.Connection) -> list[Stock]:
    sql = "SELECT name, price_cents, volume, version FROM stocks ORDER BY rowid"
    return [_stock(row) for row in rows(connection, sql)]


def save_stock(connection: sqlite3.Connection, stock: Stock) -> None:
    connection.execute(
        "UPDATE stocks SET volume = ?, version = ? WHERE name = ?",
        (stock.volume, stock.version, stock.name),
    )


def find_order(connection: sqlite3.Connection, request_id: str) -> Order | None:
    found = rows(connection, "SELECT * FROM journal WHERE request_id = ?", request_id)
    return Order(*found[0]) if found else None


def orders_above(connection: sqlite3.Connection, number: int, limit: int) -> list[Order]:
    sql = "SELECT * FROM journal WHERE number > ? ORDER BY number LIMIT ?"
    return [Order(*row) for row in rows(connection, sql, number, limit)]


def insert_order(connection: sqlite3.Connection, order: Order) -> None:
    connection.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(order))


def last_position(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """The last order's number and the digest of the journal up to it."""
    found = rows(connection, "SELECT number, digest FROM journal ORDER BY number DESC LIMIT 1")
    return found[0] if found else (0, EMPTY_DIGEST)


def find_refusal(connection: sqlite3.Connection, request_id: str) -> Refusal | None:
    sql = "SELECT name, type, quantity, status FROM refusals WHERE request_id = ?"
    found = rows(connection, sql, request_id)
    return Refusal(*found[0]) if found else None


def insert_refusal(
    connection: sqlite3.Connection, request_id: str, refusal: Refusal, now_s: float
) -> None:
    connection.execute(
        "INSERT INTO refusals (request_id, name, type, quantity, status, refused_at_s)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (request_id, *refusal, now_s),
    )


def delete_refusals(connection: sqlite3.Connection, until_s: float, limit: int) -> int:
    """Deletes refusals from up to that time, at most `limit`; returns how many."""
    return connection.execute(
        "DELETE FROM refusals WHERE request_id IN (SELECT request_id FROM refusals"
        " WHERE refused_at_s <= ? LIMIT ?)",
        (until_s, limit),
    ).rowcount


def registration(connection: sqlite3.Connection) -> Registration:
    ((epoch, leader_id),) = rows(connection, "SELECT epoch, leader_id FROM fence")
    return Registration(epoch, leader_id)


def save_registration(connection: sqlite3.Connection, leader: Registration) -> None:
    connection.execute("UPDATE fence SET epoch = ?, leader_id = ?", leader)
