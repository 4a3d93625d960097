"""Every row of the HTTP interface, with fakes behind the routes."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from decimal import Decimal

import pytest
from flask.testing import FlaskClient

from common.domain import MAX_NAME_LENGTH, MAX_ORDER_NUMBER, Trade
from common.errors import KeyReused, OutcomeUnknown, Unavailable
from frontend.http.app import create_app
from frontend.model import CacheResult, Decision, OrderView, Quote
from tests.unit.frontend.http.fakes import DONE, Fakes

TRADE = {"name": "stock1", "quantity": 10, "type": "BUY"}
INSUFFICIENT = "Trading not permitted due to insufficient volume"


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def client(fakes: Fakes) -> FlaskClient:
    return create_app(fakes.parts).test_client()


def test_hello(client: FlaskClient) -> None:
    answer = client.get("/hello?name=user")
    assert (answer.status_code, answer.text) == (200, "Hello, user!")
    assert answer.mimetype == "text/plain"


def test_hello_takes_any_printable_name(client: FlaskClient) -> None:
    assert client.get("/hello?name=J%C3%BCrgen+K").text == "Hello, Jürgen K!"


@pytest.mark.parametrize("cache_result", CacheResult)
def test_stock(client: FlaskClient, fakes: Fakes, cache_result: CacheResult) -> None:
    fakes.quotes.cache_result = cache_result
    answer = client.get("/stocks?stockname=stock1")
    assert answer.status_code == 200
    assert answer.text == '{"data":{"name":"stock1","price":25.78,"quantity":10}}\n'
    assert answer.headers["X-Cache"] == cache_result.value
    assert answer.mimetype == "application/json"
    assert fakes.quotes.calls == ["stock1"]


@pytest.mark.parametrize("price", ["0.01", "0.10", "100.00", "1234567.89", "33333333333.33"])
def test_a_price_is_a_number_of_exact_value(client: FlaskClient, fakes: Fakes, price: str) -> None:
    fakes.quotes.stocks["a"] = Quote("a", Decimal(price), 1, 1)
    shown = json.loads(client.get("/stocks?stockname=a").text, parse_float=Decimal)
    assert shown["data"]["price"] == Decimal(price)


def test_a_stock_that_does_not_exist(client: FlaskClient) -> None:
    answer = client.get("/stocks?stockname=nothing")
    assert answer.status_code == 404
    assert answer.text == '{"error":{"code":404,"message":"stock not found"}}\n'
    assert answer.headers["X-Cache"] == "MISS"


def test_trade(client: FlaskClient, fakes: Fakes) -> None:
    answer = client.post("/orders", json=TRADE)
    assert answer.status_code == 200
    assert answer.text == '{"data":{"transaction_number":3}}\n'
    assert answer.headers["Location"] == "/orders?order-number=3"
    assert "Idempotency-Replayed" not in answer.headers
    (trade,) = fakes.trades.calls
    assert trade == Trade(trade.request_id, "stock1", "BUY", 10)
    assert uuid.UUID(trade.request_id).version == 4


def test_each_trade_without_a_key_gets_its_own_request_id(
    client: FlaskClient, fakes: Fakes
) -> None:
    for _ in range(2):
        client.post("/orders", json=TRADE)
    first, second = fakes.trades.calls
    assert first.request_id != second.request_id


@pytest.mark.parametrize("header", ["key-1", '"key-1"'])
def test_a_key_is_the_request_id_bare_or_in_quotes(
    client: FlaskClient, fakes: Fakes, header: str
) -> None:
    answer = client.post("/orders", json=TRADE, headers={"Idempotency-Key": header})
    assert answer.headers["X-Request-Id"] == "key-1"
    assert fakes.trades.calls[0].request_id == "key-1"
    assert fakes.trades.request_ids_in_context == ["key-1"]


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_the_content_type_may_have_parameters(client: FlaskClient, content_type: str) -> None:
    body = b'{"name":"stock1","quantity":10,"type":"SELL"}'
    assert client.post("/orders", data=body, content_type=content_type).status_code == 200


@pytest.mark.parametrize("quantity", [1, 1_000_000_000])
def test_the_limits_of_a_quantity(client: FlaskClient, fakes: Fakes, quantity: int) -> None:
    assert client.post("/orders", json=TRADE | {"quantity": quantity}).status_code == 200
    assert fakes.trades.calls[0].quantity == quantity


@pytest.mark.parametrize("name", ["x", "é" * MAX_NAME_LENGTH, "a b", "日本", "a/b&c=d%"])
def test_names_of_stocks(client: FlaskClient, fakes: Fakes, name: str) -> None:
    assert client.post("/orders", json=TRADE | {"name": name}).status_code == 200
    assert fakes.trades.calls[0].name == name
    client.get("/stocks", query_string={"stockname": name})
    assert fakes.quotes.calls == [name]


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize(("status", "message"), [(0, INSUFFICIENT), (-1, "stock not found")])
def test_a_refusal_new_or_replayed(
    client: FlaskClient, fakes: Fakes, status: int, message: str, replayed: bool
) -> None:
    fakes.trades.decide = lambda _: Decision(status, -1, 0, 0, replayed)
    answer = client.post("/orders", json=TRADE)
    assert answer.get_json() == {"error": {"code": 404, "message": message}}
    assert answer.status_code == 404
    assert answer.headers.get("Idempotency-Replayed") == ("true" if replayed else None)
    assert "Location" not in answer.headers


def test_a_replayed_answer_has_the_body_of_the_first(client: FlaskClient, fakes: Fakes) -> None:
    first = client.post("/orders", json=TRADE)
    fakes.trades.decide = lambda _: replace(DONE, replayed=True)
    second = client.post("/orders", json=TRADE)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert first.data == second.data
    assert first.headers["Location"] == second.headers["Location"]


def test_another_trade_under_a_used_key(client: FlaskClient, fakes: Fakes) -> None:
    def refuse(_: Trade) -> Decision:
        raise KeyReused

    fakes.trades.decide = refuse
    answer = client.post("/orders", json=TRADE, headers={"Idempotency-Key": "used"})
    assert answer.status_code == 422
    assert answer.get_json()["error"]["code"] == 422


def test_a_trade_of_unknown_outcome_says_to_repeat_it(client: FlaskClient, fakes: Fakes) -> None:
    def lose(_: Trade) -> Decision:
        raise OutcomeUnknown

    fakes.trades.decide = lose
    answer = client.post("/orders", json=TRADE)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    message = answer.get_json()["error"]["message"]
    assert message == "outcome unknown, repeat with the same Idempotency-Key"
    # The key to repeat it with, for a client that sent none.
    assert answer.headers["X-Request-Id"] == fakes.trades.calls[0].request_id


def test_order(client: FlaskClient, fakes: Fakes) -> None:
    answer = client.get("/orders?order-number=1")
    assert answer.status_code == 200
    expected = '{"data":{"number":1,"name":"stock3","type":"SELL","quantity":25}}'
    assert answer.text == expected + "\n"
    assert fakes.orders.calls == [1]


@pytest.mark.parametrize(
    ("text", "number"),
    [("007", 7), (str(MAX_ORDER_NUMBER), MAX_ORDER_NUMBER), ("0" * 8000 + "7", 7)],
)
def test_an_order_number_may_have_leading_zeros(
    client: FlaskClient, fakes: Fakes, text: str, number: int
) -> None:
    fakes.orders.orders[number] = OrderView(number, "stock1", "BUY", 1)
    answer = client.get(f"/orders?order-number={text}")
    assert answer.get_json()["data"]["number"] == number


@pytest.mark.parametrize("number", ["2", str(MAX_ORDER_NUMBER)])
def test_an_order_that_does_not_exist(client: FlaskClient, fakes: Fakes, number: str) -> None:
    answer = client.get(f"/orders?order-number={number}")
    assert answer.text == '{"error":{"code":404,"message":"order not found"}}\n'
    assert fakes.orders.calls == [int(number)]


@pytest.mark.parametrize(
    "number", ["0", "-0", "-1", "-" + "9" * 8000, str(MAX_ORDER_NUMBER + 1), "9" * 19, "9" * 8000]
)
def test_an_integer_that_can_be_no_order_is_asked_of_nobody(
    client: FlaskClient, fakes: Fakes, number: str
) -> None:
    answer = client.get(f"/orders?order-number={number}")
    assert answer.status_code == 404
    assert answer.get_json()["error"]["message"] == "order not found"
    assert not fakes.were_called()


def test_alive_asks_nobody(client: FlaskClient, fakes: Fakes) -> None:
    fakes.readiness.reason = "the catalog does not answer"
    assert client.get("/healthz").get_json() == {"data": {"status": "alive"}}
    assert not fakes.were_called()


def test_ready(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, {"data": {"status": "ready"}})


def test_not_ready_says_why(client: FlaskClient, fakes: Fakes) -> None:
    fakes.readiness.reason = "the catalog does not answer"
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json()["error"]["message"] == "the catalog does not answer"


@pytest.mark.parametrize("path", ["/stocks?stockname=stock1", "/orders?order-number=1"])
def test_a_read_that_nobody_can_answer(client: FlaskClient, fakes: Fakes, path: str) -> None:
    fakes.quotes.error = fakes.orders.error = Unavailable("the catalog is unavailable")
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json()["error"] == {"code": 503, "message": "the catalog is unavailable"}
