"""What every store fences, keeps and reads back, and what the next one finds."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest

from catalog.decisions import Decision, Registration
from catalog.stock import DONE
from catalog.store import MAX_CHUNK, Store
from common.domain import LEASE_MS, next_digest
from common.errors import StaleEpoch
from tests.support.clock import Clock
from tests.unit.catalog.engines import Engine
from tests.unit.catalog.support import buy, decide, sell, volume

# ------------------------------------------------------------------ stocks


def test_the_first_start_fills_from_the_file(store: Store) -> None:
    stocks = store.stocks()
    assert [(stock.name, stock.price, stock.volume, stock.version) for stock in stocks] == [
        ("stock1", Decimal("25.78"), 100, 0),
        ("stock2", Decimal("0.10"), 50, 0),
        ("stock10", Decimal("1.00"), 2**53 - 11, 0),
    ]
    assert store.lookup("stock2") == stocks[1]
    assert str(store.lookup("stock2")) == "stock2: 50 at 0.10 (v0)"


@pytest.mark.parametrize("name", ["stock3", "", "STOCK1", "stock1 ", "' OR 1=1 --"])
def test_an_unknown_stock_is_not_found(store: Store, name: str) -> None:
    assert store.lookup(name) is None


# -------------------------------------------------------------------- epoch


@pytest.mark.parametrize("epoch", [-1, 0, 1, 3, 2**63 - 1])
def test_an_epoch_that_is_not_the_registered_one_decides_nothing(
    store: Store, engine: Engine, epoch: int
) -> None:
    store.fence(2, 3)
    with pytest.raises(
        StaleEpoch, match=f"epoch {epoch} is refused: registered is epoch 2 of leader 3"
    ):
        store.update(epoch, [buy("a"), buy("b", 1_000)])
    assert store.journal(0) == []
    assert engine.refusals_kept() == 0
    assert volume(store) == 100


def test_a_repeat_of_a_deposed_leader_is_refused_too(store: Store) -> None:
    decide(store, buy("a"))
    store.fence(2, 3)
    with pytest.raises(StaleEpoch):
        store.update(1, [buy("a")])


def test_nobody_trades_before_anyone_led(engine: Engine, clock: Clock) -> None:
    store = engine.start(clock)
    assert store.registered() == (0, 0)
    with pytest.raises(StaleEpoch):
        store.update(0, [buy("a")])


@pytest.mark.parametrize(
    ("epoch", "leader_id", "accepted"),
    [
        (2, 3, True),
        (2, 2, True),  # the same replica again, in a later process
        (2, 2**63 - 1, True),
        (1, 2, False),  # names the registered pair itself
        (1, 3, False),
        (0, 3, False),
        (3, 3, False),
        (-(2**63), 3, False),
        (2**63 - 1, 3, False),
        (2, 0, False),
        (2, -1, False),
        (2, 2**63, False),
    ],
)
def test_the_fence_is_a_compare_and_set(
    store: Store, epoch: int, leader_id: int, accepted: bool
) -> None:
    answer = store.fence(epoch, leader_id)
    registered = Registration(epoch, leader_id) if accepted else Registration(1, 2)
    assert answer == (accepted, registered)
    assert store.registered() == registered


def test_only_one_of_many_wins_an_epoch(store: Store) -> None:
    answers = []
    threads = [
        threading.Thread(target=lambda leader=leader: answers.append(store.fence(2, leader)))
        for leader in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [answer.registered for answer in answers if answer.accepted]
    assert {answer.registered for answer in answers} == {winner}
    assert store.registered() == winner


# ------------------------------------------------------------------ journal


def test_the_journal_is_read_in_chunks(store: Store) -> None:
    for start in range(0, MAX_CHUNK + 5, 201):
        store.update(1, [sell(str(start + number)) for number in range(201)])
    assert [order.number for order in store.journal(0)] == list(range(1, MAX_CHUNK + 1))
    assert [order.number for order in store.journal(3, limit=2)] == [4, 5]
    assert [order.number for order in store.journal(MAX_CHUNK, limit=10**9)][:2] == [1001, 1002]
    assert len(store.journal(0, limit=10**30)) == MAX_CHUNK


@pytest.mark.parametrize("after", [1, 2, 2**63 - 1, 2**63, 10**30])
def test_there_is_nothing_above_the_last_order(store: Store, after: int) -> None:
    decide(store, buy("a"))
    assert store.journal(after) == []


@pytest.mark.parametrize("after", [0, -1, -(10**30)])
def test_every_order_is_above_zero(store: Store, after: int) -> None:
    decide(store, buy("a"))
    assert [order.number for order in store.journal(after)] == [1]


@pytest.mark.parametrize("limit", [0, -1, -(10**30)])
def test_no_row_is_within_a_limit_below_one(store: Store, limit: int) -> None:
    decide(store, buy("a"))
    assert store.journal(0, limit) == []


# ------------------------------------------------------------- concurrency


def test_a_reader_sees_each_commit_at_once(store: Store) -> None:
    for number in range(1, 51):
        decide(store, buy(str(number)))
        assert volume(store) == 100 - number
        assert len(store.journal(0)) == number


def test_many_threads_trade_and_read_at_once(store: Store) -> None:
    def trade(seed: int) -> None:
        for number in range(10):
            store.update(1, [buy(f"{seed}-{number}"), sell(f"{number}", 2, "stock2")])
            assert store.lookup("stock1") is not None

    threads = [threading.Thread(target=trade, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [order.number for order in store.journal(0)] == list(range(1, 91))
    assert (volume(store), volume(store, "stock2")) == (20, 70)


# ---------------------------------------------------------------- reopening


def test_the_next_process_finds_what_this_one_answered(
    store: Store, engine: Engine, clock: Clock
) -> None:
    done, refused = store.update(1, [buy("a", 30), buy("b", 71)])
    cluster_id = store.cluster_id
    clock.now_s += LEASE_MS
    store = engine.start(clock)
    assert store.cluster_id == cluster_id
    assert store.registered() == (1, 2)
    assert volume(store) == 70
    assert store.journal(0) == [done.order]
    assert store.update(1, [buy("a", 30), buy("b", 71)]) == [
        Decision(DONE, done.order, replayed=True),
        Decision(refused.status, replayed=True),
    ]
    later = decide(store, buy("c"))
    assert later.order is not None
    assert done.order is not None
    assert later.number == 2
    assert later.order.digest == next_digest(done.order.digest, later.order)


def test_the_next_process_counts_every_stock_as_leased(store: Store, engine: Engine) -> None:
    store.leases.grant("stock1")
    again = engine.start(lambda: 0.0)
    assert again.leases is not store.leases
    assert again.leases.remaining_ms("stock2") == LEASE_MS
