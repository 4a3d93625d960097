"""Requests that the API must refuse, and how."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from client.api import JSON_HEADERS, KEY_HEADER, ORDER_NOT_FOUND, Request
from client.expectation import Expectation

Case = tuple[str, Request, Expectation]

_BODY_LIMIT = 16 * 1024


def cases(stock: str) -> Iterator[Case]:
    yield from _bad_fields(stock)
    yield from _bad_bodies(stock)
    yield from _bad_keys(stock)
    yield from _bad_queries()
    yield from _bad_routes()


def _bad_fields(stock: str) -> Iterator[Case]:
    good = {"name": stock, "quantity": 1, "type": "BUY"}
    for missing in good:
        body = {name: value for name, value in good.items() if name != missing}
        yield f"A trade without its {missing}", _post(body), _names(missing)
    for name, value in [
        ("name", ""),
        ("name", "n" * 65),
        ("name", 7),
        ("name", "a\nb"),
        ("quantity", 0),
        ("quantity", -1),
        ("quantity", 1.5),
        ("quantity", True),
        ("quantity", "10"),
        ("quantity", 1_000_000_001),
        ("type", "buy"),
        ("type", "HOLD"),
        ("type", None),
    ]:
        shown = json.dumps(value)
        title = f"A trade whose {name} is {shown if len(shown) < 20 else 'too long'}"
        yield title, _post({**good, name: value}), _names(name)


def _bad_bodies(stock: str) -> Iterator[Case]:
    yield "A body that is no JSON", _post_bytes(b'{"name": '), Expectation(HTTPStatus.BAD_REQUEST)
    yield "JSON that is no object", _post([stock, 1, "BUY"]), Expectation(HTTPStatus.BAD_REQUEST)
    text = Request("POST", "/orders", b"BUY 1", {"Content-Type": "text/plain"})
    yield "A body of another type", text, Expectation(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    large = {"name": "n" * _BODY_LIMIT, "quantity": 1, "type": "BUY"}
    yield "A body over 16 KiB", _post(large), Expectation(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _bad_keys(stock: str) -> Iterator[Case]:
    for title, key in [("too long", "k" * 256), ("not one word", "a key"), ("empty", "")]:
        request = Request.trade(stock, 1, "BUY", key)
        yield f"An idempotency key that is {title}", request, _names(KEY_HEADER)


def _bad_queries() -> Iterator[Case]:
    yield "A hello to nobody", Request("GET", "/hello"), _names("name")
    yield "A lookup without its parameter", Request("GET", "/stocks"), _names("stockname")
    yield "A lookup of nothing", Request.lookup(""), _names("stockname")
    yield "A lookup of too long a name", Request.lookup("n" * 65), _names("stockname")
    yield "An order lookup without its parameter", Request("GET", "/orders"), _names("order-number")
    yield "An order number that is none", Request.order("seven"), _names("order-number")
    for number in (0, -1, 10**30):
        unknown = Expectation(HTTPStatus.NOT_FOUND, message=ORDER_NOT_FOUND)
        yield "A number that no order can have", Request.order(number), unknown


def _bad_routes() -> Iterator[Case]:
    yield "An unknown path", Request("GET", "/bonds"), Expectation(HTTPStatus.NOT_FOUND)
    wrong_method = Expectation(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ()})
    yield "A wrong method", Request("DELETE", "/orders?order-number=1"), wrong_method
    yield "Another wrong method", Request("POST", "/stocks", b"{}", JSON_HEADERS), wrong_method


def _names(word: str) -> Expectation:
    return Expectation(HTTPStatus.BAD_REQUEST, names=word)


def _post(body: Any) -> Request:
    return _post_bytes(json.dumps(body).encode())


def _post_bytes(body: bytes) -> Request:
    return Request("POST", "/orders", body, JSON_HEADERS)
