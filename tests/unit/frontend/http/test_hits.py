"""Hits, which end in front of the application: the same answers, and nothing else ends there."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.errors import Unavailable
from frontend.http import request_start
from frontend.http.app import create_app
from frontend.http.hits import HitsFirst
from frontend.model import CacheResult, Quote
from tests.unit.frontend.http.fakes import Fakes


@pytest.fixture
def fakes() -> Fakes:
    fakes = Fakes()
    fakes.quotes.cache_result = CacheResult.HIT
    return fakes


@pytest.fixture
def client(fakes: Fakes) -> FlaskClient:
    return create_app(fakes.parts).test_client()


@pytest.fixture
def behind(fakes: Fakes) -> FlaskClient:
    """The application without what stands in front of it."""
    app = create_app(fakes.parts)
    assert isinstance(app.wsgi_app, HitsFirst)
    app.wsgi_app = app.wsgi_app._application  # type: ignore[method-assign]
    return app.test_client()


def shown(answer: TestResponse) -> tuple[str, dict[str, str], bytes]:
    """All of an answer but its id."""
    headers = {name.lower(): value for name, value in answer.headers}
    assert uuid.UUID(headers.pop("x-request-id")).version == 4
    return answer.status, headers, answer.data


@pytest.mark.parametrize(
    "quote",
    [
        Quote("stock1", Decimal("25.78"), 10, 1),
        Quote('株 "a"\\ </script>', Decimal("33333333333.33"), 2**53 - 1, 7),
        Quote("a+b c&d=e", Decimal("0.10"), 0, 2**53 - 1),
    ],
    ids=["plain", "unusual", "reserved"],
)
def test_a_hit_is_answered_as_the_application_would(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, quote: Quote
) -> None:
    fakes.quotes.stocks = {quote.name: quote}
    query = {"stockname": quote.name}
    answer = client.get("/stocks", query_string=query)
    assert answer.headers["X-Cache"] == "HIT"
    assert shown(answer) == shown(behind.get("/stocks", query_string=query))
    assert fakes.quotes.calls == [quote.name] * 2


def test_a_hit_never_reaches_the_application(client: FlaskClient) -> None:
    def fail() -> None:
        raise AssertionError

    client.application.before_request(fail)
    assert client.get("/stocks?stockname=stock1").status_code == 200


@pytest.mark.parametrize("result", [CacheResult.MISS, CacheResult.BYPASS])
def test_what_is_not_cached_is_looked_up_and_the_cache_asked_once(
    client: FlaskClient, fakes: Fakes, result: CacheResult
) -> None:
    fakes.quotes.cache_result = result
    asked: list[str] = []
    cached = fakes.quotes.cached
    fakes.quotes.cached = lambda name: (asked.append(name), cached(name))[1]  # type: ignore[method-assign]
    answer = client.get("/stocks?stockname=stock1")
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, result.value)
    assert asked == ["stock1"]


OTHERS = {
    "no name": ("GET", "/stocks", 400),
    "an empty name": ("GET", "/stocks?stockname=", 400),
    "two names": ("GET", "/stocks?stockname=stock1&stockname=stock2", 400),
    "bytes that are no text": ("GET", "/stocks?stockname=%ff", 400),
    "another method": ("POST", "/stocks?stockname=stock1", 405),
    "another path": ("GET", "/stocks/?stockname=stock1", 404),
    "another path with a slash more": ("GET", "//stocks?stockname=stock1", 404),
    "one that is not there": ("GET", "/hello?name=user", 200),
}


@pytest.mark.parametrize("case", OTHERS)
def test_everything_else_goes_on_to_the_application(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, case: str
) -> None:
    method, path, status = OTHERS[case]
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert shown(answer) == shown(behind.open(path, method=method))
    assert fakes.quotes.calls == []


@pytest.mark.parametrize("defect", [ZeroDivisionError("a defect"), OSError("a defect")])
def test_a_defect_is_answered_as_the_application_does(
    client: FlaskClient, behind: FlaskClient, fakes: Fakes, defect: Exception
) -> None:
    def fail(_name: str) -> Quote:
        raise defect

    fakes.quotes.cached = fail  # type: ignore[method-assign]
    answer = client.get("/stocks?stockname=stock1")
    assert answer.status_code == 500
    assert shown(answer) == shown(behind.get("/stocks?stockname=stock1"))


def test_asked_for_the_head_it_gives_the_head(client: FlaskClient) -> None:
    answer = client.head("/stocks?stockname=stock1")
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["X-Cache"] == "HIT"


def test_a_request_that_waited_too_long_is_no_hit(
    client: FlaskClient, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_start, "LONGEST_WAIT_S", -1.0)
    assert client.get("/stocks?stockname=stock1").status_code == 503
    assert fakes.quotes.calls == []


def test_without_cache_and_catalog_there_is_no_quote(client: FlaskClient, fakes: Fakes) -> None:
    fakes.quotes.error = Unavailable("the catalog cannot be reached")
    fakes.quotes.cache_result = CacheResult.BYPASS
    assert client.get("/stocks?stockname=stock1").status_code == 503
