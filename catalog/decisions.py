"""How trades are decided inside a transaction: once each, each seeing the one before it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from enum import Enum

from catalog.sqlite import schema
from catalog.stock import DONE, INVALID, Stock
from common.domain import Order, Trade, next_digest
from common.errors import StaleEpoch


class Failure(Enum):
    """Why a trade was not decided though the others of its batch were."""

    NONE = "none"
    MISMATCH = "mismatch"  # its request id was decided for another trade
    INTERNAL = "internal"  # it failed by itself; nothing of it was kept


@dataclass(frozen=True, slots=True)
class Decision:
    status: int  # DONE, NOT_PERMITTED or INVALID
    order: Order | None = None  # the journal row, when DONE
    replayed: bool = False  # decided by an earlier copy of the request
    failure: Failure = Failure.NONE

    @property
    def number(self) -> int:
        return self.order.number if self.order else -1

    def __str__(self) -> str:
        if self.failure is not Failure.NONE:
            return f"not decided ({self.failure.value})"
        text = f"order {self.number}" if self.order else f"refused with {self.status}"
        return f"{text}, as before" if self.replayed else text


class OpenBatch:
    """Decides trades in a write transaction that the caller has begun, and ends.

    Args:
        now_s: the wall clock's time, kept with the refusals.

    Raises:
        StaleEpoch: `epoch` is not the registered one.
    """

    def __init__(self, connection: sqlite3.Connection, epoch: int, now_s: float) -> None:
        registered = schema.registration(connection)
        # Epoch 0 is registered before anyone led: a sender that names no epoch is no leader.
        # Without it, a deposed leader commits ("fence check": test_failure_table.py).
        if epoch != registered.epoch or epoch < 1:
            raise StaleEpoch(
                f"epoch {epoch} is refused: "
                f"registered is epoch {registered.epoch} of leader {registered.leader_id}"
            )
        self._connection = connection
        self._epoch = epoch
        self._now_s = now_s
        self._last_number, self._digest = schema.last_position(connection)

    def decide(self, trade: Trade) -> Decision:
        if not trade.is_well_formed():
            return Decision(INVALID)  # not kept: what is wrong stays wrong
        earlier = self._earlier_decision(trade)
        if earlier is not None:
            return earlier
        stock = schema.find_stock(self._connection, trade.name)
        status = stock.trade(trade.quantity, trade.type) if stock else INVALID
        if stock is None or status != DONE:
            return self._refuse(trade, status)
        return self._execute(trade, stock)

    def _earlier_decision(self, trade: Trade) -> Decision | None:
        # Without it, a repeat trades again ("recorded rows": test_failure_table.py).
        order = schema.find_order(self._connection, trade.request_id)
        refusal = None if order else schema.find_refusal(self._connection, trade.request_id)
        decided = order or refusal
        if decided is None:
            return None
        if (trade.name, trade.type, trade.quantity) != (
            decided.name,
            decided.type,
            decided.quantity,
        ):
            return Decision(INVALID, failure=Failure.MISMATCH)
        return Decision(refusal.status if refusal else DONE, order, replayed=True)

    def _refuse(self, trade: Trade, status: int) -> Decision:
        refusal = schema.Refusal(trade.name, trade.type, trade.quantity, status)
        # Without it, a refusal may change its mind ("recorded refusals": test_interleavings.py).
        schema.insert_refusal(self._connection, trade.request_id, refusal, self._now_s)
        return Decision(status)

    def _execute(self, trade: Trade, stock: Stock) -> Decision:
        order = Order(
            number=self._last_number + 1,
            request_id=trade.request_id,
            name=trade.name,
            type=trade.type,
            quantity=trade.quantity,
            version=stock.version,
            epoch=self._epoch,
        )
        order = replace(order, digest=next_digest(self._digest, order))
        schema.save_stock(self._connection, stock)
        schema.insert_order(self._connection, order)
        self._last_number, self._digest = order.number, order.digest
        return Decision(DONE, order)
