"""Random batches against a model that is too simple to be wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from catalog import refusals
from catalog.decisions import Decision, Failure
from catalog.store import Store
from common.domain import EMPTY_DIGEST, MAX_VOLUME, Order, Trade, next_digest
from tests.unit.catalog.engines import Engine

INITIAL = {"stock1": 10, "stock2": 0, "stock3": MAX_VOLUME - 5}

trades = st.builds(
    Trade,
    request_id=st.sampled_from([*"abcdefghijkl", ""]),
    name=st.sampled_from([*INITIAL, "nosuch", ""]),
    type=st.sampled_from(["BUY", "SELL", "HOLD"]),
    quantity=st.sampled_from([1, 1, 2, 3, 8, 0, -1]),
)
batches = st.lists(st.lists(trades, max_size=12), max_size=6)


@dataclass
class Model:
    limit: int  # of the refusals recorded
    volumes: dict[str, int] = field(default_factory=lambda: dict(INITIAL))
    decided: dict[str, tuple[Trade, int, int]] = field(default_factory=dict)
    refusals: int = 0
    last_number: int = 0

    def decide(self, trade: Trade) -> tuple[int, int, bool, Failure]:
        if not (trade.request_id and trade.name and trade.quantity > 0 and trade.type != "HOLD"):
            return -1, -1, False, Failure.NONE
        if trade.request_id in self.decided:
            first, status, number = self.decided[trade.request_id]
            if first != trade:
                return -1, -1, False, Failure.MISMATCH
            return status, number, True, Failure.NONE
        status, number = self._execute(trade)
        if status != 1:
            if self.refusals == self.limit:
                return -1, -1, False, Failure.FULL if status == 0 else Failure.NONE
            self.refusals += 1
        self.decided[trade.request_id] = (trade, status, number)
        return status, number, False, Failure.NONE

    def _execute(self, trade: Trade) -> tuple[int, int]:
        if trade.name not in self.volumes:
            return -1, -1
        volume = self.volumes[trade.name] + (1, -1)[trade.type == "BUY"] * trade.quantity
        if not 0 <= volume <= MAX_VOLUME:
            return 0, -1
        self.volumes[trade.name] = volume
        self.last_number += 1
        return 1, self.last_number


@contextmanager
def new_engine(make_engine: Callable[[Path], Engine]) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as directory:
        lines = [f"{name},1.00,{volume}" for name, volume in INITIAL.items()]
        Path(directory, "stocks.txt").write_text("\n".join(["stockname,price,currvol", *lines]))
        with closing(make_engine(Path(directory))) as engine:
            yield engine


def summary(decision: Decision) -> tuple[int, int, bool, Failure]:
    return decision.status, decision.number, decision.replayed, decision.failure


def assert_books_balance(store: Store, journal: list[Order]) -> None:
    for stock in store.stocks():
        orders = [order for order in journal if order.name == stock.name]
        moved = sum(order.quantity if order.type == "SELL" else -order.quantity for order in orders)
        assert 0 <= stock.volume == INITIAL[stock.name] + moved <= MAX_VOLUME
        assert [order.version for order in orders] == list(range(1, stock.version + 1))


def assert_chain_holds(journal: list[Order]) -> None:
    assert [order.number for order in journal] == list(range(1, len(journal) + 1))
    assert len({order.request_id for order in journal}) == len(journal)
    digest = EMPTY_DIGEST
    for order in journal:
        digest = next_digest(digest, order)
        assert order.digest == digest


@settings(max_examples=60)
@given(batches=batches, reopen_after=st.integers(0, 6), limit=st.sampled_from([0, 1, 3, 10, 1_000]))
def test_random_batches_match_the_model(
    make_engine: Callable[[Path], Engine],
    batches: list[list[Trade]],
    reopen_after: int,
    limit: int,
) -> None:
    model = Model(limit)
    with new_engine(make_engine) as engine, patch.object(refusals, "MAX_REFUSALS", limit):
        for some in (batches[:reopen_after], batches[reopen_after:]):
            store = engine.start(lambda: 0.0)
            epoch = store.registered().epoch + 1
            store.fence(epoch, 1)
            for batch in some:
                decisions = store.update(epoch, batch)
                assert list(map(summary, decisions)) == list(map(model.decide, batch))
            assert {stock.name: stock.volume for stock in store.stocks()} == model.volumes
            journal = store.journal(0)
            assert len(journal) == model.last_number
            assert_books_balance(store, journal)
            assert_chain_holds(journal)
