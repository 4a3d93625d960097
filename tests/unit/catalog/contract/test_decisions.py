"""How trades are decided: alone, in a batch, again, and a day later."""

from __future__ import annotations

from decimal import Decimal

import pytest

from catalog import refusals
from catalog.decisions import Decision, Failure
from catalog.stock import DONE, INVALID, NOT_PERMITTED
from catalog.store import MAX_BATCH, REFUSALS_KEPT_S, Store
from common.domain import EMPTY_DIGEST, MAX_QUANTITY, Order, Trade, next_digest
from common.errors import InvalidRequest, StaleEpoch
from tests.support.clock import Clock
from tests.unit.catalog.engines import Engine
from tests.unit.catalog.support import NOW_S, buy, decide, sell, volume

# ---------------------------------------------------------------- decisions


def test_a_trade_changes_stock_and_journal_together(store: Store) -> None:
    decision = decide(store, buy("a", 30))
    row = Order(1, "a", "stock1", "BUY", 30, version=1, epoch=1)
    row = Order(1, "a", "stock1", "BUY", 30, 1, 1, next_digest(EMPTY_DIGEST, row))
    assert decision == Decision(DONE, row)
    assert decision.number == 1
    assert store.journal(0) == [row]
    stock = store.lookup("stock1")
    assert stock is not None
    assert (stock.volume, stock.version, stock.price) == (70, 1, Decimal("25.78"))


def test_numbers_follow_commit_order_across_stocks_without_gaps(store: Store) -> None:
    decisions = store.update(1, [buy("a"), buy("b", name="stock2"), buy("c", 1_000), buy("d")])
    assert [decision.number for decision in decisions] == [1, 2, -1, 3]
    assert decide(store, buy("e")).number == 4
    versions = [(order.name, order.version) for order in store.journal(0)]
    assert versions == [("stock1", 1), ("stock2", 1), ("stock1", 2), ("stock1", 3)]


def test_the_digests_chain(store: Store) -> None:
    store.update(1, [buy("a"), buy("b")])
    decide(store, buy("c"))
    digest = EMPTY_DIGEST
    for order in store.journal(0):
        digest = next_digest(digest, order)
        assert order.digest == digest


def test_each_trade_of_a_batch_sees_the_one_before_it(store: Store) -> None:
    decisions = store.update(
        1, [buy("a", 100), buy("b", 1), sell("c", 2), buy("d", 1), buy("e", 2)]
    )
    assert [decision.status for decision in decisions] == [DONE, NOT_PERMITTED, DONE, DONE, 0]
    assert volume(store) == 1


def test_a_sale_up_to_the_largest_volume(store: Store) -> None:
    assert decide(store, sell("a", 11, "stock10")).status == NOT_PERMITTED
    assert decide(store, sell("b", 10, "stock10")).status == DONE
    assert volume(store, "stock10") == 2**53 - 1


def test_an_unknown_stock_is_refused(store: Store) -> None:
    assert decide(store, buy("a", name="nosuch")) == Decision(INVALID)
    assert decide(store, buy("a", name="nosuch")) == Decision(INVALID, replayed=True)


@pytest.mark.parametrize(
    "trade",
    [
        Trade("", "stock1", "BUY", 1),
        Trade("a b", "stock1", "BUY", 1),
        Trade("a" * 256, "stock1", "BUY", 1),
        Trade("ä", "stock1", "BUY", 1),
        Trade("a", "", "BUY", 1),
        Trade("a", "n" * 65, "BUY", 1),
        Trade("a", "stock1\x00", "BUY", 1),
        Trade("a", "stock1", "HOLD", 1),
        Trade("a", "stock1", "BUY", 0),
        Trade("a", "stock1", "BUY", -(2**63)),
        Trade("a", "stock1", "SELL", MAX_QUANTITY + 1),
        Trade("a", "stock1", "SELL", 2**70),
    ],
)
def test_a_malformed_trade_is_invalid_and_not_kept(
    store: Store, engine: Engine, trade: Trade
) -> None:
    assert store.update(1, [trade, buy("other")])[0] == Decision(INVALID)
    assert engine.refusals_kept() == 0
    assert volume(store) == 99
    assert decide(store, buy("a")).status == DONE


def test_a_batch_has_a_bound(store: Store) -> None:
    trades = [buy(str(number)) for number in range(MAX_BATCH + 1)]
    with pytest.raises(InvalidRequest, match="1025 trades, but a batch holds at most 1024"):
        store.update(1, trades)
    assert store.journal(0) == []
    assert len(store.update(1, trades[:-1])) == MAX_BATCH


def test_an_empty_batch_decides_nothing(store: Store) -> None:
    assert store.update(1, []) == []
    with pytest.raises(StaleEpoch):
        store.update(2, [])


# ------------------------------------------------------------------ repeats


def test_a_repeat_gets_the_same_decision(store: Store) -> None:
    first = decide(store, buy("a", 30))
    decide(store, buy("b", 5))
    assert decide(store, buy("a", 30)) == Decision(DONE, first.order, replayed=True)
    assert volume(store) == 65
    assert len(store.journal(0)) == 2


def test_a_repeat_within_a_batch_executes_once(store: Store) -> None:
    first, second, refused, again = store.update(
        1, [buy("a", 30), buy("a", 30), buy("b", 71), buy("b", 71)]
    )
    assert second == Decision(DONE, first.order, replayed=True)
    assert (refused.replayed, again) == (False, Decision(NOT_PERMITTED, replayed=True))
    assert volume(store) == 70


def test_a_refusal_stays_though_the_stock_came_back(store: Store) -> None:
    assert decide(store, buy("a", 101)) == Decision(NOT_PERMITTED)
    assert decide(store, sell("b", 50)).status == DONE
    assert decide(store, buy("a", 101)) == Decision(NOT_PERMITTED, replayed=True)
    assert decide(store, buy("c", 101)).status == DONE


def test_a_repeat_under_a_later_epoch_keeps_its_row(store: Store) -> None:
    first = decide(store, buy("a"))
    store.fence(2, 3)
    assert decide(store, buy("a"), epoch=2) == Decision(DONE, first.order, replayed=True)
    later = decide(store, buy("b"), epoch=2)
    assert first.order is not None
    assert later.order is not None
    assert (first.order.epoch, later.order.epoch) == (1, 2)


@pytest.mark.parametrize(
    "other",
    [buy("a", 31), sell("a", 30), buy("a", 30, "stock2"), buy("a", 30, "nosuch")],
)
@pytest.mark.parametrize("refused", [False, True])
def test_another_trade_under_a_used_request_id_is_a_mismatch(
    store: Store, engine: Engine, other: Trade, refused: bool
) -> None:
    if refused:
        decide(store, buy("drain", 100))
    first = decide(store, buy("a", 30))
    assert (first.status == NOT_PERMITTED) is refused
    before = volume(store), volume(store, "stock2"), engine.refusals_kept()
    mismatch, after = store.update(1, [other, buy("a", 30)])
    assert mismatch == Decision(INVALID, failure=Failure.MISMATCH)
    assert after == Decision(first.status, first.order, replayed=True)
    assert (volume(store), volume(store, "stock2"), engine.refusals_kept()) == before


def test_a_mismatch_spoils_nothing_else_in_its_batch(store: Store) -> None:
    decide(store, buy("a", 1))
    done, mismatch, also_done = store.update(1, [buy("b"), buy("a", 2), buy("c")])
    assert (done.number, mismatch.number, also_done.number) == (2, -1, 3)


# ------------------------------------------------------------------ refusals


def test_refusals_are_kept_for_a_day(store: Store, clock: Clock) -> None:
    decide(store, buy("a", 101))
    decide(store, sell("b", 50))
    clock.now_s += 24 * 3600 - 1
    decide(store, buy("c"))  # purges what is old enough
    assert decide(store, buy("a", 101)) == Decision(NOT_PERMITTED, replayed=True)
    clock.now_s += 61
    decide(store, buy("d"))
    assert decide(store, buy("a", 101)).status == DONE


def test_orders_are_kept_for_ever(store: Store, clock: Clock) -> None:
    first = decide(store, buy("a"))
    clock.now_s += 100 * REFUSALS_KEPT_S
    decide(store, buy("b"))
    assert decide(store, buy("a")) == Decision(DONE, first.order, replayed=True)


def test_purging_happens_once_a_minute(store: Store, engine: Engine, clock: Clock) -> None:
    decide(store, buy("a", 101))
    clock.now_s += 30
    decide(store, buy("b", 101))
    clock.now_s += REFUSALS_KEPT_S - 30
    decide(store, buy("c"))
    assert engine.refusals_kept() == 1
    clock.now_s += 59
    decide(store, buy("d"))
    assert engine.refusals_kept() == 1
    clock.now_s += 1
    decide(store, buy("e"))
    assert engine.refusals_kept() == 0


def test_purging_takes_small_steps_and_keeps_up(store: Store, engine: Engine, clock: Clock) -> None:
    for batch in range(3):
        store.update(1, [buy(f"{batch}-{trade}", 101) for trade in range(MAX_BATCH)])
    clock.now_s += REFUSALS_KEPT_S
    kept = []
    for number in range(4):
        decide(store, buy(str(number)))
        kept.append(engine.refusals_kept())
    assert kept == [2 * MAX_BATCH, MAX_BATCH, 0, 0]


# ------------------------------------------------- as many refusals as there may be


@pytest.fixture
def full(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """It holds as many refusals as it may: those of `a` and `b`."""
    monkeypatch.setattr(refusals, "MAX_REFUSALS", 2)
    store.update(1, [buy("a", 101), buy("b", 1, "nosuch")])
    return store


def test_what_would_be_refused_is_open_where_no_refusal_can_be_recorded(
    full: Store, engine: Engine
) -> None:
    assert decide(full, buy("c", 101)) == Decision(INVALID, failure=Failure.FULL)
    assert engine.refusals_kept() == 2
    decide(full, sell("d", 50))
    assert decide(full, buy("c", 101)).status == DONE  # nobody was told that it was refused


def test_made_up_names_are_refused_without_a_record(full: Store, engine: Engine) -> None:
    for number in range(5):
        assert decide(full, buy(f"junk-{number}", 1, f"name-{number}")) == Decision(INVALID)
    assert engine.refusals_kept() == 2


def test_recorded_decisions_are_told_and_trades_done_though_it_is_full(
    full: Store,
) -> None:
    batch = [buy("a", 101), buy("b", 1, "nosuch"), buy("c"), buy("x", 101), buy("d"), buy("a")]
    decisions = full.update(1, batch)
    assert decisions[0] == Decision(NOT_PERMITTED, replayed=True)
    assert decisions[1] == Decision(INVALID, replayed=True)
    assert decisions[3] == Decision(INVALID, failure=Failure.FULL)
    assert [decisions[2].number, decisions[4].number] == [1, 2]
    assert decisions[5].failure is Failure.MISMATCH


def test_the_limit_holds_within_a_batch(
    store: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_REFUSALS", 3)
    decisions = store.update(1, [buy(f"{number}", 101) for number in range(5)])
    assert [one.failure for one in decisions] == [Failure.NONE] * 3 + [Failure.FULL] * 2
    assert engine.refusals_kept() == 3


def test_refusals_are_recorded_again_when_the_oldest_are_a_day_old(
    full: Store, clock: Clock, engine: Engine
) -> None:
    decide(full, buy("c", 101))
    clock.now_s += REFUSALS_KEPT_S
    decide(full, buy("d"))  # purges
    assert decide(full, buy("c", 101)) == Decision(NOT_PERMITTED)
    assert engine.refusals_kept() == 1


def test_reaching_the_limit_is_said_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refusals, "MAX_REFUSALS", 1)
    for request_id in "abc":
        decide(store, buy(request_id, 101))
    assert caplog.text.count("1 refusals are recorded, which is the limit") == 1


def test_a_catalog_that_starts_counts_the_refusals_it_has(full: Store, engine: Engine) -> None:
    assert full.registered().epoch == 1
    again = engine.start(lambda: NOW_S)
    again.fence(2, 3)
    assert decide(again, buy("c", 101), epoch=2).failure is Failure.FULL
