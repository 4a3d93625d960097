"""What every answer has, and what becomes of errors that no route foresees."""

from __future__ import annotations

import logging
import uuid

import pytest
from flask.testing import FlaskClient

from common import logs
from common.errors import Busy, Damaged, Internal, NotActive, NotLeader, StaleEpoch, Unavailable
from frontend.http.app import create_app
from tests.unit.frontend.http.fakes import Fakes


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def client(fakes: Fakes) -> FlaskClient:
    return create_app(fakes.parts).test_client()


@pytest.mark.parametrize("path", ["/", "/nothing", "/orders/", "//orders", "/hello/user", "/HELLO"])
def test_unknown_paths(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.text == '{"error":{"code":404,"message":"Not Found"}}\n'


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/hello", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/stocks", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/orders", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("PATCH", "/orders", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/readyz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_wrong_methods(client: FlaskClient, method: str, path: str, allowed: set[str]) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == 405
    assert answer.get_json() == {"error": {"code": 405, "message": "Method Not Allowed"}}
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/hello?name=a"),
        ("HEAD", "/hello?name=a"),
        ("OPTIONS", "/orders"),
        ("GET", "/hello"),
        ("GET", "/nothing"),
        ("PUT", "/orders"),
        ("POST", "/orders"),
        ("GET", "/readyz"),
        ("GET", "/stocks?stockname=stock1"),
    ],
)
def test_every_answer_has_an_id_and_is_not_stored(
    client: FlaskClient, fakes: Fakes, method: str, path: str
) -> None:
    fakes.quotes.error = RuntimeError("a defect")
    answer = client.open(path, method=method)
    assert answer.headers["Cache-Control"] == "no-store"
    assert uuid.UUID(answer.headers["X-Request-Id"]).version == 4
    assert logs.request_id.get() == "-"


def test_ids_differ(client: FlaskClient) -> None:
    ids = {client.get("/healthz").headers["X-Request-Id"] for _ in range(10)}
    assert len(ids) == 10


def test_an_id_is_not_taken_from_the_client(client: FlaskClient) -> None:
    answer = client.get("/healthz", headers={"X-Request-Id": "forged"})
    assert answer.headers["X-Request-Id"] != "forged"


def test_an_unexpected_exception_is_told_to_the_log_only(
    client: FlaskClient, fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.quotes.error = RuntimeError("the secret of the house")
    answer = client.get("/stocks?stockname=stock1")
    assert answer.text == '{"error":{"code":500,"message":"internal error"}}\n'
    assert answer.status_code == 500
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "the secret of the house"


@pytest.mark.parametrize("kind", [Internal, Damaged])
def test_a_defect_elsewhere_is_told_to_the_log_only(
    client: FlaskClient, fakes: Fakes, caplog: pytest.LogCaptureFixture, kind: type[Internal]
) -> None:
    fakes.quotes.error = kind("the secret of the house")
    answer = client.get("/stocks?stockname=stock1")
    assert answer.text == '{"error":{"code":500,"message":"internal error"}}\n'
    assert "the secret of the house" in caplog.text


@pytest.mark.parametrize("kind", [Unavailable, Busy, NotLeader, NotActive, StaleEpoch])
def test_every_503_says_when_to_come_again(
    client: FlaskClient, fakes: Fakes, kind: type[Unavailable]
) -> None:
    fakes.quotes.error = kind()
    answer = client.get("/stocks?stockname=stock1")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json()["error"] == {"code": 503, "message": kind.default_message}


def test_one_line_for_each_request(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client.get("/hello?name=user")
    client.put("/orders")
    first, second = caplog.records
    assert first.getMessage().startswith("GET /hello 200 ")
    assert first.getMessage().endswith(" ms")
    assert first.levelno == logging.DEBUG
    assert second.getMessage().startswith("PUT /orders 405 ")
    assert second.levelno == logging.INFO


@pytest.mark.parametrize(
    "path", ["/a%0aFORGED", "/a%0d%0aFORGED", "/a%1b[2K", "/a%E2%80%A8FORGED", "/%C2%85", "/%25"]
)
def test_a_path_cannot_forge_a_line(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.INFO)
    client.get(path)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.isascii()
    assert message.isprintable()
    assert len(message.split()) == 5
