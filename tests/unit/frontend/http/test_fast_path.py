"""The requests served without Flask are served as Flask would, whatever comes of them."""

from __future__ import annotations

import io
import logging
import time
import uuid
from decimal import Decimal
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common import logs
from common.errors import Internal, KeyReused, OutcomeUnknown, Unavailable
from frontend.http.app import create_app
from frontend.http.fast_path import FastPath
from frontend.model import CacheResult, Decision, Quote
from tests.unit.frontend.http.fakes import DONE, Fakes

TRADE = b'{"name":"stock1","quantity":10,"type":"BUY"}'
JSON = "application/json"
LOOKUP = "/stocks?stockname=stock1"


@pytest.fixture
def fakes() -> Fakes:
    fakes = Fakes()
    fakes.quotes.cache_result = CacheResult.HIT
    return fakes


@pytest.fixture
def client(fakes: Fakes) -> FlaskClient:
    return create_app(fakes.parts).test_client()


@pytest.fixture
def flask_alone(fakes: Fakes) -> FlaskClient:
    """The application without what stands in front of it."""
    app = create_app(fakes.parts)
    assert isinstance(app.wsgi_app, FastPath)
    app.wsgi_app = app.wsgi_app.application  # type: ignore[method-assign]
    return app.test_client()


def post(client: FlaskClient, **more: Any) -> TestResponse:
    return client.post("/orders", **{"data": TRADE, "content_type": JSON, **more})


def shown(answer: TestResponse) -> tuple[str, dict[str, str], bytes]:
    """All of an answer but its id."""
    headers = {name.lower(): value for name, value in answer.headers}
    assert headers.pop("x-request-id")
    return answer.status, headers, answer.data


def fail() -> None:
    raise AssertionError("this is Flask's")


@pytest.mark.parametrize("ask", [post, lambda client: client.get(LOOKUP)], ids=["trade", "lookup"])
def test_they_never_reach_flask(client: FlaskClient, ask: Any) -> None:
    client.application.before_request(fail)
    assert ask(client).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/orders"),
        ("HEAD", LOOKUP),
        ("POST", LOOKUP),
        ("POST", "/orders/"),
        ("GET", "//stocks?stockname=stock1"),
        ("GET", "/hello?name=user"),
    ],
)
def test_all_others_do(client: FlaskClient, fakes: Fakes, method: str, path: str) -> None:
    client.application.before_request(fail)
    assert client.open(path, method=method, data=TRADE, content_type=JSON).status_code == 500
    assert not fakes.were_called()


QUOTES = {
    "plain": Quote("stock1", Decimal("25.78"), 10, 1),
    "unusual": Quote('株 "a"\\ </script>', Decimal("33333333333.33"), 2**53 - 1, 7),
    "reserved": Quote("a+b c&d=e", Decimal("0.10"), 0, 2**53 - 1),
}


@pytest.mark.parametrize("result", CacheResult)
@pytest.mark.parametrize("quote", QUOTES.values(), ids=QUOTES)
def test_a_lookup(
    client: FlaskClient, flask_alone: FlaskClient, fakes: Fakes, quote: Quote, result: CacheResult
) -> None:
    fakes.quotes.stocks = {quote.name: quote}
    fakes.quotes.cache_result = result
    query = {"stockname": quote.name}
    answer = client.get("/stocks", query_string=query)
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, result.value)
    assert fakes.quotes.calls == [quote.name]
    assert shown(answer) == shown(flask_alone.get("/stocks", query_string=query))


@pytest.mark.parametrize(
    "query", ["", "stockname=", "stockname=a&stockname=b", "stockname=%ff", "stockname=nothing"]
)
def test_a_lookup_that_finds_nothing(
    client: FlaskClient, flask_alone: FlaskClient, query: str
) -> None:
    answer = client.get("/stocks", query_string=query)
    assert answer.status_code in {400, 404}
    assert shown(answer) == shown(flask_alone.get("/stocks", query_string=query))


ERRORS: list[Exception] = [
    Unavailable("the catalog is unavailable"),
    Internal("not for the client"),
    ZeroDivisionError("not for the client"),
    BrokenPipeError("not the client's"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_lookup_that_fails(
    client: FlaskClient, flask_alone: FlaskClient, fakes: Fakes, error: Exception
) -> None:
    fakes.quotes.error = error
    answer = client.get(LOOKUP)
    assert answer.status_code == (503 if isinstance(error, Unavailable) else 500)
    assert shown(answer) == shown(flask_alone.get(LOOKUP))


OUTCOMES: dict[str, Decision | Exception] = {
    "done": DONE,
    "done before": Decision(1, 3, 7, 0, replayed=True),
    "insufficient volume": Decision(0, -1, 0, 0, replayed=False),
    "refused before": Decision(0, -1, 0, 0, replayed=True),
    "no such stock": Decision(-1, -1, 0, 0, replayed=False),
    "key reused": KeyReused(),
    "unknown": OutcomeUnknown(),
    **{repr(error): error for error in ERRORS},
}


@pytest.mark.parametrize("headers", [{"Idempotency-Key": '"key-1"'}, {}], ids=["key", "no key"])
@pytest.mark.parametrize("case", OUTCOMES)
def test_a_trade_is_decided_once_whatever_comes_of_it(
    client: FlaskClient,
    flask_alone: FlaskClient,
    fakes: Fakes,
    case: str,
    headers: dict[str, str],
) -> None:
    outcome = OUTCOMES[case]

    def decide(_trade: object) -> Decision:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    fakes.trades.decide = decide
    answer = post(client, headers=headers)
    (trade,) = fakes.trades.calls
    assert answer.headers["X-Request-Id"] == trade.request_id
    assert fakes.trades.request_ids_in_context == [trade.request_id]
    assert not headers or trade.request_id == "key-1"
    assert logs.request_id.get() == "-"
    assert shown(answer) == shown(post(flask_alone, headers=headers))


def test_without_a_key_each_trade_has_a_request_id_of_its_own(client: FlaskClient) -> None:
    ids = {post(client).headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    assert {uuid.UUID(one).version for one in ids} == {4}


class Broken(Exception):
    """What some server raises for a broken body."""


class BrokenBody(io.BytesIO):
    def read(self, _size: int | None = -1, /) -> bytes:
        raise Broken


UNUSUAL: dict[str, tuple[int, dict[str, Any]]] = {
    "no JSON": (400, {"data": b"{"}),
    "a field too many": (400, {"data": TRADE[:-1] + b',"more":1}'}),
    "nothing": (400, {"data": b""}),
    "another type": (415, {"content_type": "text/plain"}),
    "no type": (415, {"content_type": None}),
    "a type with more to it": (200, {"content_type": "Application/JSON; charset=utf-8"}),
    "too long a body": (413, {"data": b" " * (16 * 1024 + 1)}),
    "the longest body": (200, {"data": TRADE.ljust(16 * 1024)}),
    "a malformed key": (400, {"headers": {"Idempotency-Key": '"key'}}),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_an_unusual_trade(
    client: FlaskClient, flask_alone: FlaskClient, fakes: Fakes, case: str
) -> None:
    status, options = UNUSUAL[case]
    answer, as_flask = post(client, **options), post(flask_alone, **options)
    assert answer.status_code == status
    assert shown(answer) == shown(as_flask)
    assert len(fakes.trades.calls) == (2 if status == 200 else 0)


def as_gunicorn_does(body: io.BytesIO) -> dict[str, object]:
    """A body that is shorter than its Content-Length."""
    length = str(len(TRADE) + 1)
    return {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": length}


@pytest.mark.parametrize("body", [io.BytesIO, BrokenBody], ids=["ends early", "broken"])
def test_a_body_that_cannot_be_read(
    client: FlaskClient, flask_alone: FlaskClient, fakes: Fakes, body: type[io.BytesIO]
) -> None:
    answers = [
        post(asked, environ_overrides=as_gunicorn_does(body(TRADE)))
        for asked in (client, flask_alone)
    ]
    assert answers[0].status_code == 400
    assert shown(answers[0]) == shown(answers[1])
    assert fakes.trades.calls == []


@pytest.fixture
def stamped() -> dict[str, str]:
    """Headers of a request that came in 8 s ago."""
    return {"X-Request-Start": f"t={int((time.time() - 8) * 1000)}"}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [LOOKUP, "/orders", "/hello?name=user", "/nothing"])
def test_a_request_that_is_too_old_is_refused_before_any_work(
    client: FlaskClient, fakes: Fakes, stamped: dict[str, str], method: str, path: str
) -> None:
    answer = client.open(path, method=method, data=TRADE, content_type=JSON, headers=stamped)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert not fakes.were_called()
    # An earlier copy of it may have been executed.
    message = answer.get_json()["error"]["message"]
    assert (message == OutcomeUnknown.default_message) is (method == "POST")


def test_a_trade_is_told_how_old_its_request_is(
    client: FlaskClient, flask_alone: FlaskClient, fakes: Fakes
) -> None:
    for asked in (client, flask_alone):
        headers = {"X-Request-Start": f"t={int((time.time() - 2) * 1000)}"}
        assert post(asked, headers=headers).status_code == 200
        assert post(asked).status_code == 200
    assert fakes.trades.elapsed_s == [pytest.approx(2, abs=0.5), 0.0] * 2


LOGGED = {
    "hit": ("GET", LOOKUP, "GET /stocks 200 ", logging.DEBUG),
    "no such stock": ("GET", LOOKUP + "0", "GET /stocks 404 ", logging.INFO),
    "trade": ("POST", "/orders", "POST /orders 200 ", logging.INFO),
}


@pytest.mark.parametrize("asked", ["client", "flask_alone"])
@pytest.mark.parametrize("case", LOGGED)
def test_each_is_logged_once_under_the_id_that_the_client_gets(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, asked: str, case: str
) -> None:
    method, path, message, level = LOGGED[case]
    caplog.set_level(logging.DEBUG)
    ids: list[str] = []
    caplog.handler.addFilter(lambda _record: ids.append(logs.request_id.get()) or True)
    client: FlaskClient = request.getfixturevalue(asked)
    answer = client.open(path, method=method, data=TRADE, content_type=JSON)
    (record,) = caplog.records
    assert record.getMessage().startswith(message)
    assert record.levelno == level
    assert ids == [answer.headers["X-Request-Id"]]
