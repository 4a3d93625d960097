"""What must be true of the orders of a whole session, whoever made them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from client.answers import Order


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
