"""The rival: the service as most people would write it, with one copy of everything.

Flask, psycopg and one PostgreSQL. Each trade is one transaction under a unique key. Requests and
answers are those of Bourse. Runs by itself, under gunicorn, in the image of Dockerfile.plain.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import psycopg
from flask import Flask, request
from werkzeug.exceptions import BadRequest, HTTPException, NotFound, UnprocessableEntity

# PostgreSQL's bigint ends here.
_MOST = 2**63 - 1

_QUOTE = "SELECT name, price, quantity FROM stocks WHERE name = %s"
_ORDER = "SELECT number, name, type, quantity FROM orders WHERE number = %s"
# A request with the same key waits here until the first one has committed or has failed.
_INSERT = (
    "INSERT INTO orders (key, name, type, quantity) VALUES (%s, %s, %s, %s) "
    "ON CONFLICT (key) DO NOTHING RETURNING number"
)
_MOVE = (
    "UPDATE stocks SET quantity = quantity + %(change)s "
    "WHERE name = %(name)s AND quantity + %(change)s >= 0"
)
_DONE_BEFORE = "SELECT number, name, type, quantity FROM orders WHERE key = %s"

Json = dict[str, Any]
_Connection = psycopg.Connection[tuple[Any, ...]]


class Connections(threading.local):
    """One for each thread. libpq reads from the environment where the database is."""

    def __init__(self) -> None:
        self._kept: _Connection | None = None

    def mine(self) -> _Connection:
        """A new one if the last one broke. Raises psycopg.OperationalError."""
        if self._kept is None or self._kept.closed:
            self._kept = psycopg.connect(autocommit=True)
        return self._kept


def create_app() -> Flask:
    app = Flask(__name__, static_folder=None)
    connections = Connections()

    @app.get("/stocks")
    def stock() -> Json:
        row = connections.mine().execute(_QUOTE, (request.args["stockname"],)).fetchone()
        if row is None:
            raise NotFound("stock not found")
        name, price, quantity = row
        return {"data": {"name": name, "price": float(price), "quantity": quantity}}

    @app.get("/orders")
    def order() -> Json:
        row = connections.mine().execute(_ORDER, (_order_number(),)).fetchone()
        if row is None:
            raise NotFound("order not found")
        return {"data": dict(zip(("number", "name", "type", "quantity"), row, strict=True))}

    @app.post("/orders")
    def trade() -> tuple[Json, dict[str, str]]:
        key = request.headers.get("Idempotency-Key") or str(uuid4())
        number, is_repeat = _trade(connections.mine(), key, *_trade_fields())
        headers = {"Location": f"/orders?order-number={number}"}
        if is_repeat:
            headers["Idempotency-Replayed"] = "true"
        return {"data": {"transaction_number": number}}, headers

    @app.get("/healthz")
    def alive() -> Json:
        return {"data": {"status": "alive"}}

    @app.get("/readyz")
    def ready() -> Json:
        connections.mine().execute("SELECT 1")
        return {"data": {"status": "ready"}}

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> tuple[Json, int]:
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        return {"error": {"code": status, "message": error.description}}, status

    return app


def _trade(
    connection: _Connection, key: str, name: str, kind: str, quantity: int
) -> tuple[int, bool]:
    """The number of the order, and whether it was there before.

    Raises:
        NotFound: there is no such stock, or not so many shares of it. Nothing is stored.
        UnprocessableEntity: the key is that of another trade.
    """
    change = quantity if kind == "SELL" else -quantity
    with connection.transaction():
        row = connection.execute(_INSERT, (key, name, kind, quantity)).fetchone()
        if row is None:
            return _done_before(connection, key, (name, kind, quantity)), True
        if not connection.execute(_MOVE, {"name": name, "change": change}).rowcount:
            if connection.execute(_QUOTE, (name,)).fetchone() is None:
                raise NotFound("stock not found")
            raise NotFound("Trading not permitted due to insufficient volume")
    return int(row[0]), False


def _done_before(connection: _Connection, key: str, trade: tuple[str, str, int]) -> int:
    row = connection.execute(_DONE_BEFORE, (key,)).fetchone()
    if row is None or row[1:] != trade:
        raise UnprocessableEntity("this Idempotency-Key was used for another trade")
    return int(row[0])


def _order_number() -> int:
    text = request.args["order-number"]
    if not text.isdecimal() or int(text) > _MOST:
        raise BadRequest("query parameter order-number: must be a number")
    return int(text)


def _trade_fields() -> tuple[str, str, int]:
    match request.get_json():
        case {"name": str(name), "type": "BUY" | "SELL" as kind, "quantity": int(quantity)} if (
            type(quantity) is int and 0 < quantity < _MOST // 2
        ):
            return name, kind, quantity
    raise BadRequest("the body must be a trade: name, type and quantity")
