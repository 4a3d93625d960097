"""A stock and the rule of trading it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from common.domain import BUY, MAX_VOLUME, SELL, is_valid_quantity

DONE = 1
NOT_PERMITTED = 0
INVALID = -1


@dataclass(slots=True)
class Stock:
    name: str
    price: Decimal  # two places
    volume: int
    version: int = 0  # raised by each trade

    def trade(self, quantity: int, trade_type: str) -> int:
        """Takes the quantity out of the volume (BUY) or puts it back (SELL).

        Returns:
            DONE; NOT_PERMITTED when the volume would leave 0 … MAX_VOLUME; INVALID when it is
            no trade at all. The stock changes only when it is DONE.
        """
        if not is_valid_quantity(quantity) or trade_type not in (BUY, SELL):
            return INVALID
        volume = self.volume - quantity if trade_type == BUY else self.volume + quantity
        if not 0 <= volume <= MAX_VOLUME:
            return NOT_PERMITTED
        self.volume = volume
        self.version += 1
        return DONE

    def __str__(self) -> str:
        return f"{self.name}: {self.volume} at {self.price:.2f} (v{self.version})"
