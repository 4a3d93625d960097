"""The SQL that a catalog speaks while it serves, and how rows become objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.types.numeric import Int8Dumper

from catalog.decisions import Refusal, Registration
from catalog.postgres.session import Changes
from catalog.stock import Stock
from common.chain import seal
from common.domain import ORDER_COLUMNS, Order, order_values

# Of the schema: the number of the last file in `schema/`.
VERSION = 1

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"

OBSERVE = "SELECT schema_version, generation, beat, holder, released FROM office"
TAKE = """
UPDATE office SET generation = generation + 1, beat = %s, holder = %s, released = false
WHERE generation = %s AND beat = %s
RETURNING generation
"""
RELEASE = "UPDATE office SET beat = %s, released = true WHERE generation = %s RETURNING generation"

# At once the lock, the fence, the heartbeat, and what makes the COMMIT wait for the standby: a
# transaction that wrote nothing is not waited for.
WRITE_BEAT = """
UPDATE office SET beat = %s WHERE generation = %s
RETURNING epoch, leader_id, current_setting('synchronous_standby_names') <> ''
"""

FIND_ORDERS = f"SELECT {ORDER_COLUMNS} FROM journal WHERE request_id = ANY(%s)"  # noqa: S608 - constants
FIND_REFUSALS = """
SELECT request_id, name, type, quantity, status FROM refusals WHERE request_id = ANY(%s)
"""

_ADD_ORDERS = f"""
INSERT INTO journal ({ORDER_COLUMNS})
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[],
                     %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[])
"""  # noqa: S608 - constants
# The division fails, and with it the transaction, if not every one of the stocks was there: the
# COMMIT is on its way already when the answer comes.
_SAVE_STOCKS = """
WITH saved AS (
    UPDATE stocks SET volume = after.volume, version = after.version
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS after (name, volume, version)
    WHERE stocks.name = after.name
    RETURNING 1
)
SELECT 1 / (count(*) = %s)::integer FROM saved
"""
_ADD_REFUSALS = """
INSERT INTO refusals (request_id, name, type, quantity, status, refused_at_s)
SELECT added.*, %s FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::integer[])
    AS added
"""
SAVE_REGISTRATION = "UPDATE office SET epoch = %s, leader_id = %s, fence_seal = %s"
DELETE_REFUSALS = """
DELETE FROM refusals WHERE request_id IN
    (SELECT request_id FROM refusals WHERE refused_at_s <= %s ORDER BY refused_at_s LIMIT %s)
"""

ORDERS_ABOVE = f"SELECT {ORDER_COLUMNS} FROM journal WHERE number > %s ORDER BY number LIMIT %s"  # noqa: S608 - constants
DIGEST_OF = "SELECT digest FROM journal WHERE number = %s"

LOAD_OFFICE = (
    "SELECT schema_version, cluster_id, cluster_seal, epoch, leader_id, fence_seal FROM office"
)
LOAD_STOCKS = """
SELECT name, price_cents, volume, version, initial_volume, seal FROM stocks ORDER BY place
"""
LOAD_TAIL = f"SELECT {ORDER_COLUMNS} FROM journal ORDER BY number DESC LIMIT %s"  # noqa: S608 - constants
COUNT_REFUSALS = "SELECT count(*) FROM refusals"

Statement = tuple[str, Sequence[Any]]


def use_one_type_of_integer(connection: psycopg.Connection[Any]) -> None:
    """psycopg chooses the smallest for each value, and PostgreSQL would prepare each choice."""
    connection.adapters.register_dumper(int, Int8Dumper)


def writes(changes: Changes) -> list[Statement]:
    """The statements that write them; none for what is empty."""
    statements: list[Statement] = []
    if changes.orders:
        statements.append((_ADD_ORDERS, _by_column(map(order_values, changes.orders))))
    if changes.stocks:
        after = [(stock.name, stock.volume, stock.version) for stock in changes.stocks]
        statements.append((_SAVE_STOCKS, [*_by_column(after), len(after)]))
    if changes.refusals:
        added = [(request_id, *refusal) for request_id, refusal in changes.refusals]
        statements.append((_ADD_REFUSALS, [changes.now_s, *_by_column(added)]))
    if changes.registration is not None:
        statements.append((SAVE_REGISTRATION, sealed(changes.registration)))
    return statements


def _by_column(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def sealed(registration: Registration) -> tuple[int, int, bytes]:
    return (*registration, seal(*registration))


def orders_by_id(rows: Iterable[Sequence[Any]]) -> Mapping[str, Order]:
    return {order.request_id: order for order in (Order(*row) for row in rows)}


def refusals_by_id(rows: Iterable[Sequence[Any]]) -> Mapping[str, Refusal]:
    return {request_id: Refusal(*values) for request_id, *values in rows}


def stock_of(name: str, cents: int, volume: int, version: int) -> Stock:
    return Stock(name, Decimal(cents).scaleb(-2), volume, version)
