"""One connection: where it leads, when it is kept, and how it says that it broke."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from client.api import BadUrl, BaseUrl, Connection, NoAnswer, Request
from tests.unit.client.fake import (
    FakeBourse,
    Mischief,
    half_an_answer,
    last_answer,
    lost_answer,
    reset,
    silence,
)


@pytest.fixture
def bourse() -> Iterator[FakeBourse]:
    with FakeBourse() as bourse:
        yield bourse


@pytest.fixture
def connection(bourse: FakeBourse) -> Iterator[Connection]:
    connection = Connection(BaseUrl.parse(bourse.url), timeout_s=5)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1:26111", BaseUrl("http", "127.0.0.1", 26111, "")),
        ("https://bourse.example", BaseUrl("https", "bourse.example", 443, "")),
        ("http://bourse.example/", BaseUrl("http", "bourse.example", 80, "")),
        ("http://[::1]:8080/api/v1/", BaseUrl("http", "::1", 8080, "/api/v1")),
    ],
)
def test_a_url_is_taken_apart(text: str, expected: BaseUrl) -> None:
    assert BaseUrl.parse(text) == expected
    assert BaseUrl.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:26111",
        "ftp://host",
        "http://",
        "http://:26111",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://user:secret@host",
        "http://host/?stock=1",
        "http://host/#top",
        "http://ho st",
        "http://host\n",
        "http://höst",
    ],
)
def test_a_bad_url_is_named(text: str) -> None:
    with pytest.raises(BadUrl) as raised:
        BaseUrl.parse(text)
    assert repr(text) in str(raised.value)


def test_one_connection_serves_many_requests(bourse: FakeBourse, connection: Connection) -> None:
    for _ in range(3):
        assert connection.exchange(Request.hello("you")).body == "Hello, you!"
    assert bourse.connections == connection.times_opened == 1


def test_the_prefix_precedes_every_path(bourse: FakeBourse) -> None:
    connection = Connection(BaseUrl.parse(f"{bourse.url}/api/"), timeout_s=5)
    connection.exchange(Request.lookup("a b/ü"))
    connection.close()
    assert bourse.received[0].path == "/api/stocks?stockname=a%20b%2F%C3%BC"


def test_an_idle_connection_that_was_closed_is_replaced_before_anything_is_sent(
    bourse: FakeBourse, connection: Connection
) -> None:
    bourse.misbehave("GET /hello", last_answer)
    connection.exchange(Request.hello("you"))
    bourse.wait_until_closed(1)
    assert connection.exchange(Request.trade("stock1", 1, "BUY")).status == 200
    assert connection.times_opened == 2


@pytest.mark.parametrize("mischief", [lost_answer, reset, half_an_answer])
def test_a_broken_answer_may_have_arrived(
    bourse: FakeBourse, connection: Connection, mischief: Mischief
) -> None:
    bourse.misbehave("POST /orders", mischief)
    with pytest.raises(NoAnswer) as raised:
        connection.exchange(Request.trade("stock1", 1, "BUY"))
    assert raised.value.may_have_arrived
    assert connection.exchange(Request.hello("you")).status == 200


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_the_timeout(
    bourse: FakeBourse,
) -> None:
    bourse.misbehave("GET /hello", silence)
    connection = Connection(BaseUrl.parse(bourse.url), timeout_s=0.02)
    with pytest.raises(NoAnswer, match="timed out"):
        connection.exchange(Request.hello("you"))


def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    with FakeBourse() as gone:
        base = BaseUrl.parse(gone.url)
    connection = Connection(base, timeout_s=5)
    with pytest.raises(NoAnswer, match="cannot connect to http://127") as raised:
        connection.exchange(Request.trade("stock1", 1, "BUY"))
    assert not raised.value.may_have_arrived
    assert connection.times_opened == 0
