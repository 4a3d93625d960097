"""What a term knows, and the books of one batch on top of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from catalog.decisions import Refusal, Registration
from catalog.postgres.session import Changes, Loaded, Opened
from catalog.stock import Stock
from common.domain import Order


class Acknowledged:
    """What acknowledged COMMITs cover, in memory: all that a term may show.

    One thread at a time changes it, any may read it.

    Attributes:
        position: number of the last order, and the digest of the journal up to it.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._stocks = {stock.name: stock for stock in loaded.stocks}
        self._changing = threading.Lock()
        self.registration: Registration = loaded.registration
        self.position: tuple[int, bytes] = (loaded.last_number, loaded.digest)

    def find_stock(self, name: str) -> Stock | None:
        """A copy, for the caller to change."""
        found = self._stocks.get(name)
        return found and replace(found)

    def all_stocks(self) -> list[Stock]:
        """Copies, as of one moment, in the order of the stock file."""
        with self._changing:
            return [replace(stock) for stock in self._stocks.values()]

    def add(self, changes: Changes) -> None:
        """Takes over what a COMMIT wrote that was acknowledged."""
        with self._changing:
            self._stocks.update({stock.name: stock for stock in changes.stocks})
            if changes.orders:
                last = changes.orders[-1]
                self.position = last.number, last.digest
            if changes.registration is not None:
                self.registration = changes.registration


class BatchBooks:
    """Collects what a batch changes, so that it can be written in one round trip.

    Args:
        known: as it is before the batch.
        opened: what the transaction began with.
    """

    def __init__(self, known: Acknowledged, opened: Opened) -> None:
        self._known = known
        self._earlier_orders: Mapping[str, Order] = opened.orders
        self._earlier_refusals: Mapping[str, Refusal] = opened.refusals
        self._registration = opened.registration
        self._orders: dict[str, Order] = {}
        self._refusals: dict[str, Refusal] = {}
        self._stocks: dict[str, Stock] = {}

    def registration(self) -> Registration:
        return self._registration

    def last_position(self) -> tuple[int, bytes]:
        return self._known.position

    def find_order(self, request_id: str) -> Order | None:
        return self._orders.get(request_id) or self._earlier_orders.get(request_id)

    def find_refusal(self, request_id: str) -> Refusal | None:
        return self._refusals.get(request_id) or self._earlier_refusals.get(request_id)

    def find_stock(self, name: str) -> Stock | None:
        changed = self._stocks.get(name)
        return replace(changed) if changed else self._known.find_stock(name)

    def save_stock(self, stock: Stock) -> None:
        self._stocks[stock.name] = stock

    def add_order(self, order: Order) -> None:
        self._orders[order.request_id] = order

    def add_refusal(self, request_id: str, refusal: Refusal) -> None:
        self._refusals[request_id] = refusal

    def changes(self, now_s: float) -> Changes:
        """All of it, with the wall clock's time for the refusals."""
        return Changes(
            orders=list(self._orders.values()),
            stocks=list(self._stocks.values()),
            refusals=list(self._refusals.items()),
            now_s=now_s,
        )
