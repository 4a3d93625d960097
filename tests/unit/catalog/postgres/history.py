"""What clients of the catalog were told, and whether that keeps the promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from catalog.stock import Stock
from common.domain import EMPTY_DIGEST, SELL, Order, Trade, next_digest


class History:
    """Raises AssertionError as soon as two answers contradict each other.

    Attributes:
        last_told: the highest number of an order that any client was told of.
    """

    def __init__(self, volumes: Mapping[str, int]) -> None:
        self._volumes = volumes
        self.last_told = 0
        self.fenced = 0  # the highest epoch whose leader was told that it leads
        self._acknowledged = dict.fromkeys(volumes, 0)  # by stock, the newest version
        self._decided: dict[str, tuple[int, int]] = {}  # by request id: status and number
        self._rows: dict[int, Order] = {}  # that somebody has
        self._leaders: dict[int, int] = {}  # by epoch
        self._sent: set[tuple[int, str]] = set()
        self._looked_up: list[tuple[str, int, int, int, str]] = []

    # ------------------------------------------------------------ what happened

    def sent(self, epoch: int, trades: Sequence[Trade]) -> None:
        self._sent.update((epoch, trade.request_id) for trade in trades)

    def leads(self, epoch: int, leader_id: int) -> None:
        """A leader was told that its fence was accepted."""
        assert self._leaders.setdefault(epoch, leader_id) == leader_id, "two lead in one epoch"
        self.fenced = max(self.fenced, epoch)

    def decided(
        self, request_id: str, status: int, order: Order | None, replayed: bool, fenced: int
    ) -> None:
        """A leader was told a decision. `fenced` as it was when the call began."""
        number = order.number if order else 0
        told = self._decided.setdefault(request_id, (status, number))
        assert told == (status, number), f"{request_id}: {told}, then {(status, number)}"
        if order is not None:
            assert replayed or order.epoch >= fenced, "a deposed leader committed"
            self.row(order)
            self.last_told = max(self.last_told, number)

    def count_decided(self) -> int:
        return len(self._decided)

    def row(self, order: Order) -> None:
        """Somebody has this row of the journal."""
        known = self._rows.setdefault(order.number, order)
        assert known == order, f"logs diverge: {known} and {order}"

    def acknowledged(self, name: str, version: int) -> None:
        """A client was answered 200."""
        self._acknowledged[name] = max(self._acknowledged[name], version)

    def newest_acknowledged(self, name: str) -> int:
        return self._acknowledged[name]

    def looked_up(self, name: str, floor: int, version: int, volume: int, how: str) -> None:
        """A client was answered. `floor` is the newest acknowledged version when it asked."""
        assert version >= floor, f"stale {name}: version {version} after {floor}, by {how}"
        self._looked_up.append((name, floor, version, volume, how))

    # ------------------------------------------------------------ the end

    def check(self, orders: Sequence[Order], stocks: Sequence[Stock]) -> None:
        """Compares everything with what is stored when all is well again."""
        self._check_journal(orders)
        for number, row in self._rows.items():
            assert number <= len(orders) and row == orders[number - 1], f"lost: {row}"  # noqa: PT018
        volumes = self._check_books(orders, stocks)
        for name, floor, version, volume, how in self._looked_up:
            if version == floor:
                assert volume == volumes[name][version], f"stale {name} at {version}, by {how}"

    def _check_journal(self, orders: Sequence[Order]) -> None:
        assert [row.number for row in orders] == list(range(1, len(orders) + 1)), "gap"
        assert len({row.request_id for row in orders}) == len(orders), "executed twice"
        epochs = [row.epoch for row in orders]
        assert epochs == sorted(epochs), "an older epoch committed after a newer one"
        digest = EMPTY_DIGEST
        for row in orders:
            digest = next_digest(digest, row)
            assert row.digest == digest
            assert (row.epoch, row.request_id) in self._sent
            status, number = self._decided.get(row.request_id, (1, row.number))
            assert (status, number) == (1, row.number), "told otherwise"

    def _check_books(
        self, orders: Sequence[Order], stocks: Sequence[Stock]
    ) -> Mapping[str, list[int]]:
        """By stock, the volume at each version."""
        volumes = {name: [volume] for name, volume in self._volumes.items()}
        for row in orders:
            history = volumes[row.name]
            change = row.quantity if row.type == SELL else -row.quantity
            history.append(history[-1] + change)
            assert row.version == len(history) - 1, "versions have a gap"
            assert history[-1] >= 0, "sold what was not there"
        for stock in stocks:
            history = volumes[stock.name]
            assert (stock.volume, stock.version) == (history[-1], len(history) - 1)
        return volumes
