"""The books of one SQLite transaction, as decisions are made on them."""

from __future__ import annotations

import sqlite3

from catalog.decisions import Refusal, Registration
from catalog.sqlite import schema
from catalog.stock import Stock
from common.domain import Order


class SqliteBooks:
    """Reads and writes at once: SQLite is in this process, so a statement costs no round trip.

    Args:
        connection: inside a write transaction.
        now_s: the wall clock's time, kept with the refusals.
    """

    def __init__(self, connection: sqlite3.Connection, now_s: float) -> None:
        self._connection = connection
        self._now_s = now_s

    def registration(self) -> Registration:
        return schema.registration(self._connection)

    def last_position(self) -> tuple[int, bytes]:
        return schema.last_position(self._connection)

    def find_order(self, request_id: str) -> Order | None:
        return schema.find_order(self._connection, request_id)

    def find_refusal(self, request_id: str) -> Refusal | None:
        return schema.find_refusal(self._connection, request_id)

    def find_stock(self, name: str) -> Stock | None:
        return schema.find_stock(self._connection, name)

    def save_stock(self, stock: Stock) -> None:
        schema.save_stock(self._connection, stock)

    def add_order(self, order: Order) -> None:
        schema.insert_order(self._connection, order)

    def add_refusal(self, request_id: str, refusal: Refusal) -> None:
        schema.insert_refusal(self._connection, request_id, refusal, self._now_s)
