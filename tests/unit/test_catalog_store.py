from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from catalog import schema
from catalog.database import Database
from catalog.decisions import Decision, Failure, Trade
from catalog.schema import Registration
from catalog.stock import DONE, INVALID, NOT_PERMITTED
from catalog.store import MAX_BATCH, MAX_CHUNK, REFUSALS_KEPT_S, CatalogStore
from catalog.transactions import transaction
from common.errors import InvalidRequest, StaleEpoch
from common.records import (
    EMPTY_DIGEST,
    LEASE_MS,
    MAX_ORDER_NUMBER,
    MAX_QUANTITY,
    Order,
    next_digest,
)

STOCKS = (
    "stockname,price,currvol\nstock1,25.78,100\nstock2,0.10,50\nstock10,1.00,9007199254740981\n"
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stocks_file(tmp_path: Path) -> Path:
    path = tmp_path / "stocks.txt"
    path.write_text(STOCKS)
    return path


@pytest.fixture
def database(tmp_path: Path, stocks_file: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "data", stocks_file)) as database:
        yield database


@pytest.fixture
def store(database: Database, clock: Clock) -> CatalogStore:
    """A store that leader 2 leads in epoch 1."""
    store = CatalogStore(database, clock)
    assert store.fence(1, 2).accepted
    return store


def buy(request_id: str, quantity: int = 1, name: str = "stock1") -> Trade:
    return Trade(request_id, name, "BUY", quantity)


def sell(request_id: str, quantity: int = 1, name: str = "stock1") -> Trade:
    return Trade(request_id, name, "SELL", quantity)


def decide(store: CatalogStore, trade: Trade, epoch: int = 1) -> Decision:
    (decision,) = store.update(epoch, [trade])
    return decision


def volume(store: CatalogStore, name: str = "stock1") -> int:
    stock = store.lookup(name)
    assert stock is not None
    return stock.volume


def refusals_kept(database: Database) -> int:
    with database.reading() as connection:
        ((count,),) = schema.rows(connection, "SELECT count(*) FROM refusals")
    return int(count)


# ------------------------------------------------------------------ stocks


def test_the_first_start_fills_from_the_file(store: CatalogStore) -> None:
    stocks = store.stocks()
    assert [(stock.name, stock.price, stock.volume, stock.version) for stock in stocks] == [
        ("stock1", Decimal("25.78"), 100, 0),
        ("stock2", Decimal("0.10"), 50, 0),
        ("stock10", Decimal("1.00"), 2**53 - 11, 0),
    ]
    assert store.lookup("stock2") == stocks[1]
    assert str(store.lookup("stock2")) == "stock2: 50 at 0.10 (v0)"


@pytest.mark.parametrize("name", ["stock3", "", "STOCK1", "stock1 ", "' OR 1=1 --"])
def test_an_unknown_stock_is_not_found(store: CatalogStore, name: str) -> None:
    assert store.lookup(name) is None


# ---------------------------------------------------------------- decisions


def test_a_trade_changes_stock_and_journal_together(store: CatalogStore) -> None:
    decision = decide(store, buy("a", 30))
    row = Order(1, "a", "stock1", "BUY", 30, version=1, epoch=1)
    row = Order(1, "a", "stock1", "BUY", 30, 1, 1, next_digest(EMPTY_DIGEST, row))
    assert decision == Decision(DONE, row)
    assert decision.number == 1
    assert store.journal(0) == [row]
    stock = store.lookup("stock1")
    assert stock is not None
    assert (stock.volume, stock.version, stock.price) == (70, 1, Decimal("25.78"))


def test_numbers_follow_commit_order_across_stocks_without_gaps(store: CatalogStore) -> None:
    decisions = store.update(1, [buy("a"), buy("b", name="stock2"), buy("c", 1_000), buy("d")])
    assert [decision.number for decision in decisions] == [1, 2, -1, 3]
    assert decide(store, buy("e")).number == 4
    versions = [(order.name, order.version) for order in store.journal(0)]
    assert versions == [("stock1", 1), ("stock2", 1), ("stock1", 2), ("stock1", 3)]


def test_the_digests_chain(store: CatalogStore) -> None:
    store.update(1, [buy("a"), buy("b")])
    decide(store, buy("c"))
    digest = EMPTY_DIGEST
    for order in store.journal(0):
        digest = next_digest(digest, order)
        assert order.digest == digest


def test_each_trade_of_a_batch_sees_the_one_before_it(store: CatalogStore) -> None:
    decisions = store.update(
        1, [buy("a", 100), buy("b", 1), sell("c", 2), buy("d", 1), buy("e", 2)]
    )
    assert [decision.status for decision in decisions] == [DONE, NOT_PERMITTED, DONE, DONE, 0]
    assert volume(store) == 1


def test_a_sale_up_to_the_largest_volume(store: CatalogStore) -> None:
    assert decide(store, sell("a", 11, "stock10")).status == NOT_PERMITTED
    assert decide(store, sell("b", 10, "stock10")).status == DONE
    assert volume(store, "stock10") == 2**53 - 1


def test_an_unknown_stock_is_refused(store: CatalogStore) -> None:
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
    store: CatalogStore, database: Database, trade: Trade
) -> None:
    assert store.update(1, [trade, buy("other")])[0] == Decision(INVALID)
    assert refusals_kept(database) == 0
    assert volume(store) == 99
    assert decide(store, buy("a")).status == DONE


def test_a_batch_has_a_bound(store: CatalogStore) -> None:
    trades = [buy(str(number)) for number in range(MAX_BATCH + 1)]
    with pytest.raises(InvalidRequest, match="1025 trades, but a batch holds at most 1024"):
        store.update(1, trades)
    assert store.journal(0) == []
    assert len(store.update(1, trades[:-1])) == MAX_BATCH


def test_an_empty_batch_decides_nothing(store: CatalogStore) -> None:
    assert store.update(1, []) == []
    with pytest.raises(StaleEpoch):
        store.update(2, [])


# ------------------------------------------------------------------ repeats


def test_a_repeat_gets_the_same_decision(store: CatalogStore) -> None:
    first = decide(store, buy("a", 30))
    decide(store, buy("b", 5))
    assert decide(store, buy("a", 30)) == Decision(DONE, first.order, replayed=True)
    assert volume(store) == 65
    assert len(store.journal(0)) == 2


def test_a_repeat_within_a_batch_executes_once(store: CatalogStore) -> None:
    first, second, refused, again = store.update(
        1, [buy("a", 30), buy("a", 30), buy("b", 71), buy("b", 71)]
    )
    assert second == Decision(DONE, first.order, replayed=True)
    assert (refused.replayed, again) == (False, Decision(NOT_PERMITTED, replayed=True))
    assert volume(store) == 70


def test_a_refusal_stays_though_the_stock_came_back(store: CatalogStore) -> None:
    assert decide(store, buy("a", 101)) == Decision(NOT_PERMITTED)
    assert decide(store, sell("b", 50)).status == DONE
    assert decide(store, buy("a", 101)) == Decision(NOT_PERMITTED, replayed=True)
    assert decide(store, buy("c", 101)).status == DONE


def test_a_repeat_under_a_later_epoch_keeps_its_row(store: CatalogStore) -> None:
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
    store: CatalogStore, database: Database, other: Trade, refused: bool
) -> None:
    if refused:
        decide(store, buy("drain", 100))
    first = decide(store, buy("a", 30))
    assert (first.status == NOT_PERMITTED) is refused
    before = volume(store), volume(store, "stock2"), refusals_kept(database)
    mismatch, after = store.update(1, [other, buy("a", 30)])
    assert mismatch == Decision(INVALID, failure=Failure.MISMATCH)
    assert after == Decision(first.status, first.order, replayed=True)
    assert (volume(store), volume(store, "stock2"), refusals_kept(database)) == before


def test_a_mismatch_spoils_nothing_else_in_its_batch(store: CatalogStore) -> None:
    decide(store, buy("a", 1))
    done, mismatch, also_done = store.update(1, [buy("b"), buy("a", 2), buy("c")])
    assert (done.number, mismatch.number, also_done.number) == (2, -1, 3)


# ------------------------------------------------------------------ refusals


def test_refusals_are_kept_for_a_day(store: CatalogStore, clock: Clock) -> None:
    decide(store, buy("a", 101))
    decide(store, sell("b", 50))
    clock.now_s += REFUSALS_KEPT_S - 1
    decide(store, buy("c"))  # purges what is old enough
    assert decide(store, buy("a", 101)) == Decision(NOT_PERMITTED, replayed=True)
    clock.now_s += 61
    decide(store, buy("d"))
    assert decide(store, buy("a", 101)).status == DONE


def test_orders_are_kept_for_ever(store: CatalogStore, clock: Clock) -> None:
    first = decide(store, buy("a"))
    clock.now_s += 100 * REFUSALS_KEPT_S
    decide(store, buy("b"))
    assert decide(store, buy("a")) == Decision(DONE, first.order, replayed=True)


def test_purging_happens_once_a_minute(
    store: CatalogStore, database: Database, clock: Clock
) -> None:
    decide(store, buy("a", 101))
    clock.now_s += 30
    decide(store, buy("b", 101))
    clock.now_s += REFUSALS_KEPT_S - 30
    decide(store, buy("c"))
    assert refusals_kept(database) == 1
    clock.now_s += 59
    decide(store, buy("d"))
    assert refusals_kept(database) == 1
    clock.now_s += 1
    decide(store, buy("e"))
    assert refusals_kept(database) == 0


def test_purging_takes_small_steps_and_keeps_up(
    store: CatalogStore, database: Database, clock: Clock
) -> None:
    for batch in range(3):
        store.update(1, [buy(f"{batch}-{trade}", 101) for trade in range(MAX_BATCH)])
    clock.now_s += REFUSALS_KEPT_S
    kept = []
    for number in range(4):
        decide(store, buy(str(number)))
        kept.append(refusals_kept(database))
    assert kept == [2 * MAX_BATCH, MAX_BATCH, 0, 0]


# -------------------------------------------------------------------- epoch


@pytest.mark.parametrize("epoch", [-1, 0, 1, 3, 2**63 - 1])
def test_an_epoch_that_is_not_the_registered_one_decides_nothing(
    store: CatalogStore, database: Database, epoch: int
) -> None:
    store.fence(2, 3)
    with pytest.raises(
        StaleEpoch, match=f"epoch {epoch} is refused: registered is epoch 2 of leader 3"
    ):
        store.update(epoch, [buy("a"), buy("b", 1_000)])
    assert store.journal(0) == []
    assert refusals_kept(database) == 0
    assert volume(store) == 100


def test_a_repeat_of_a_deposed_leader_is_refused_too(store: CatalogStore) -> None:
    decide(store, buy("a"))
    store.fence(2, 3)
    with pytest.raises(StaleEpoch):
        store.update(1, [buy("a")])


def test_nobody_trades_before_anyone_led(database: Database, clock: Clock) -> None:
    store = CatalogStore(database, clock)
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
    store: CatalogStore, epoch: int, leader_id: int, accepted: bool
) -> None:
    answer = store.fence(epoch, leader_id)
    registered = Registration(epoch, leader_id) if accepted else Registration(1, 2)
    assert answer == (accepted, registered)
    assert store.registered() == registered


def test_only_one_of_many_wins_an_epoch(store: CatalogStore) -> None:
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


def test_the_journal_is_read_in_chunks(store: CatalogStore) -> None:
    for start in range(0, MAX_CHUNK + 5, 201):
        store.update(1, [sell(str(start + number)) for number in range(201)])
    assert [order.number for order in store.journal(0)] == list(range(1, MAX_CHUNK + 1))
    assert [order.number for order in store.journal(3, limit=2)] == [4, 5]
    assert [order.number for order in store.journal(MAX_CHUNK, limit=10**9)][:2] == [1001, 1002]
    assert len(store.journal(0, limit=10**30)) == MAX_CHUNK


@pytest.mark.parametrize("after", [1, 2, 2**63 - 1, 2**63, 10**30])
def test_there_is_nothing_above_the_last_order(store: CatalogStore, after: int) -> None:
    decide(store, buy("a"))
    assert store.journal(after) == []


@pytest.mark.parametrize("after", [0, -1, -(10**30)])
def test_every_order_is_above_zero(store: CatalogStore, after: int) -> None:
    decide(store, buy("a"))
    assert [order.number for order in store.journal(after)] == [1]
    assert MAX_ORDER_NUMBER > 1


# ------------------------------------------------------------- concurrency


def test_readers_neither_wait_for_the_writer_nor_see_what_is_not_committed(
    store: CatalogStore, database: Database
) -> None:
    with database.writing() as connection:
        with transaction(connection):
            connection.execute("UPDATE stocks SET volume = 1, version = 9")
            assert volume(store) == 100
            assert store.journal(0) == []
            assert store.registered() == (1, 2)
        assert volume(store) == 1


def test_a_reader_sees_each_commit_at_once(store: CatalogStore) -> None:
    for number in range(1, 51):
        decide(store, buy(str(number)))
        assert volume(store) == 100 - number
        assert len(store.journal(0)) == number


def test_many_threads_trade_and_read_at_once(store: CatalogStore) -> None:
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


def test_a_later_start_keeps_what_the_volume_holds(tmp_path: Path, clock: Clock) -> None:
    stocks_file = tmp_path / "stocks.txt"
    stocks_file.write_text(STOCKS)
    with closing(Database(tmp_path / "data", stocks_file)) as database:
        store = CatalogStore(database, clock)
        store.fence(1, 2)
        done, refused = store.update(1, [buy("a", 30), buy("b", 71)])
    stocks_file.write_text("no stocks at all")
    clock.now_s += LEASE_MS
    with closing(Database(tmp_path / "data", stocks_file)) as database:
        store = CatalogStore(database, clock)
        assert store.registered() == (1, 2)
        assert volume(store) == 70
        assert store.journal(0) == [done.order]
        repeats = store.update(1, [buy("a", 30), buy("b", 71)])
        assert repeats == [
            Decision(DONE, done.order, replayed=True),
            Decision(refused.status, replayed=True),
        ]
        later = decide(store, buy("c"))
        assert later.order is not None
        assert done.order is not None
        assert later.number == 2
        assert later.order.digest == next_digest(done.order.digest, later.order)
