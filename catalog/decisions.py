"""How trades are decided: once each, each seeing the one before it.

No database here: a store hands in the books of one open transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

from catalog.stock import DONE, INVALID, Stock
from common.domain import Order, Trade, next_digest
from common.errors import StaleEpoch


class Registration(NamedTuple):
    """Who leads, as the fence has it; epoch 0 and leader 0 when nobody ever led."""

    epoch: int
    leader_id: int

    def may_follow(self, registered: Registration) -> bool:
        """Whether it may be registered in place of that one: a compare-and-set of the epoch."""
        return self.epoch == registered.epoch + 1 and 1 <= self.leader_id < 2**63


class Refusal(NamedTuple):
    name: str
    type: str
    quantity: int
    status: int


class Failure(Enum):
    """Why a trade was not decided though the others of its batch were."""

    NONE = "none"
    MISMATCH = "mismatch"  # its request id was decided for another trade
    INTERNAL = "internal"  # this trade alone failed; nothing of it was kept
    FULL = "full"  # a refusal is due, but there is no room to record it


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


class Books(Protocol):
    """What a batch is decided on and written to. A store makes them for one transaction."""

    def registration(self) -> Registration: ...

    def last_position(self) -> tuple[int, bytes]:
        """The number of the last order, and the digest of the journal up to it."""

    def find_order(self, request_id: str) -> Order | None: ...

    def find_refusal(self, request_id: str) -> Refusal | None: ...

    def find_stock(self, name: str) -> Stock | None: ...

    def save_stock(self, stock: Stock) -> None: ...

    def add_order(self, order: Order) -> None: ...

    def add_refusal(self, request_id: str, refusal: Refusal) -> None: ...


class OpenBatch:
    """Decides the trades of one batch. The caller begins and ends the transaction.

    Args:
        room: how many more refusals may be recorded.

    Raises:
        StaleEpoch: `epoch` is not the registered one.
    """

    def __init__(self, books: Books, epoch: int, room: int) -> None:
        self._books = books
        self._epoch = epoch
        self._room = room
        self.refusals = 0  # recorded by this batch
        self._check_epoch()
        self._last_number, self._digest = books.last_position()

    def _check_epoch(self) -> None:
        registered = self._books.registration()
        # Epoch 0 is registered until somebody leads. A sender that names no epoch is no leader.
        # Without it, a deposed leader commits ("fence check": test_failure_table.py).
        if self._epoch != registered.epoch or self._epoch < 1:
            raise StaleEpoch(
                f"epoch {self._epoch} is refused: "
                f"registered is epoch {registered.epoch} of leader {registered.leader_id}"
            )

    def decide(self, trade: Trade) -> Decision:
        if not trade.is_well_formed():
            return Decision(INVALID)  # not recorded: what is wrong stays wrong
        earlier = self._earlier_decision(trade)
        if earlier is not None:
            return earlier
        stock = self._books.find_stock(trade.name)
        status = stock.trade(trade.quantity, trade.type) if stock else INVALID
        if stock is None or status != DONE:
            return self._refuse(trade, status)
        return self._execute(trade, stock)

    def _earlier_decision(self, trade: Trade) -> Decision | None:
        # Without it, a repeat trades again ("recorded rows": test_failure_table.py).
        order = self._books.find_order(trade.request_id)
        refusal = None if order else self._books.find_refusal(trade.request_id)
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
        if self.refusals >= self._room:
            return _unrecorded(status)
        refusal = Refusal(trade.name, trade.type, trade.quantity, status)
        # Without it, a refusal may change its mind ("recorded refusals": test_interleavings.py).
        self._books.add_refusal(trade.request_id, refusal)
        self.refusals += 1
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
        self._books.save_stock(stock)
        self._books.add_order(order)
        self._last_number, self._digest = order.number, order.digest
        return Decision(DONE, order)


def _unrecorded(status: int) -> Decision:
    """The answer to a trade that would be refused, when the refusal cannot be recorded.

    Stocks never come or go, so a trade of an unknown one is refused each time. But volumes change:
    the trade may be possible later, so the caller must not hear that it was refused.
    """
    return Decision(INVALID) if status == INVALID else Decision(INVALID, failure=Failure.FULL)
