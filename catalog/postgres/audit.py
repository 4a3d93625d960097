"""What a new term loads, and whether it agrees with itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from catalog.decisions import Registration
from catalog.postgres.fitness import check_version
from catalog.postgres.session import Loaded
from catalog.postgres.statements import (
    COUNT_REFUSALS,
    LOAD_OFFICE,
    LOAD_STOCKS,
    LOAD_TAIL,
    Statement,
    stock_of,
)
from catalog.stock import Stock
from common.chain import seal
from common.domain import EMPTY_DIGEST, MAX_VOLUME, Order, next_digest
from common.errors import Damaged

# The newest orders are those that a failing disk or a wrong restore loses first. A takeover has no
# time to read all.
_TAIL = 1_000

LOADING: Sequence[Statement] = (
    (LOAD_OFFICE, ()),
    (LOAD_STOCKS, ()),
    (LOAD_TAIL, (_TAIL + 1,)),
    (COUNT_REFUSALS, ()),
)
Rows = Sequence[Sequence[Any]]


class _Office(NamedTuple):
    schema_version: int
    cluster_id: str
    cluster_seal: bytes
    epoch: int
    leader_id: int
    fence_seal: bytes


def loaded(office: Rows, stocks: Rows, tail: Rows, refusals: Rows) -> Loaded:
    """What the rows of LOADING say.

    Raises:
        Damaged: they contradict each other, or a seal.
        Unfit: they are of another version of the schema.
    """
    fence = _check_office(office)
    kept = list(map(_checked_stock, stocks))
    orders = [Order(*row) for row in reversed(tail)]
    last_number, digest = _check_chain(orders)
    _check_versions(kept, orders)
    return Loaded(
        registration=Registration(fence.epoch, fence.leader_id),
        stocks=kept,
        last_number=last_number,
        digest=digest,
        refusals=refusals[0][0],
        cluster_id=fence.cluster_id,
    )


def _check_office(rows: Rows) -> _Office:
    if len(rows) != 1:
        raise Damaged("the row of the office is gone")
    office = _Office(*rows[0])
    check_version(office.schema_version)
    if office.fence_seal != seal(office.epoch, office.leader_id):
        raise Damaged(
            f"the fence (epoch {office.epoch}, leader {office.leader_id}) is not the one it had"
        )
    if office.cluster_seal != seal(office.cluster_id):
        raise Damaged("the cluster's id is not the one it had")
    return office


def _checked_stock(row: Sequence[Any]) -> Stock:
    *values, initial_volume, kept = row
    stock = stock_of(*values)
    if kept != seal(stock.name, values[1], initial_volume):
        raise Damaged(f"name, price or initial volume of {stock.name!r} is not the one it had")
    if not 0 <= stock.volume <= MAX_VOLUME:
        raise Damaged(f"{stock.name} has a volume of {stock.volume}")
    return stock


def _check_chain(orders: Sequence[Order]) -> tuple[int, bytes]:
    """The last number and digest; the orders but the first must each continue the one before.

    The first one has to continue the empty journal, if it is the very first.
    """
    number, digest = 0, EMPTY_DIGEST
    if len(orders) > _TAIL:
        number, digest = orders[0].number, orders[0].digest
        orders = orders[1:]
    for order in orders:
        digest = next_digest(digest, order)
        if order.number != number + 1 or order.digest != digest:
            raise Damaged(f"order {order.number} does not follow order {number}")
        number = order.number
    return number, digest


def _check_versions(stocks: Sequence[Stock], orders: Sequence[Order]) -> None:
    """The newest order of a stock must be the one that gave it its version."""
    versions = {stock.name: stock.version for stock in stocks}
    for name, version in {order.name: order.version for order in orders}.items():
        if versions.get(name) != version:
            raise Damaged(
                f"{name} has version {versions.get(name)}, but version {version} by its last order"
            )
