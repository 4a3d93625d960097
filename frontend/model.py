"""What the parts of the frontend give each other, and what the routes ask of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from common.domain import Trade

DONE = 1


@dataclass(frozen=True, slots=True)
class Quote:
    """A stock as it was committed in the catalog at one moment."""

    name: str
    price: Decimal  # two places
    quantity: int
    version: int  # raised by each trade of the stock


class CacheResult(StrEnum):
    """How the cache took part in an answer: the `X-Cache` header."""

    HIT = "HIT"
    MISS = "MISS"
    BYPASS = "BYPASS"


@dataclass(frozen=True, slots=True)
class Decision:
    """The leader's answer: the decision on a trade, which never changes."""

    status: int  # DONE, 0 not permitted, -1 unknown stock
    number: int  # -1 when not done
    version: int  # of the stock, after the trade
    lease_ms: int  # how long from now an older quote may still be cached
    replayed: bool  # an earlier copy of the request was decided


@dataclass(frozen=True, slots=True)
class OrderView:
    """An executed trade as `GET /orders` shows it."""

    number: int
    name: str
    type: str
    quantity: int


class Trades(Protocol):
    def trade(self, trade: Trade, elapsed_s: float) -> Decision:
        """Has the trade decided and the cache made safe for the answer.

        Args:
            elapsed_s: seconds since the request arrived.

        Raises:
            KeyReused: the request id was decided for another trade.
            OutcomeUnknown: it may have executed, or may still execute.
            Unavailable: no replica can take it now. No copy sent from here was executed.
        """


class Quotes(Protocol):
    def find(self, name: str) -> tuple[Quote | None, CacheResult]:
        """The stock's quote, None if there is no such stock, and how the cache took part.

        Raises:
            Unavailable: it is not cached and the catalog cannot answer.
        """


class Orders(Protocol):
    def order(self, number: int) -> OrderView | None:
        """The order, or None if there is no such order.

        Raises:
            Unavailable: no log has it, and the catalog does not answer.
        """


class Readiness(Protocol):
    def reason_not_ready(self) -> str | None:
        """None when requests can be served; otherwise what is missing."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes need."""

    trades: Trades
    quotes: Quotes
    orders: Orders
    readiness: Readiness
