"""A stock's quote: from the cache, else from the catalog."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Protocol

import redis

from frontend.model import CacheResult, Quote
from frontend.quotes.breaker import CircuitBreaker, CircuitOpen
from frontend.quotes.cache import Hit, Miss, PutOutcome, Token

logger = logging.getLogger(__name__)

# Hits find the same few values again and again.
_KEPT_DECODED = 256


class CatalogLookup(Protocol):
    def lookup(self, name: str, will_fill: bool) -> Quote | None:
        """The stock as committed now, or None if there is no such stock.

        With `will_fill` the catalog grants a lease on it: the caller may cache the answer.

        Raises:
            Unavailable: the catalog cannot answer.
        """


class QuoteCache(Protocol):
    """The cache's operations; each may raise `redis.RedisError`."""

    def get(self, name: str) -> Hit | Miss: ...

    def put(self, name: str, value: str, version: int, token: Token) -> PutOutcome: ...

    def remove(self, name: str) -> None: ...


class UncachedQuotes:
    """Every quote straight from the catalog."""

    def __init__(self, catalog: CatalogLookup) -> None:
        self._catalog = catalog

    def find(self, name: str) -> tuple[Quote | None, CacheResult]:
        return self._catalog.lookup(name, will_fill=False), CacheResult.BYPASS


class CachedQuotes:
    """Asks the cache. If it has no quote, asks the catalog and fills the cache. A cache that fails
    makes lookups slower, but never makes them fail.

    Lookups of one stock do not share a call. If a lookup joined an earlier one, it could get one
    from before a trade that was already acknowledged.
    """

    def __init__(self, catalog: CatalogLookup, cache: QuoteCache, breaker: CircuitBreaker) -> None:
        self._catalog = catalog
        self._cache = cache
        self._breaker = breaker

    def find(self, name: str) -> tuple[Quote | None, CacheResult]:
        found = self._cached(name)
        if isinstance(found, Quote):
            return found, CacheResult.HIT
        if isinstance(found, CacheResult):
            return self._catalog.lookup(name, will_fill=False), found
        quote = self._catalog.lookup(name, will_fill=True)  # after the token was taken
        if quote is not None:
            self._fill(quote, found)
        return quote, CacheResult.MISS

    def _cached(self, name: str) -> Quote | Token | CacheResult:
        """The cached quote, or a token to fill the cache, or how the cache took part."""
        try:
            found = self._breaker.call(lambda: self._cache.get(name))
        except (redis.RedisError, CircuitOpen):
            return CacheResult.BYPASS
        if isinstance(found, Miss):
            return found.token
        try:
            return decode_quote(name, found.value)
        except ValueError as error:
            logger.error("removing what is cached as %r: %s", name, error)
        self._attempt(lambda: self._cache.remove(name))
        return CacheResult.MISS

    def _fill(self, quote: Quote, token: Token) -> None:
        value = encode_quote(quote)
        self._attempt(lambda: self._cache.put(quote.name, value, quote.version, token))

    def _attempt(self, operation: Callable[[], object]) -> None:
        """Runs an operation that the answer does not need. The breaker counts a failure."""
        try:
            self._breaker.call(operation)
        except (redis.RedisError, CircuitOpen) as error:
            logger.debug("the cache stays as it is: %s", error)


def encode_quote(quote: Quote) -> str:
    """The price as text: a number in JSON would be read as a float."""
    return json.dumps(
        {
            "name": quote.name,
            "price": str(quote.price),
            "quantity": quote.quantity,
            "version": quote.version,
        }
    )


@lru_cache(_KEPT_DECODED)
def decode_quote(name: str, value: str) -> Quote:
    """The quote cached under `name`. Raises ValueError when it is not what was encoded."""
    try:
        fields = json.loads(value)
        quote = Quote(
            name=fields["name"],
            price=Decimal(fields["price"]),
            quantity=fields["quantity"],
            version=fields["version"],
        )
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a quote: {value[:200]!r}") from error
    kinds = [type(fields[key]) for key in ("price", "quantity", "version")]
    if kinds != [str, int, int] or quote.name != name or not quote.price.is_finite():
        raise ValueError(f"not the quote of {name!r}: {value[:200]!r}")
    return quote
