"""Trades decided in front of the application: once each, and answered as it would answer."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.errors import Internal, KeyReused, OutcomeUnknown, Unavailable
from frontend.http import request_start
from frontend.http.app import create_app
from frontend.http.done import DoneFirst
from frontend.http.hits import HitsFirst
from frontend.model import Decision
from tests.unit.frontend.http.fakes import DONE, Fakes

TRADE = b'{"name":"stock1","quantity":10,"type":"BUY"}'
KEY = {"Idempotency-Key": "key-1"}


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def app(fakes: Fakes) -> Flask:
    return create_app(fakes.parts)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def behind(fakes: Fakes) -> FlaskClient:
    """The application without what stands in front of it."""
    app = create_app(fakes.parts)
    hits_first: Any = app.wsgi_app
    assert isinstance(hits_first, HitsFirst)
    assert isinstance(hits_first._application, DoneFirst)
    app.wsgi_app = hits_first._application._application  # type: ignore[method-assign]
    return app.test_client()


def post(client: FlaskClient, body: bytes = TRADE, **more: Any) -> TestResponse:
    return client.post("/orders", data=body, content_type="application/json", **more)


def shown(answer: TestResponse) -> tuple[str, dict[str, str], bytes]:
    return answer.status, {name.lower(): value for name, value in answer.headers}, answer.data


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("key", ["key-1", '"key-1"'])
def test_a_done_trade_is_answered_as_the_application_would(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, key: str, replayed: bool
) -> None:
    fakes.trades.decide = lambda _trade: Decision(1, 3, 7, 0, replayed=replayed)
    headers = {"Idempotency-Key": key}
    answer = post(client, headers=headers)
    assert answer.headers["X-Request-Id"] == "key-1"
    assert shown(answer) == shown(post(behind, headers=headers))
    first, second = fakes.trades.calls
    assert first == second
    assert fakes.trades.request_ids_in_context == ["key-1"] * 2


def test_a_done_trade_never_reaches_the_application(client: FlaskClient) -> None:
    def fail() -> None:
        raise AssertionError

    client.application.before_request(fail)
    assert post(client).status_code == 200


def test_without_a_key_each_trade_has_a_request_id_of_its_own(
    client: FlaskClient, fakes: Fakes
) -> None:
    ids = [post(client).headers["X-Request-Id"] for _ in range(2)]
    assert ids == [trade.request_id for trade in fakes.trades.calls]
    assert ids[0] != ids[1]


NOT_DONE: dict[str, Decision | Exception] = {
    "insufficient volume": Decision(0, -1, 0, 0, replayed=False),
    "refused before": Decision(0, -1, 0, 0, replayed=True),
    "no such stock": Decision(-1, -1, 0, 0, replayed=False),
    "key reused": KeyReused(),
    "unknown": OutcomeUnknown(),
    "nobody takes it": Unavailable("no order replica can take trades now"),
    "failed by itself": Internal("not for the client"),
    "a defect": ZeroDivisionError("not for the client"),
    "a broken connection": BrokenPipeError("not the client's"),
}


@pytest.mark.parametrize("headers", [KEY, {}], ids=["key", "no key"])
@pytest.mark.parametrize("case", NOT_DONE)
def test_what_was_not_done_is_decided_once_and_answered_by_the_application(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, case: str, headers: dict[str, str]
) -> None:
    outcome = NOT_DONE[case]

    def decide(_trade: object) -> Decision:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    fakes.trades.decide = decide
    answer = post(client, headers=headers)
    (trade,) = fakes.trades.calls
    assert answer.headers["X-Request-Id"] == trade.request_id
    expected = shown(post(behind, headers=KEY))
    expected[1]["x-request-id"] = trade.request_id
    assert shown(answer) == expected


UNUSUAL: dict[str, dict[str, Any]] = {
    "no JSON": {"data": b"{", "content_type": "application/json"},
    "a field too many": {"data": TRADE[:-1] + b',"more":1}', "content_type": "application/json"},
    "nothing": {"data": b"", "content_type": "application/json"},
    "another type": {"data": TRADE, "content_type": "text/plain"},
    "no type": {"data": TRADE},
    "a type with more to it": {"data": TRADE, "content_type": "application/json; charset=utf-8"},
    "too long a body": {"data": b" " * (16 * 1024 + 1), "content_type": "application/json"},
    "the longest body": {
        "data": TRADE + b" " * (16 * 1024 - len(TRADE)),
        "content_type": "application/json",
    },
    "a malformed key": {
        "data": TRADE,
        "content_type": "application/json",
        "headers": {"Idempotency-Key": '"key'},
    },
    "a body that ends early": {
        "input_stream": io.BytesIO(TRADE[:-5]),
        "content_length": len(TRADE),
        "content_type": "application/json",
    },
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_what_is_asked_otherwise_is_answered_as_the_application_would(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, case: str
) -> None:
    answers = []
    for asked in (client, behind):
        options = dict(UNUSUAL[case])
        if "input_stream" in options:
            options["input_stream"] = io.BytesIO(TRADE[:-5])
        status, headers, body = shown(asked.post("/orders", **options))
        headers.pop("x-request-id")
        answers.append((status, headers, body))
    assert answers[0] == answers[1]
    assert len(fakes.trades.calls) in {0, 2}


@pytest.mark.parametrize(("method", "path"), [("GET", "/orders"), ("POST", "/orders/")])
def test_everything_else_goes_on_to_the_application(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, method: str, path: str
) -> None:
    options = {"data": TRADE, "content_type": "application/json"}
    status = client.open(path, method=method, **options).status_code  # type: ignore[arg-type]
    assert status == behind.open(path, method=method, **options).status_code  # type: ignore[arg-type]
    assert fakes.trades.calls == []


def test_a_trade_that_waited_too_long_is_not_decided(
    client: FlaskClient, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_start, "LONGEST_WAIT_S", -1.0)
    assert post(client).status_code == 503
    assert fakes.trades.calls == []


@pytest.mark.parametrize("status", [1, 0])
def test_a_trade_is_logged_once_under_its_id(
    client: FlaskClient, fakes: Fakes, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO)
    decision = DONE if status else Decision(0, -1, 0, 0, replayed=False)
    fakes.trades.decide = lambda _trade: decision
    code = post(client, headers=KEY).status_code
    (record,) = caplog.records
    assert record.getMessage().startswith(f"POST /orders {code} ")
