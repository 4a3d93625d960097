"""Checks a whole session, which knows every trade that was tried.

Numbers: each order has its own, and they follow the order of commits. Quantities: a quote must
reflect every trade acknowledged before the lookup began and none that began after it was
answered; each trade in between may or may not have been committed at that moment.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from client.api import Order

NEVER_S = math.inf


@dataclass(frozen=True, slots=True)
class OwnOrder:
    """An acknowledged trade, and when it was under way, on the session's clock."""

    order: Order
    client: int
    key: str
    began_at_s: float
    acknowledged_at_s: float

    def __str__(self) -> str:
        return f"{self.order} (client {self.client}, key {self.key})"


def shared_numbers(orders: Iterable[OwnOrder]) -> list[str]:
    """One line for each order whose number another one has too: each had a key of its own."""
    first: dict[int, OwnOrder] = {}
    found = []
    for own in orders:
        other = first.setdefault(own.order.number, own)
        if other is not own:
            found.append(f"the same number twice: {own} and {other}")
    return found


def out_of_order(orders: Iterable[OwnOrder]) -> list[str]:
    """One line for each order that began after one with a higher number was acknowledged.

    Numbers follow the order of commits, and a commit lies between request and answer.
    """
    found = []
    earliest: OwnOrder | None = None  # acknowledged, of all with a higher number
    for own in sorted(orders, key=lambda own: own.order.number, reverse=True):
        if earliest is not None and earliest.acknowledged_at_s < own.began_at_s:
            found.append(f"numbered against time: {own} began after {earliest} was acknowledged")
        if earliest is None or own.acknowledged_at_s < earliest.acknowledged_at_s:
            earliest = own
    return found


@dataclass(frozen=True, slots=True)
class Move:
    """A trade; `change` is its effect on the quantity. Without a known outcome it never settles."""

    name: str
    change: int
    began_at_s: float
    settled_at_s: float


@dataclass(frozen=True, slots=True)
class SeenQuantity:
    name: str
    quantity: int
    began_at_s: float
    answered_at_s: float


def wrong_quantities(
    opening: Mapping[str, int], moves: Iterable[Move], seen: Iterable[SeenQuantity]
) -> list[str]:
    """One line for each quantity that no order of commits explains.

    `opening` holds the quantities before the first move; stocks not in it are left out.
    """
    by_name: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        by_name[move.name].append(move)
    books = {name: _Book(quantity, by_name[name]) for name, quantity in opening.items()}
    found = []
    for quote in seen:
        if quote.name not in books:
            continue
        low, high = books[quote.name].bounds(quote)
        if not low <= quote.quantity <= high:
            right = str(low) if low == high else f"{low} to {high}"
            found.append(
                f"lookup of {quote.name} at +{quote.began_at_s:.3f} s: quantity "
                f"{quote.quantity}, by the trades made it was {right}"
            )
    return found


class _Book:
    """One stock."""

    def __init__(self, opening: int, moves: list[Move]) -> None:
        self._opening = opening
        sells = [move for move in moves if move.change > 0]
        buys = [move for move in moves if move.change < 0]
        self._sells_begun, self._sells_settled = _begun(sells), _settled(sells)
        self._buys_begun, self._buys_settled = _begun(buys), _settled(buys)

    def bounds(self, quote: SeenQuantity) -> tuple[int, int]:
        """The lowest and the highest right quantity."""
        before, until = quote.began_at_s, quote.answered_at_s
        low = self._sells_settled.before(before) + self._buys_begun.until(until)
        high = self._buys_settled.before(before) + self._sells_begun.until(until)
        return self._opening + low, self._opening + high


class _RunningSum:
    """Sums of what happened up to a moment."""

    def __init__(self, events: Iterable[tuple[float, int]]) -> None:
        ordered = sorted(events)
        self._times_s = [time_s for time_s, _ in ordered]
        self._sums = list(accumulate((amount for _, amount in ordered), initial=0))

    def before(self, time_s: float) -> int:
        return self._sums[bisect_left(self._times_s, time_s)]

    def until(self, time_s: float) -> int:
        return self._sums[bisect_right(self._times_s, time_s)]


def _begun(moves: list[Move]) -> _RunningSum:
    return _RunningSum((move.began_at_s, move.change) for move in moves)


def _settled(moves: list[Move]) -> _RunningSum:
    return _RunningSum((move.settled_at_s, move.change) for move in moves)
