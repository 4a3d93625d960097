"""`client demo`: right against a right server, and wrong against a wrong one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from client.__main__ import main
from client.api import BourseClient
from tests.unit.client.fake import (
    FakeBourse,
    Received,
    Reply,
    half_an_answer,
    lost_answer,
    unavailable,
)

Change = Callable[[Received, Reply], None]
impatient = functools.partial(BourseClient, sleep=lambda _seconds: None)


@pytest.fixture
def bourse() -> Iterator[FakeBourse]:
    with FakeBourse() as bourse:
        yield bourse


@pytest.fixture
def demo(bourse: FakeBourse, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """Runs it; the exit code and what it says."""

    def run() -> tuple[int, str]:
        code = main(["demo", "--url", bourse.url], impatient)
        return code, capsys.readouterr().out

    return run


Demo = Callable[[], tuple[int, str]]


def test_all_is_as_it_should_be_again_and_again(bourse: FakeBourse, demo: Demo) -> None:
    for _ in range(2):
        code, text = demo()
        assert code == 0
        assert "MISMATCH" not in text
        assert "53 of 53 steps" in text
        assert bourse.stocks["stock1"] == 100
    assert [order["type"] for order in bourse.orders] == ["SELL", "BUY"] * 2


@pytest.mark.parametrize("quantity", [0, 1_000_000_000, 2**53 - 10])
def test_any_state_of_the_stock_will_do(bourse: FakeBourse, demo: Demo, quantity: int) -> None:
    bourse.stocks["stock1"] = quantity
    code, text = demo()
    assert code == 0
    assert ("skipped" in text) == (quantity > 0)
    assert bourse.stocks["stock1"] == quantity


def test_without_redis_every_lookup_bypasses_the_cache(bourse: FakeBourse, demo: Demo) -> None:
    def bypass(_received: Received, reply: Reply) -> None:
        if "X-Cache" in reply.headers:
            reply.headers = {"X-Cache": "BYPASS"}

    bourse.before_reply = bypass
    assert demo()[0] == 0


def test_trades_of_others_are_told_from_wrong_quantities(bourse: FakeBourse, demo: Demo) -> None:
    def trade_too(received: Received, _reply: Reply) -> None:
        if received.key is not None:
            bourse.stocks["stock1"] += 5
            bourse.orders.append({"number": len(bourse.orders) + 1, "name": "stock1"})

    bourse.before_reply = trade_too
    code, text = demo()
    assert code == 0
    assert "cannot be compared: others made 1 orders meanwhile" in text


def never_replayed(_received: Received, reply: Reply) -> None:
    reply.headers.pop("Idempotency-Replayed", None)


def stale(received: Received, reply: Reply) -> None:
    if received.path.startswith("/stocks") and reply.status == 200:
        reply.body["data"]["quantity"] = 100


def never_cached(_received: Received, reply: Reply) -> None:
    if "X-Cache" in reply.headers:
        reply.headers["X-Cache"] = "MISS"


def wrong_code(_received: Received, reply: Reply) -> None:
    if reply.status == 405:
        reply.body["error"]["code"] = 400


def nameless(_received: Received, reply: Reply) -> None:
    if reply.status == 400:
        reply.body["error"]["message"] = "bad request"


def plain_error(_received: Received, reply: Reply) -> None:
    if reply.status == 413:
        reply.body = "<h1>Too large</h1>"


def reworded(_received: Received, reply: Reply) -> None:
    if reply.status == 404:
        reply.body["error"]["message"] = "no"


def rude(received: Received, reply: Reply) -> None:
    if received.path.startswith("/hello?"):
        reply.body = "Hi"


def without_allow(_received: Received, reply: Reply) -> None:
    reply.headers.pop("Allow", None)


def misquoted(received: Received, reply: Reply) -> None:
    if received.path.startswith("/stocks") and reply.status == 200:
        reply.body["data"]["price"] = None


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (never_replayed, "there is no Idempotency-Replayed"),
        (stale, "quantity is 100"),
        (never_cached, "X-Cache is MISS"),
        (wrong_code, "the error's code is 400"),
        (nameless, "the message does not name quantity"),
        (plain_error, "the body is not an error of the API"),
        (reworded, "the message is 'no'"),
        (rude, "the body is 'Hi'"),
        (without_allow, "there is no Allow"),
        (misquoted, "price has the wrong type"),
    ],
)
def test_what_is_wrong_is_said(bourse: FakeBourse, demo: Demo, change: Change, detail: str) -> None:
    bourse.before_reply = change
    code, text = demo()
    assert code == 1
    (line, *_) = [line for line in text.splitlines() if detail in line and "MISMATCH" in line]
    assert line.startswith("   MISMATCH  ")


def test_what_was_sold_is_bought_back_if_the_walk_did_not(bourse: FakeBourse, demo: Demo) -> None:
    def no_number(received: Received, reply: Reply) -> None:
        if received.method == "POST" and reply.status == 200:
            reply.body = {"data": {}}

    bourse.before_reply = no_number
    code, text = demo()
    assert code == 1
    assert "to leave the books as they were: BUY 2: 200" in text
    assert bourse.stocks["stock1"] == 100


def test_a_trade_of_unknown_outcome_is_not_made_good_for(bourse: FakeBourse, demo: Demo) -> None:
    def lose_unkeyed(received: Received, reply: Reply) -> None:
        if received.key is None and reply.status == 200 and received.method == "POST":
            raise ConnectionAbortedError

    bourse.before_reply = lose_unkeyed
    code, text = demo()
    assert code == 1
    assert "MISMATCH  no answer: POST /orders" in text
    assert "whether a trade was executed is unknown" in text


def test_broken_connections_are_no_mismatch(bourse: FakeBourse, demo: Demo) -> None:
    bourse.misbehave("GET /stocks", half_an_answer, lost_answer)
    bourse.misbehave("POST /orders", unavailable, half_an_answer)
    assert demo()[0] == 0


def test_a_service_that_is_not_ready_is_a_mismatch(bourse: FakeBourse, demo: Demo) -> None:
    bourse.misbehave("GET /readyz", unavailable)
    code, text = demo()
    assert code == 1
    assert "the status is 503" in text
