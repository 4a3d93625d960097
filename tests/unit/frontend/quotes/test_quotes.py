"""Quotes and the breaker before them; neither a clock nor a Redis is real here."""

from __future__ import annotations

import logging
from decimal import Decimal

import pytest
import redis

from common.errors import Unavailable
from frontend.model import CacheResult, Quote
from frontend.quotes.breaker import CircuitBreaker, CircuitOpen
from frontend.quotes.cache import Hit, Miss, PutOutcome, Token
from frontend.quotes.quotes import (
    CachedQuotes,
    UncachedQuotes,
    decode_quote,
    encode_quote,
)
from tests.support.clock import Clock

QUOTE = Quote("stock1", Decimal("25.78"), quantity=100, version=7)
TOKEN = Token("generation", 1_000)


class FakeParts:
    """Cache and catalog in one, so that the order of what is asked of them shows."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.found: Hit | Miss = Miss(TOKEN)
        self.stock: Quote | None = QUOTE
        self.cache_error: redis.RedisError | None = None
        self.catalog_error: Unavailable | None = None

    def get(self, name: str) -> Hit | Miss:
        self._cache_event("get", name)
        return self.found

    def put(self, name: str, value: str, version: int, token: Token) -> PutOutcome:
        self._cache_event("put", name, value, version, token)
        return PutOutcome.STORED

    def remove(self, name: str) -> None:
        self._cache_event("remove", name)

    def lookup(self, name: str, will_fill: bool) -> Quote | None:
        self.events.append(("lookup", name, will_fill))
        if self.catalog_error is not None:
            raise self.catalog_error
        return self.stock

    def _cache_event(self, *event: object) -> None:
        self.events.append(event)
        if self.cache_error is not None:
            raise self.cache_error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("Redis", failures_to_open=3, retry_after_s=1.0, clock=clock)


@pytest.fixture
def parts() -> FakeParts:
    return FakeParts()


@pytest.fixture
def quotes(parts: FakeParts, breaker: CircuitBreaker) -> CachedQuotes:
    return CachedQuotes(parts, parts, breaker)


def test_a_hit_asks_nobody_else(parts: FakeParts, quotes: CachedQuotes) -> None:
    parts.found = Hit(encode_quote(QUOTE))
    assert quotes.find("stock1") == (QUOTE, CacheResult.HIT)
    assert parts.events == [("get", "stock1")]


def test_a_miss_takes_the_token_then_looks_up_then_fills(
    parts: FakeParts, quotes: CachedQuotes
) -> None:
    assert quotes.find("stock1") == (QUOTE, CacheResult.MISS)
    assert parts.events == [
        ("get", "stock1"),
        ("lookup", "stock1", True),
        ("put", "stock1", encode_quote(QUOTE), 7, TOKEN),
    ]


def test_an_unknown_stock_is_not_cached(parts: FakeParts, quotes: CachedQuotes) -> None:
    parts.stock = None
    assert quotes.find("stock1") == (None, CacheResult.MISS)
    assert parts.events == [("get", "stock1"), ("lookup", "stock1", True)]


def test_a_failing_cache_is_passed_by_without_a_lease(
    parts: FakeParts, quotes: CachedQuotes
) -> None:
    parts.cache_error = redis.TimeoutError("slow")
    assert quotes.find("stock1") == (QUOTE, CacheResult.BYPASS)
    assert parts.events == [("get", "stock1"), ("lookup", "stock1", False)]


def test_a_fill_that_fails_changes_nothing(
    parts: FakeParts,
    quotes: CachedQuotes,
    breaker: CircuitBreaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_to_put(*_arguments: object) -> PutOutcome:
        raise redis.TimeoutError("slow")

    monkeypatch.setattr(parts, "put", fail_to_put)
    assert quotes.find("stock1") == (QUOTE, CacheResult.MISS)
    assert breaker.failures == 1


def test_a_cache_that_keeps_failing_is_not_asked_for_a_while(
    parts: FakeParts, quotes: CachedQuotes, clock: Clock
) -> None:
    parts.cache_error = redis.ConnectionError("gone")
    for _ in range(10):
        assert quotes.find("stock1") == (QUOTE, CacheResult.BYPASS)
    assert parts.events.count(("get", "stock1")) == 3
    parts.cache_error = None
    clock.now_s += 1.0
    assert quotes.find("stock1") == (QUOTE, CacheResult.MISS)


def test_without_the_catalog_there_is_no_quote(parts: FakeParts, quotes: CachedQuotes) -> None:
    parts.catalog_error = Unavailable()
    with pytest.raises(Unavailable):
        quotes.find("stock1")


def test_without_the_catalog_a_cached_quote_still_answers(
    parts: FakeParts, quotes: CachedQuotes
) -> None:
    parts.catalog_error = Unavailable()
    parts.found = Hit(encode_quote(QUOTE))
    assert quotes.find("stock1") == (QUOTE, CacheResult.HIT)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "no json",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        encode_quote(Quote("stock2", Decimal("25.78"), 100, 7)),
        encode_quote(QUOTE).replace('"25.78"', "25.78"),
        encode_quote(QUOTE).replace("25.78", "a price"),
        encode_quote(QUOTE).replace("100", "100.0"),
        encode_quote(QUOTE).replace("100", "true"),
        encode_quote(QUOTE).replace("7", '"7"'),
        encode_quote(QUOTE).replace("25.78", "NaN"),
    ],
)
def test_what_is_no_quote_is_a_miss_logged_and_removed(
    parts: FakeParts, quotes: CachedQuotes, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    parts.found = Hit(value)
    assert quotes.find("stock1") == (QUOTE, CacheResult.MISS)
    assert parts.events == [("get", "stock1"), ("remove", "stock1"), ("lookup", "stock1", False)]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert len(record.getMessage()) < 500


@pytest.mark.parametrize("price", ["25.78", "0.10", "9007199254740993.01"])
def test_a_price_survives_the_cache_exactly(price: str) -> None:
    quote = Quote("Börse \u2028 1", Decimal(price), 2**53 - 1, 2**53 - 1)
    assert decode_quote(quote.name, encode_quote(quote)) == quote
    assert str(decode_quote(quote.name, encode_quote(quote)).price) == price


def test_without_a_cache_every_quote_is_the_catalogs(parts: FakeParts) -> None:
    assert UncachedQuotes(parts).find("stock1") == (QUOTE, CacheResult.BYPASS)
    assert parts.events == [("lookup", "stock1", False)]


def fail(breaker: CircuitBreaker, times: int) -> None:
    def operation() -> None:
        raise redis.ConnectionError("gone")

    for _ in range(times):
        with pytest.raises(redis.ConnectionError):
            breaker.call(operation)


def test_the_breaker_opens_after_failures_in_a_row_only(breaker: CircuitBreaker) -> None:
    fail(breaker, 2)
    assert breaker.call(lambda: "answer") == "answer"
    fail(breaker, 2)
    assert breaker.call(lambda: "answer") == "answer"
    fail(breaker, 3)
    with pytest.raises(CircuitOpen):
        breaker.call(lambda: "answer")


def test_an_open_breaker_lets_one_probe_through(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now_s += 1.0

    def probe() -> str:
        with pytest.raises(CircuitOpen):
            breaker.call(lambda: "another")
        return "answer"

    assert breaker.call(probe) == "answer"
    assert breaker.call(lambda: "closed") == "closed"


def test_a_probe_that_fails_keeps_it_open(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, 3)
    for _ in range(5):
        clock.now_s += 1.0
        fail(breaker, 1)
        clock.now_s += 0.9
        with pytest.raises(CircuitOpen):
            breaker.call(lambda: "answer")


def test_the_breaker_logs_once_when_it_opens_and_once_when_it_closes(
    breaker: CircuitBreaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fail(breaker, 3)
    clock.now_s += 1.0
    fail(breaker, 1)
    clock.now_s += 1.0
    breaker.call(lambda: "answer")
    breaker.call(lambda: "answer")
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert breaker.failures == 4
