"""What the tests of a session with PostgreSQL share: stocks, orders, beats."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from catalog.postgres.connection import Connection
from catalog.postgres.session import Changes, SessionLost
from catalog.stock import Stock
from common.domain import EMPTY_DIGEST, Order, next_digest

NOW_S = 1_700_000_000.0
NOTHING = Changes()
# As sorting by bytes has them, and by the rules of no language.
STOCKS = [Stock("stock2", Decimal("0.10"), 50), Stock("Z", Decimal("25.78"), 100)]
# How long a session waits for an answer.
WAIT_S = 1.0

Connecting = Callable[[], Connection]


def order(number: int, previous: bytes = EMPTY_DIGEST, name: str = "Z", version: int = 0) -> Order:
    row = Order(number, f"id{number}", name, "BUY", 1, version or number, 1)
    return Order(number, row.request_id, name, "BUY", 1, row.version, 1, next_digest(previous, row))


def orders(count: int) -> list[Order]:
    made: list[Order] = []
    for number in range(1, count + 1):
        made.append(order(number, made[-1].digest if made else EMPTY_DIGEST))
    return made


def bought(rows: list[Order]) -> Changes:
    after = Stock("Z", Decimal("25.78"), 100 - len(rows), len(rows))
    return NOTHING._replace(orders=rows, stocks=[after], now_s=NOW_S)


def beat(session: Connection, changes: Changes = NOTHING, generation: int = 1) -> None:
    assert session.begin(generation, 12, []) is not None
    session.commit(changes)


def assert_lost(session: Connection) -> None:
    """Whatever is asked of it."""
    for call in (session.observe, session.load, session.roll_back, lambda: session.journal(0, 1)):
        with pytest.raises(SessionLost):
            call()
