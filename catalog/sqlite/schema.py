"""The tables, and how their rows become objects."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from catalog.decisions import Refusal, Registration
from catalog.sqlite.transactions import transaction
from catalog.stock import Stock
from common.chain import seal
from common.domain import EMPTY_DIGEST, Order, order_values
from common.errors import Damaged

VERSION = 3
_WITHOUT_CLUSTER = 2
_WITHOUT_SEALS = 1

# The CHECKs state what must always hold. The code never relies on one of them failing.
# The columns of the journal are the fields of an Order, in their order.
# A seal is the digest of values that do not follow from the journal (`common.chain.seal`): the
# name, price and initial volume of a stock, the epoch and leader of the fence, the cluster's id.
_STOCKS = """
CREATE TABLE stocks (
    name           TEXT NOT NULL PRIMARY KEY,
    price_cents    INTEGER NOT NULL CHECK (price_cents > 0),
    volume         INTEGER NOT NULL CHECK (volume BETWEEN 0 AND 9007199254740991),
    version        INTEGER NOT NULL CHECK (version >= 0),
    initial_volume INTEGER NOT NULL CHECK (initial_volume BETWEEN 0 AND 9007199254740991),
    seal           BLOB NOT NULL
) STRICT;
"""
_JOURNAL_AND_REFUSALS = """
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

"""
_FENCE = """
CREATE TABLE fence (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    leader_id INTEGER NOT NULL CHECK (leader_id >= 0),
    seal      BLOB NOT NULL
) STRICT;
"""
_CLUSTER = """
CREATE TABLE cluster (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    id       TEXT NOT NULL CHECK (id != ''),
    seal     BLOB NOT NULL
) STRICT;
"""


class OtherSchema(Exception):
    """The database was written by another version of the catalog."""


def create(
    connection: sqlite3.Connection,
    stocks: Iterable[Stock],
    leader: Registration,
    cluster_id: str = "",
) -> None:
    """Makes the tables in an empty database, inside a transaction of the caller's.

    Args:
        stocks: as they were before the first trade.
        cluster_id: the one that order logs have already; empty for a new one.
    """
    _execute_all(connection, _STOCKS + _JOURNAL_AND_REFUSALS + _FENCE)
    connection.execute("INSERT INTO fence VALUES (1, 0, 0, x'')")
    save_registration(connection, leader)
    for stock in stocks:
        _insert_stock(connection, stock, stock.volume)
    _add_cluster(connection, cluster_id or str(uuid.uuid4()))
    connection.execute(f"PRAGMA user_version = {VERSION}")


def found_version(connection: sqlite3.Connection) -> int:
    """The version of the schema, which is one that this catalog knows.

    Raises:
        Damaged: this is no catalog's database.
        OtherSchema: another version of the catalog wrote it.
    """
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    tables = [name for (name,) in rows(connection, sql)]
    if not {"stocks", "journal", "fence"}.issubset(tables):
        raise Damaged(f"it is no catalog's database, its tables are: {', '.join(tables) or 'none'}")
    ((found,),) = rows(connection, "PRAGMA user_version")
    if not _WITHOUT_SEALS <= found <= VERSION:
        known = f"versions {_WITHOUT_SEALS} to {VERSION}"
        raise OtherSchema(f"schema version {found}, but this catalog knows {known} only")
    return int(found)


def has_seals(version: int) -> bool:
    """Whether it keeps seals, and with them the stocks' initial volumes."""
    return version != _WITHOUT_SEALS


def has_cluster(version: int) -> bool:
    """Whether it keeps the id of its cluster."""
    return version > _WITHOUT_CLUSTER


def migrate(
    connection: sqlite3.Connection, version: int, initial_volumes: Mapping[str, int]
) -> None:
    """From an earlier version to this one, in one transaction.

    A cluster that had no id gets one. Logs take it over when their digests are found to fit.

    Args:
        initial_volumes: of every stock, by its name.
    """
    with transaction(connection):
        if not has_seals(version):
            _add_seals(connection, initial_volumes)
        if not has_cluster(version):
            _add_cluster(connection, str(uuid.uuid4()))
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _add_seals(connection: sqlite3.Connection, initial_volumes: Mapping[str, int]) -> None:
    stocks, leader = all_stocks(connection), registration(connection)
    connection.execute("DROP TABLE stocks")
    connection.execute("DROP TABLE fence")
    _execute_all(connection, _STOCKS + _FENCE)
    connection.execute("INSERT INTO fence VALUES (1, 0, 0, x'')")
    save_registration(connection, leader)
    for stock in stocks:
        _insert_stock(connection, stock, initial_volumes[stock.name])


def _add_cluster(connection: sqlite3.Connection, cluster_id: str) -> None:
    _execute_all(connection, _CLUSTER)
    sql = "INSERT INTO cluster VALUES (1, ?, ?)"
    connection.execute(sql, (cluster_id, seal(cluster_id)))


def _execute_all(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):  # executescript() would commit on its own
        connection.execute(statement)


def rows(connection: sqlite3.Connection, sql: str, *parameters: Any) -> list[Any]:
    """All rows at once. A statement that is left half read keeps its snapshot of the database, so
    the next reader on that connection would see the past."""
    return connection.execute(sql, parameters).fetchall()


def _insert_stock(connection: sqlite3.Connection, stock: Stock, initial_volume: int) -> None:
    cents = int(stock.price * 100)
    sealed = seal(stock.name, cents, initial_volume)
    connection.execute(
        "INSERT INTO stocks VALUES (?, ?, ?, ?, ?, ?)",
        (stock.name, cents, stock.volume, stock.version, initial_volume, sealed),
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
    insert_orders(connection, [order])


def insert_orders(connection: sqlite3.Connection, orders: Iterable[Order]) -> None:
    connection.executemany(
        "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(order_values, orders)
    )


def last_position(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """The last order's number and the digest of the journal up to it."""
    found = rows(connection, "SELECT number, digest FROM journal ORDER BY number DESC LIMIT 1")
    return found[0] if found else (0, EMPTY_DIGEST)


def digest_of(connection: sqlite3.Connection, number: int) -> bytes | None:
    """The digest of the journal up to and with that order; None if there is no such order."""
    found = rows(connection, "SELECT digest FROM journal WHERE number = ?", number)
    return found[0][0] if found else None


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


def count_refusals(connection: sqlite3.Connection) -> int:
    ((count,),) = rows(connection, "SELECT count(*) FROM refusals")
    return int(count)


def delete_refusals(connection: sqlite3.Connection, until_s: float, limit: int) -> int:
    """Deletes refusals from up to that time, at most `limit`; returns how many."""
    return connection.execute(
        "DELETE FROM refusals WHERE request_id IN (SELECT request_id FROM refusals"
        " WHERE refused_at_s <= ? LIMIT ?)",
        (until_s, limit),
    ).rowcount


def cluster_id(connection: sqlite3.Connection) -> str:
    ((found,),) = rows(connection, "SELECT id FROM cluster")
    return str(found)


def registration(connection: sqlite3.Connection) -> Registration:
    ((epoch, leader_id),) = rows(connection, "SELECT epoch, leader_id FROM fence")
    return Registration(epoch, leader_id)


def save_registration(connection: sqlite3.Connection, leader: Registration) -> None:
    sql = "UPDATE fence SET epoch = ?, leader_id = ?, seal = ?"
    connection.execute(sql, (*leader, seal(*leader)))
