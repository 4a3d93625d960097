"""Every kind of bad input: the right error, and nobody behind the routes is asked."""

from __future__ import annotations

import json
import time

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from common.domain import is_valid_request_id
from common.errors import InvalidRequest
from frontend.http.app import create_app
from frontend.http.validation import (
    MAX_BODY_BYTES,
    idempotency_key,
    name_parameter,
    order_number_parameter,
    parse_trade,
)
from tests.unit.frontend.http.fakes import Fakes

TRADE = {"name": "stock1", "quantity": 10, "type": "BUY"}


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def client(fakes: Fakes) -> FlaskClient:
    return create_app(fakes.parts).test_client()


def with_field(field: str, value: object) -> bytes:
    return json.dumps(TRADE | {field: value}).encode()


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in TRADE.items() if name != field}).encode()


NOT_JSON = [
    b"",
    b"{",
    b"name=stock1",
    b"\xff\xfe{}",
    b'\xef\xbb\xbf{"name":"stock1","quantity":1,"type":"BUY"}',
    json.dumps(TRADE).encode("utf-16"),
    b'{"name":"\xff","quantity":1,"type":"BUY"}',
    b'{"name":"stock1","quantity":NaN,"type":"BUY"}',
    b'{"name":"stock1","quantity":Infinity,"type":"BUY"}',
    b'{"name":"stock1","quantity":-Infinity,"type":"BUY"}',
    b'{"name":"stock1","quantity":' + b"1" * 5000 + b',"type":"BUY"}',
    b'{"name":"a\nb","quantity":1,"type":"BUY"}',
    b'{"name":"stock1","quantity":1,"type":"BUY"} x',
    b"[" * 16_000,
    b'{"a":' * 3_000,
    b"[" * 8_000 + b"]" * 8_000,
]

NOT_AN_OBJECT = [b"null", b"true", b"[]", b"1", b'"BUY"', json.dumps([TRADE]).encode()]

WRONG_FIELDS = [
    *((field, without(field)) for field in TRADE),
    *(
        ("name", with_field("name", name))
        for name in ["", "x" * 65, "a\nb", "\x00", "\ud800", "\u202e", 1, None, True, ["a"], {}]
    ),
    *(
        ("quantity", with_field("quantity", quantity))
        for quantity in [0, -1, 10**9 + 1, 10**300, True, 1.0, 1.5, 1e3, "1", None, [1], {}]
    ),
    *(
        ("type", with_field("type", trade_type))
        for trade_type in ["buy", "Sell", "BUY ", "", "HOLD", 0, 1, None, True, ["BUY"], {}]
    ),
    ("'price'", with_field("price", 1)),
    ("''", with_field("", 1)),
    ("'Name'", with_field("Name", "stock1")),
    ("'name'", b'{"name":"stock1","name":"stock2","quantity":1,"type":"BUY"}'),
    ("'x'", b'{"name":{"x":1,"x":2},"quantity":1,"type":"BUY"}'),
]


@pytest.mark.parametrize("body", [*NOT_JSON, *NOT_AN_OBJECT])
def test_a_body_that_is_no_json_object(client: FlaskClient, fakes: Fakes, body: bytes) -> None:
    answer = client.post("/orders", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.get_json()["error"]["code"] == 400
    assert "JSON" in answer.get_json()["error"]["message"]
    assert not fakes.were_called()


@pytest.mark.parametrize(("field", "body"), WRONG_FIELDS)
def test_a_wrong_field_is_named(client: FlaskClient, fakes: Fakes, field: str, body: bytes) -> None:
    answer = client.post("/orders", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.get_json()["error"]["message"].startswith(f"field {field}: ")
    assert not fakes.were_called()


def test_a_long_unknown_field_is_not_echoed_whole(client: FlaskClient) -> None:
    answer = client.post("/orders", json={"x" * 10_000: 1})
    assert len(answer.get_json()["error"]["message"]) < 100


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"],
)
def test_another_content_type(client: FlaskClient, fakes: Fakes, content_type: str | None) -> None:
    answer = client.post("/orders", data=json.dumps(TRADE), content_type=content_type)
    assert answer.status_code == 415
    assert answer.get_json()["error"]["code"] == 415
    assert not fakes.were_called()


def test_the_longest_body(client: FlaskClient) -> None:
    body = json.dumps(TRADE).encode().ljust(MAX_BODY_BYTES)
    assert client.post("/orders", data=body, content_type="application/json").status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_a_longer_body(client: FlaskClient, fakes: Fakes, declared: bool) -> None:
    body = json.dumps(TRADE).encode().ljust(MAX_BODY_BYTES + 1)
    # What a server does with a chunked body: it knows the end but not the length.
    environ = {} if declared else {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    answer = client.post(
        "/orders", data=body, content_type="application/json", environ_overrides=environ
    )
    assert answer.status_code == 413
    assert answer.get_json()["error"]["code"] == 413
    assert not fakes.were_called()


def test_a_body_that_ends_early(client: FlaskClient, fakes: Fakes) -> None:
    body = json.dumps(TRADE).encode()
    environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": str(len(body) + 1)}
    answer = client.post(
        "/orders", data=body, content_type="application/json", environ_overrides=environ
    )
    assert answer.status_code == 400
    assert not fakes.were_called()


BAD_KEYS = [
    "",
    '"',
    '""',
    '"key',
    'key"',
    '"a"b"',
    '"a","b"',
    '"a" "b"',
    "two words",
    '"two words"',
    "tab\there",
    "schlüssel",
    "\x7f",
    "x" * 256,
    '"' + "x" * 256 + '"',
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_idempotency_key(client: FlaskClient, fakes: Fakes, key: str) -> None:
    answer = client.post("/orders", json=TRADE, headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.get_json()["error"]["message"]
    assert answer.headers["X-Request-Id"] != key
    assert not fakes.were_called()


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255))
def test_every_visible_ascii_key_is_the_same_key_bare_and_quoted(key: str) -> None:
    if not (key.startswith('"') or key.endswith('"')):
        assert idempotency_key(key) == key
    if '"' not in key:
        assert idempotency_key(f'"{key}"') == key


@given(st.text())
def test_a_key_is_valid_or_refused(header: str) -> None:
    try:
        key = idempotency_key(header)
    except InvalidRequest:
        return
    assert is_valid_request_id(key)


BAD_NAMES = [
    "",
    "{}",
    "other=x",
    "{}=",
    "{}=a&{}=a",
    "{}=a&{}=b",
    "{}=" + "x" * 65,
    "{}=" + "x" * 8000,
    "{}=%ff",
    "{}=%c3%28",
    "{}=%",
    "{}=%4",
    "{}=%zz",
    "{}=a&other=%ff",
    "{}=%00",
    "{}=a%0ab",
    "{}=%e2%80%ae",
    "{}=%ed%a0%80",
]


@pytest.mark.parametrize(("path", "name"), [("/hello", "name"), ("/stocks", "stockname")])
@pytest.mark.parametrize("query", BAD_NAMES)
def test_a_bad_name_in_the_query(
    client: FlaskClient, fakes: Fakes, path: str, name: str, query: str
) -> None:
    answer = client.get(f"{path}?{query.replace('{}', name)}")
    assert answer.status_code == 400
    assert answer.get_json()["error"]["code"] == 400
    assert not fakes.were_called()


BAD_NUMBERS = [
    "",
    "order-number",
    "order-number=",
    "order_number=1",
    "order-number=1&order-number=1",
    "order-number=+5",
    "order-number=%2B5",
    "order-number=%205",
    "order-number=5%20",
    "order-number=5%0a",
    "order-number=5.0",
    "order-number=5e0",
    "order-number=0x5",
    "order-number=1_0",
    "order-number=--1",
    "order-number=-",
    "order-number=%D9%A5",
    "order-number=%C2%B2",
    "order-number=abc",
    "order-number=1%00",
    "order-number=%ff",
    "order-number=" + "9" * 5000 + "x",
]


@pytest.mark.parametrize("query", BAD_NUMBERS)
def test_a_bad_order_number(client: FlaskClient, fakes: Fakes, query: str) -> None:
    answer = client.get(f"/orders?{query}")
    assert answer.status_code == 400
    assert answer.get_json()["error"]["code"] == 400
    assert not fakes.were_called()


@given(st.binary())
def test_no_query_string_is_a_defect(query_string: bytes) -> None:
    for read in (name_parameter, order_number_parameter):
        try:
            read({"QUERY_STRING": query_string.decode("latin-1")}, "a")
        except InvalidRequest:
            continue


def test_zeros_in_front_are_read_once() -> None:
    """Every way to match them would be tried before such a number is refused."""

    def elapsed_s(number: str) -> float:
        started_at = time.perf_counter()
        with pytest.raises(InvalidRequest):
            order_number_parameter({"QUERY_STRING": f"n={number}x"}, "n")
        return time.perf_counter() - started_at

    zeros, others = (min(elapsed_s(digit * 8_000) for _ in range(5)) for digit in "01")
    assert zeros < 20 * others


@given(st.integers(), st.integers(0, 8_000))
def test_an_order_number_is_read_as_it_is_written(number: int, zeros: int) -> None:
    sign, digits = "-" * (number < 0), "0" * zeros + str(abs(number))
    read = order_number_parameter({"QUERY_STRING": f"n={sign}{digits}"}, "n")
    assert read == (number if 1 <= number < 2**63 else None)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text() | st.sampled_from([*TRADE]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_body_is_a_defect(body: bytes) -> None:
    try:
        trade = parse_trade(body, "id")
    except InvalidRequest:
        return
    assert {trade.name, trade.quantity, trade.type} <= set(json.loads(body).values())
