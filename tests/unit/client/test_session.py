"""`client session`: what it notices, what it counts, and how it ends."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client.__main__ import main
from client.api import BourseClient
from tests.unit.client.fake import (
    FakeBourse,
    Received,
    Refusal,
    Reply,
    garbage,
    half_an_answer,
    last_answer,
    lost_answer,
    reset,
    unavailable,
)

impatient = functools.partial(BourseClient, sleep=lambda _seconds: None)


@pytest.fixture
def bourse() -> Iterator[FakeBourse]:
    with FakeBourse() as bourse:
        yield bourse


@pytest.fixture
def run(bourse: FakeBourse, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a session; the exit code and the report."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        argv = ["session", "--url", bourse.url, "--json", "--probability", "1", "--seed", "1"]
        code = main([*argv, *arguments], impatient)
        return code, json.loads(capsys.readouterr().out)

    return run


def changes(path: str, **fields: Any) -> Callable[[Received, Reply], None]:
    """Puts these fields into the data of every 200 to this path."""

    def change(received: Received, reply: Reply) -> None:
        if f"{received.method} {received.path}".startswith(path) and reply.status == 200:
            reply.body = {"data": {**reply.body["data"], **fields}}

    return change


def test_a_session_verifies_what_it_made(bourse: FakeBourse, run: Callable[..., Any]) -> None:
    code, report = run("--requests", "25", "--clients", "4", "--alone")
    assert code == 0
    assert report["ok"]
    assert report["trades_done"] == len(bourse.orders) == report["orders_verified"]
    assert report["trades_done"] + report["trades_refused"] == 100
    assert report["requests"] == 200
    assert report["latency"]["trade"]["count"] == 100
    assert report["latency"]["order lookup"]["max_ms"] > 0
    assert (report["answers_5xx"], report["repeats"], report["reconnects"]) == (0, 0, 0)
    assert bourse.connections == 4
    keys = bourse.keys()
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_without_probability_there_are_no_trades(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    code, report = run("--requests", "10", "--probability", "0")
    assert (code, report["trades_done"], bourse.keys()) == (0, 0, [])


def test_a_stock_without_volume_is_only_sold(bourse: FakeBourse, run: Callable[..., Any]) -> None:
    bourse.before_reply = changes("GET /stocks", quantity=0)
    code, report = run("--requests", "10")
    assert (code, report["trades_done"]) == (0, 10)
    assert {order["type"] for order in bourse.orders} == {"SELL"}


def test_refusals_are_right_answers(bourse: FakeBourse, run: Callable[..., Any]) -> None:
    bourse.stocks = {"stock1": 1}
    bourse.before_reply = changes("GET /stocks", quantity=1000)
    code, report = run("--requests", "30", "--stocks", "stock1")
    assert code == 0
    assert report["trades_refused"] > 0


def test_an_unknown_stock_is_no_failure(run: Callable[..., Any]) -> None:
    code, report = run("--requests", "5", "--stocks", "nobody")
    assert (code, report["answers"]) == (0, {"404": 5})


def test_the_seed_repeats_the_choices(bourse: FakeBourse, run: Callable[..., Any]) -> None:
    _, report = run("--requests", "8", "--seed", "7")
    first, bourse.orders = bourse.orders, []
    run("--requests", "8", "--seed", "7")
    assert report["seed"] == 7
    assert bourse.orders == first
    assert len(set(bourse.keys())) == 16


def test_what_a_repeat_makes_good_is_counted_and_no_failure(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    bourse.misbehave("POST /orders", lost_answer, reset, half_an_answer, garbage, unavailable)
    bourse.misbehave("GET /orders", last_answer, unavailable, reset)
    code, report = run("--requests", "10", "--clients", "2", "--alone")
    assert code == 0
    assert report["answers_5xx"] == report["answers"]["503"] == 2
    assert report["repeats"] >= 7
    assert report["reconnects"] >= 6
    assert report["trades_done"] == len(bourse.orders)


@pytest.mark.parametrize(
    ("path", "fields", "detail"),
    [
        ("GET /orders", {"quantity": 77}, "is answered with order 1: "),
        ("GET /orders", {"number": 2}, "is answered with order 2: "),
        ("GET /orders", {"name": "stock77"}, "stock77"),
        ("GET /orders", {"type": "HOLD"}, "HOLD"),
        ("GET /orders", {"number": "1"}, "wrong type"),
        ("POST /orders", {"transaction_number": None}, "wrong type"),
        ("GET /stocks", {"name": "stock77"}, "answered for stock77"),
        ("GET /stocks", {"price": "free"}, "wrong type"),
    ],
)
def test_a_wrong_answer_is_a_mismatch(
    bourse: FakeBourse, run: Callable[..., Any], path: str, fields: dict[str, Any], detail: str
) -> None:
    bourse.before_reply = changes(path, **fields)
    code, report = run("--requests", "1")
    assert code == 1
    assert not report["ok"]
    assert detail in report["mismatches"][0]
    assert report["orders_verified"] == 0


def test_a_lost_order_is_a_mismatch(bourse: FakeBourse, run: Callable[..., Any]) -> None:
    def lose(received: Received, reply: Reply) -> None:
        if received.path.startswith("/orders?"):
            lost = Refusal(404, "order not found").reply
            reply.status, reply.body = lost.status, lost.body

    bourse.before_reply = lose
    code, report = run("--requests", "2")
    assert code == 1
    assert len(report["mismatches"]) == 2
    assert "order not found" in report["mismatches"][0]


def test_a_number_given_to_two_clients_is_a_mismatch(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    bourse.before_reply = changes("POST /orders", transaction_number=1)
    _, report = run("--requests", "1", "--clients", "2")
    assert any(line.startswith("the same number twice") for line in report["mismatches"])


def test_a_stale_quote_is_a_mismatch_for_who_trades_alone(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    bourse.before_reply = changes("GET /stocks", quantity=100)
    code, report = run("--requests", "10", "--stocks", "stock1")
    assert code == 0
    bourse.stocks["stock1"] = 100
    code, report = run("--requests", "10", "--stocks", "stock1", "--alone")
    assert code == 1
    assert "quantity 100, by the trades made it was " in report["mismatches"][0]


def test_a_stock_that_comes_or_goes_is_a_mismatch(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    def go(received: Received, _reply: Reply) -> None:
        if received.method == "POST":
            bourse.stocks.clear()

    bourse.before_reply = go
    code, report = run("--requests", "2", "--stocks", "stock1")
    assert code == 1
    assert "which was there before" in report["mismatches"][0]


def test_a_wrong_cache_header_is_a_mismatch(bourse: FakeBourse, run: Callable[..., Any]) -> None:
    def spoil(_received: Received, reply: Reply) -> None:
        reply.headers = {"X-Cache": "MAYBE"}

    bourse.before_reply = spoil
    code, report = run("--requests", "1", "--probability", "0")
    assert code == 1
    assert "X-Cache is 'MAYBE'" in report["mismatches"][0]


def test_a_request_that_stays_without_its_answer_is_a_failure(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    bourse.misbehave("POST /orders", *[unavailable] * 12)
    code, report = run("--requests", "3", "--alone")
    assert code == 1
    assert (report["answers_5xx"], report["mismatches"]) == (12, [])
    (failure,) = report["failures"]
    assert "503" in failure
    assert report["trades_done"] == report["orders_verified"] == 2


def test_a_client_that_gets_no_answers_any_more_gives_up(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    bourse.misbehave("GET /stocks", *[lost_answer] * 36)
    code, report = run("--requests", "1000")
    assert code == 1
    assert len(report["failures"]) == 4
    assert "gives up" in report["failures"][-1]
    assert len(bourse.received) == 36


def test_an_interrupt_ends_the_trading_but_not_the_verification(
    bourse: FakeBourse, run: Callable[..., Any]
) -> None:
    def interrupt(_received: Received, _reply: Reply) -> None:
        if len(bourse.received) == 50:
            os.kill(os.getpid(), signal.SIGINT)

    bourse.before_reply = interrupt
    code, report = run("--requests", "1000000", "--clients", "2")
    assert code == 0
    assert report["interrupted"]
    assert report["trades_done"] == report["orders_verified"] > 0


def test_the_report_for_people(bourse: FakeBourse, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["session", "--url", bourse.url, "--requests", "5", "--probability", "1"]
    assert main(argv, impatient) == 0
    report = capsys.readouterr().out
    assert "5xx answers seen: 0\n" in report
    assert "slowest trade: " in report
    assert "orders verified: 5 of 5\n" in report
    assert report.endswith("mismatches: 0\nresult: ok\n")
    bourse.before_reply = changes("GET /orders", quantity=77)
    assert main([*argv, "--requests", "60"], impatient) == 1
    report = capsys.readouterr().out
    assert "mismatches: 60\n" in report
    assert "… and 10 more" in report
    assert report.endswith("result: NOT OK\n")
