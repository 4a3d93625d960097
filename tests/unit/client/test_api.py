"""What `BourseClient` sends again, and what it never does."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from client.api import (
    INSUFFICIENT_VOLUME,
    BadUrl,
    BourseClient,
    Malformed,
    NoAnswer,
    Order,
    Quote,
    Request,
    RetryPolicy,
)
from tests.unit.client.fake import (
    FakeBourse,
    Handler,
    Mischief,
    Reply,
    garbage,
    half_an_answer,
    lost_answer,
    reset,
    unavailable,
)

BREAKS = [lost_answer, reset, half_an_answer, garbage]


@pytest.fixture
def bourse() -> Iterator[FakeBourse]:
    with FakeBourse() as bourse:
        yield bourse


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(bourse: FakeBourse, pauses: list[float]) -> Iterator[BourseClient]:
    policy = RetryPolicy(attempts=5, jitter=lambda _low, high: high)
    with BourseClient(bourse.url, retry=policy, sleep=pauses.append) as client:
        yield client


def test_what_is_asked_is_answered(client: BourseClient) -> None:
    assert client.hello("you").body == "Hello, you!"
    looked_up = client.lookup("stock1")
    assert looked_up.quote() == Quote("stock1", Decimal("25.78"), 100)
    assert looked_up.headers["x-cache"] == "MISS"
    assert client.trade("stock1", 3, "BUY", "a-key").order_number() == 1
    assert client.order(1).order() == Order(1, "stock1", "BUY", 3)
    refused = client.trade("stock1", 1000, "BUY")
    assert (refused.status, refused.error_message) == (404, INSUFFICIENT_VOLUME)
    assert client.traffic.reconnects == client.traffic.repeats == 0


def test_a_bad_url_is_refused_at_once() -> None:
    with pytest.raises(BadUrl):
        BourseClient("bourse.example")


@pytest.mark.parametrize("mischief", BREAKS)
def test_a_keyed_trade_is_repeated_under_the_same_key(
    bourse: FakeBourse, client: BourseClient, mischief: Mischief
) -> None:
    bourse.misbehave("POST /orders", mischief, mischief)
    answer = client.trade("stock1", 1, "BUY", "a-key")
    assert answer.status == 200
    assert answer.attempts == 3
    assert bourse.keys() == ["a-key"] * 3
    assert len(bourse.orders) == 1
    assert (client.traffic.repeats, client.traffic.reconnects) == (2, 2)


@pytest.mark.parametrize("mischief", BREAKS)
def test_a_trade_without_a_key_is_never_repeated(
    bourse: FakeBourse, client: BourseClient, mischief: Mischief
) -> None:
    bourse.misbehave("POST /orders", mischief)
    with pytest.raises(NoAnswer) as raised:
        client.trade("stock1", 1, "BUY")
    assert raised.value.may_have_arrived
    assert bourse.keys() == [None]


def test_a_trade_without_a_key_keeps_its_503(bourse: FakeBourse, client: BourseClient) -> None:
    bourse.misbehave("POST /orders", unavailable)
    assert client.trade("stock1", 1, "BUY").status == 503
    assert bourse.keys() == [None]


@pytest.mark.parametrize("mischief", BREAKS)
def test_a_lookup_is_repeated(bourse: FakeBourse, client: BourseClient, mischief: Mischief) -> None:
    bourse.misbehave("GET /stocks", mischief)
    assert client.lookup("stock1").attempts == 2


def test_a_503_is_repeated_when_the_server_says_and_counted(
    bourse: FakeBourse, client: BourseClient, pauses: list[float]
) -> None:
    bourse.misbehave("POST /orders", unavailable)
    assert client.trade("stock1", 1, "BUY", "a-key").status == 200
    assert bourse.keys() == ["a-key"] * 2
    assert pauses == [1.05]  # Retry-After, and the first pause
    assert client.traffic.answers == {503: 1, 200: 1}
    assert client.traffic.server_errors == 1


def test_a_server_that_stays_unavailable_is_believed_in_the_end(
    bourse: FakeBourse, client: BourseClient
) -> None:
    bourse.misbehave("GET /stocks", *[unavailable] * 5)
    answer = client.lookup("stock1")
    assert (answer.status, answer.attempts) == (503, 5)
    assert client.traffic.server_errors == 5


def test_a_probe_wants_its_503(bourse: FakeBourse, client: BourseClient) -> None:
    bourse.misbehave("GET /readyz", unavailable)
    assert client.send(Request("GET", "/readyz", awaits_recovery=False)).attempts == 1


def test_a_500_is_not_repeated(bourse: FakeBourse, client: BourseClient) -> None:
    bourse.misbehave("GET /stocks", lambda handler: handler.reply(Reply(500, "oops")))
    answer = client.lookup("stock1")
    assert (answer.status, answer.body, answer.attempts) == (500, "oops", 1)


def test_repeats_are_bounded_and_the_error_says_how(
    bourse: FakeBourse, client: BourseClient, pauses: list[float]
) -> None:
    bourse.misbehave("POST /orders", *[lost_answer] * 5)
    with pytest.raises(NoAnswer, match=r"POST /orders: .*\(attempts: 5, waited ") as raised:
        client.trade("stock1", 1, "BUY", "a-key")
    assert raised.value.may_have_arrived
    assert pauses == [0.05, 0.1, 0.2, 0.4]


def test_the_outcome_stays_unknown_when_only_the_last_attempts_did_not_leave() -> None:
    with FakeBourse() as bourse:

        def die(handler: Handler) -> None:
            lost_answer(handler)
            bourse.socket.close()

        bourse.misbehave("POST /orders", die)
        policy = RetryPolicy(attempts=2)
        with (
            BourseClient(bourse.url, retry=policy, sleep=lambda _s: None) as client,
            pytest.raises(NoAnswer) as raised,
        ):
            client.trade("stock1", 1, "BUY", "a-key")
    assert raised.value.may_have_arrived


def test_a_trade_without_a_key_may_wait_for_a_server_that_is_not_there(
    pauses: list[float],
) -> None:
    with FakeBourse() as gone:
        url = gone.url
    policy = RetryPolicy(attempts=3)
    client = BourseClient(url, retry=policy, sleep=pauses.append)
    with pytest.raises(NoAnswer) as raised:
        client.trade("stock1", 1, "BUY")
    assert not raised.value.may_have_arrived
    assert len(pauses) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"name": "stock1", "price": 25.78},
        {"name": "stock1", "price": 25.78, "quantity": -1},
        {"name": "stock1", "price": 25.78, "quantity": 2**53},
        {"name": "stock1", "price": 25.78, "quantity": 1.0},
        {"name": "stock1", "price": 25.789, "quantity": 1},
        {"name": "stock1", "price": True, "quantity": 1},
        {"name": 1, "price": 25.78, "quantity": 1},
        {"name": "stock1", "price": 25.78, "quantity": 1, "more": 1},
        None,
    ],
)
def test_a_malformed_quote_is_noticed(
    bourse: FakeBourse, client: BourseClient, data: object
) -> None:
    bourse.misbehave("GET /stocks", lambda handler: handler.reply(Reply(200, {"data": data})))
    with pytest.raises(Malformed):
        client.lookup("stock1").quote()


@pytest.mark.parametrize("body", [[], {}, {"data": {"transaction_number": 0}}, "3", "{"])
def test_a_malformed_order_number_is_noticed(
    bourse: FakeBourse, client: BourseClient, body: object
) -> None:
    bourse.misbehave("POST /orders", lambda handler: handler.reply(Reply(200, body)))
    with pytest.raises(Malformed):
        client.trade("stock1", 1, "BUY", "a-key").order_number()
