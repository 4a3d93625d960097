"""Every answer of the HTTP interface, from the containers; bad input changes nothing."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from stack.parts import ROOT
from tests.e2e.inside import digests
from tests.e2e.stack import Stack

JSON = {"Content-Type": "application/json"}
GOOD = {"name": "stock2", "quantity": 1, "type": "SELL"}


class Bad(NamedTuple):
    """A request that must be refused, and how."""

    title: str
    status: int
    says: str
    method: str = "POST"
    path: str = "/orders"
    body: bytes | None = None
    headers: Mapping[str, str] = JSON


def post(title: str, status: int, says: str, body: object, **headers: str) -> Bad:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Bad(title, status, says, body=raw, headers={**JSON, **named})


def get(title: str, status: int, says: str, path: str) -> Bad:
    return Bad(title, status, says, "GET", path, None, {})


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != field}


BAD = [
    post("not JSON", 400, "JSON", b"{"),
    post("not an object", 400, "object", [GOOD]),
    post("not UTF-8", 400, "", b'{"name":"\xff"}'),
    post("deep nesting", 400, "", b"[" * 8000),
    post("a number of 5,000 digits", 400, "", b'{"quantity":' + b"9" * 5000 + b"}"),
    post("NaN", 400, "", b'{"name":"stock2","quantity":NaN,"type":"BUY"}'),
    post("a field twice", 400, "", b'{"name":"stock2","name":"stock3","quantity":1,"type":"BUY"}'),
    *(post(f"no {field}", 400, field, without(field)) for field in GOOD),
    post("an unknown field", 400, "price", {**GOOD, "price": 1}),
    *(
        post(f"quantity {value!r}", 400, "quantity", {**GOOD, "quantity": value})
        for value in (0, -1, 1_000_000_001, 1.0, "1", True, None, [1])
    ),
    *(
        post(f"type {value!r}", 400, "type", {**GOOD, "type": value})
        for value in ("buy", "HOLD", "", 0, None)
    ),
    *(
        post(f"name {value!r}", 400, "name", {**GOOD, "name": value})
        for value in ("", "x" * 65, "a\nb", "\u0000", 7, None)
    ),
    post("an empty key", 400, "Idempotency-Key", GOOD, Idempotency_Key='""'),
    post("a key with a space", 400, "Idempotency-Key", GOOD, Idempotency_Key="a b"),
    post("a key too long", 400, "Idempotency-Key", GOOD, Idempotency_Key="k" * 256),
    post("an unknown stock", 404, "stock not found", {**GOOD, "name": "tulips"}),
    post(
        "too much", 404, "insufficient volume", {**GOOD, "quantity": 1_000_000_000, "type": "BUY"}
    ),
    post("a body too large", 413, "", {**GOOD, "name": "x" * 20_000}),
    post("another content type", 415, "", GOOD, Content_Type="text/plain"),
    Bad("no content type", 415, "", body=json.dumps(GOOD).encode(), headers={}),
    Bad("a wrong method", 405, "", "DELETE"),
    Bad("a wrong method for stocks", 405, "", path="/stocks", body=b"{}"),
    get("an unknown path", 404, "", "/nothing"),
    get("no stockname", 400, "stockname", "/stocks"),
    get("an empty stockname", 400, "stockname", "/stocks?stockname="),
    get("a stockname too long", 400, "stockname", "/stocks?stockname=" + "x" * 65),
    get("a stockname not UTF-8", 400, "malformed", "/stocks?stockname=%ff"),
    get("an unknown stock looked up", 404, "stock not found", "/stocks?stockname=tulips"),
    get("no order-number", 400, "order-number", "/orders"),
    get("an order-number that is a word", 400, "order-number", "/orders?order-number=one"),
    get("an order-number with a point", 400, "order-number", "/orders?order-number=1.0"),
    get("order 0", 404, "order not found", "/orders?order-number=0"),
    get("order -1", 404, "order not found", "/orders?order-number=-1"),
    get("an order of 5,000 digits", 404, "order not found", "/orders?order-number=" + "9" * 5000),
    get("an order not yet made", 404, "order not found", "/orders?order-number=999999999"),
    get("no name to greet", 400, "name", "/hello"),
]


def send(stack: Stack, bad: Bad) -> tuple[int, http.client.HTTPMessage, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=12)
    try:
        connection.request(bad.method, bad.path, bad.body, dict(bad.headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())
    finally:
        connection.close()


def test_bad_input_gets_its_error_and_changes_nothing(stack: Stack) -> None:
    before = digests(stack)
    quantities = [stack.get(f"/stocks?stockname=stock{n}")[2] for n in range(1, 11)]
    for bad in BAD:
        status, headers, body = send(stack, bad)
        assert status == bad.status, f"{bad.title}: {status} {body}"
        assert body["error"]["code"] == bad.status, bad.title
        assert bad.says in body["error"]["message"], f"{bad.title}: {body}"
        assert headers["Cache-Control"] == "no-store", bad.title
        assert ("Allow" in headers) == (status == 405), bad.title
    assert digests(stack) == before
    assert [stack.get(f"/stocks?stockname=stock{n}")[2] for n in range(1, 11)] == quantities


def test_a_trade_and_its_repeats(stack: Stack) -> None:
    key = str(uuid.uuid4())
    status, headers, body = stack.request("POST", "/orders", GOOD, {"Idempotency-Key": key})
    number = body["data"]["transaction_number"]
    assert status == 200
    assert headers["location"] == f"/orders?order-number={number}"
    assert "idempotency-replayed" not in headers
    for same in (key, f'"{key}"'):
        again = stack.request("POST", "/orders", GOOD, {"Idempotency-Key": same})
        assert (again[0], again[2]) == (200, body)
        assert again[1]["idempotency-replayed"] == "true"
    other = stack.request("POST", "/orders", {**GOOD, "quantity": 2}, {"Idempotency-Key": key})
    assert other[0] == 422
    expected = {"data": {"number": number, "name": "stock2", "type": "SELL", "quantity": 1}}
    assert stack.get(f"/orders?order-number={number}")[2] == expected


def test_a_refusal_stays_one(stack: Stack) -> None:
    """Refused once is refused for ever under that key, though the stock has come back."""
    volume = stack.get("/stocks?stockname=stock10")[2]["data"]["quantity"]
    too_much = {"name": "stock10", "quantity": volume + 1, "type": "BUY"}
    key = {"Idempotency-Key": str(uuid.uuid4())}
    assert stack.request("POST", "/orders", too_much, key)[0] == 404
    sale = {"name": "stock10", "quantity": 5, "type": "SELL"}
    assert stack.request("POST", "/orders", sale)[0] == 200
    status, headers, _ = stack.request("POST", "/orders", too_much, key)
    assert status == 404
    assert headers["idempotency-replayed"] == "true"


def test_the_cache_header_and_a_trade_in_between(stack: Stack) -> None:
    stack.execute("redis", "redis-cli", "FLUSHALL")
    path = "/stocks?stockname=stock3"
    first, second = stack.get(path), stack.get(path)
    assert [first[1]["x-cache"], second[1]["x-cache"]] == ["MISS", "HIT"]
    assert first[2] == second[2]
    stack.request("POST", "/orders", {"name": "stock3", "quantity": 1, "type": "SELL"})
    assert stack.get(path)[2]["data"]["quantity"] == first[2]["data"]["quantity"] + 1


def test_hello_and_health(stack: Stack) -> None:
    status, headers, body = stack.get("/hello?name=user")
    assert (status, body) == (200, "Hello, user!")
    assert headers["content-type"].startswith("text/plain")
    assert stack.get("/healthz")[0] == 200
    assert stack.get("/readyz")[0] == 200


def test_the_demo_sees_the_whole_api(stack: Stack) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "client", "demo", "--url", stack.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr


@pytest.mark.parametrize("service", ["catalog", "order-1", "order-2", "order-3"])
def test_health_and_reflection_are_served(stack: Stack, service: str) -> None:
    script = (
        "import grpc; from grpc_reflection.v1alpha import reflection_pb2 as pb;"
        "from grpc_reflection.v1alpha import reflection_pb2_grpc as stubs;"
        "stub = stubs.ServerReflectionStub(grpc.insecure_channel('127.0.0.1:50051'));"
        "asked = iter([pb.ServerReflectionRequest(list_services='')]);"
        "[answer] = stub.ServerReflectionInfo(asked, timeout=5);"
        "print([one.name for one in answer.list_services_response.service])"
    )
    names = stack.execute(service, "python", "-c", script)
    assert "bourse.v1." in names
    assert "grpc.health.v1.Health" in names
