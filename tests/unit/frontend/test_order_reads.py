"""Reads of orders: any log that has one is right. Only the journal can say that there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from common.errors import Busy, Contradiction, Damaged, Internal, OutcomeUnknown, Unavailable
from frontend.model import OrderView
from frontend.order_reads import OrderReads
from proto import bourse_pb2
from tests.support.replica_fakes import PATIENCE_S, Replicas, answers, fails

ORDER = OrderView(7, "stock3", "SELL", 25)
SHORT_S = 0.5

CANNOT_BE_READ = [Unavailable("gone"), OutcomeUnknown(), Busy("full"), Internal(), Damaged()]


class FakeJournal:
    def __init__(self) -> None:
        self.orders: dict[int, OrderView] = {}
        self.error: Exception | None = None
        self.asked: list[int] = []

    def journal_row(self, number: int) -> OrderView | None:
        self.asked.append(number)
        if self.error is not None:
            raise self.error
        return self.orders.get(number)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    replicas = Replicas()
    yield replicas
    replicas.close()


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


@pytest.fixture
def reads(replicas: Replicas, journal: FakeJournal) -> OrderReads:
    return OrderReads(list(replicas.peers.values()), journal, replica_timeout_s=PATIENCE_S)


def give(replicas: Replicas, *replica_ids: int) -> None:
    """Has these replicas hold the order."""
    for replica_id in replica_ids:
        replicas[replica_id].orders[ORDER.number] = bourse_pb2.OrderLookupResponse(
            status=1,
            number=ORDER.number,
            name=ORDER.name,
            type=bourse_pb2.TradeType.Value(ORDER.type),
            quantity=ORDER.quantity,
        )


def asked(replicas: Replicas) -> dict[int, int]:
    return {replica_id: len(seen) for replica_id, seen in replicas.seen("OrderLookup").items()}


# ---------------------------------------------------------------- found


def test_one_replica_that_has_the_order_is_enough(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    give(replicas, 1, 2, 3)
    assert reads.order(7) == ORDER
    assert asked(replicas) == {1: 1}
    assert replicas.seen("OrderLookup") == {1: [bourse_pb2.OrderLookupRequest(number=7)]}
    assert journal.asked == []


@pytest.mark.parametrize("survivor", [1, 2, 3])
def test_any_replica_will_do(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads, survivor: int
) -> None:
    give(replicas, survivor)
    for replica_id in {1, 2, 3} - {survivor}:
        replicas.kill(replica_id)
    journal.error = Unavailable()
    assert reads.order(7) == ORDER
    assert journal.asked == []


@pytest.mark.parametrize("error", CANNOT_BE_READ, ids=lambda error: type(error).__name__)
def test_a_replica_that_cannot_be_read_is_passed_over(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads, error: Exception
) -> None:
    replicas[1].will("OrderLookup", fails(error))
    give(replicas, 2)
    assert reads.order(7) == ORDER
    assert journal.asked == []


def test_an_answer_of_another_replica_is_passed_over(replicas: Replicas, reads: OrderReads) -> None:
    wrong = bourse_pb2.OrderLookupResponse(status=1, number=7, name="stock9", replica_id=3)
    replicas[1].will("OrderLookup", answers(wrong))
    give(replicas, 2)
    assert reads.order(7) == ORDER


# ---------------------------------------------------------------- not found


def test_there_is_no_order_only_if_the_journal_says_so(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    assert reads.order(7) is None
    assert journal.asked == [7]
    # The journal knows best: nobody else need be asked.
    assert asked(replicas) == {1: 1}


def test_a_replica_behind_does_not_hide_an_order(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    journal.orders[7] = ORDER
    assert reads.order(7) == ORDER
    assert asked(replicas) == {1: 1}


def test_the_journal_alone_is_enough(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    for replica_id in (1, 2, 3):
        replicas.kill(replica_id)
    journal.orders[7] = ORDER
    assert reads.order(7) == ORDER
    assert reads.order(8) is None


def test_a_damaged_journal_is_no_answer(journal: FakeJournal, reads: OrderReads) -> None:
    journal.error = Damaged("the journal has no order 7 but has order 8")
    with pytest.raises(Damaged):
        reads.order(7)


# ---------------------------------------------------------------- logs and catalog contradict


APART = Contradiction("log and journal contradict each other")


def test_a_journal_that_all_logs_contradict_is_not_believed(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    """It may be a new, empty catalog in place of the one that had the order, or another one."""
    replicas[1].always("OrderLookup", fails(APART))
    replicas[2].always("OrderLookup", fails(APART))
    replicas[3].always("OrderLookup", fails(Unavailable("gone")))
    journal.orders[8] = ORDER
    for number in (7, 8):
        with pytest.raises(Unavailable, match="contradict each other"):
            reads.order(number)
    assert journal.asked == []


def test_a_log_that_fits_the_catalog_speaks_for_it(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    for replica_id in (1, 2):
        replicas[replica_id].always("OrderLookup", fails(APART))
    assert reads.order(7) is None
    journal.orders[7] = ORDER
    assert reads.order(7) == ORDER
    give(replicas, 3)
    assert reads.order(7) == ORDER
    assert journal.asked == [7, 7]


# ---------------------------------------------------------------- the catalog is down


@pytest.mark.parametrize("holder", [2, 3])
def test_without_the_journal_every_replica_is_asked(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads, holder: int
) -> None:
    give(replicas, holder)
    journal.error = Unavailable("the catalog is unavailable")
    assert reads.order(7) == ORDER
    assert asked(replicas) == dict.fromkeys(range(1, holder + 1), 1)


def test_without_the_journal_a_replica_that_cannot_be_read_does_not_end_the_search(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    replicas[2].will("OrderLookup", fails(Unavailable("gone")))
    give(replicas, 3)
    journal.error = Unavailable("the catalog is unavailable")
    assert reads.order(7) == ORDER
    assert asked(replicas) == {1: 1, 2: 1, 3: 1}


def test_without_the_journal_nobody_can_say_that_there_is_no_order(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    journal.error = Unavailable("the catalog is unavailable")
    with pytest.raises(Unavailable, match="the catalog is unavailable"):
        reads.order(7)
    assert asked(replicas) == {1: 1, 2: 1, 3: 1}


def test_with_everything_down_it_is_unavailable(
    replicas: Replicas, journal: FakeJournal, reads: OrderReads
) -> None:
    for replica_id in (1, 2, 3):
        replicas.kill(replica_id)
    journal.error = Unavailable("the catalog is unavailable")
    with pytest.raises(Unavailable, match="the catalog is unavailable"):
        reads.order(7)


# ---------------------------------------------------------------- whom to ask first


def test_who_answered_last_is_asked_first(replicas: Replicas, reads: OrderReads) -> None:
    give(replicas, 1, 2, 3)
    replicas[1].will("OrderLookup", fails(Unavailable("gone")))
    for _ in range(5):
        assert reads.order(7) == ORDER
    assert asked(replicas) == {1: 1, 2: 5}


def test_an_answer_of_no_order_counts_as_an_answer(replicas: Replicas, reads: OrderReads) -> None:
    replicas[1].will("OrderLookup", fails(Unavailable("gone")))
    for _ in range(3):
        assert reads.order(7) is None
    assert asked(replicas) == {1: 1, 2: 3}


def test_after_the_last_replica_comes_the_first(replicas: Replicas, reads: OrderReads) -> None:
    gone = fails(Unavailable("gone"))
    give(replicas, 1, 3)
    for replica_id in (1, 2):
        replicas[replica_id].will("OrderLookup", gone)
    assert reads.order(7) == ORDER  # by 3
    replicas[3].will("OrderLookup", gone)
    assert reads.order(7) == ORDER  # by 1
    assert asked(replicas) == {1: 2, 2: 1, 3: 2}


def test_a_silent_replica_costs_one_timeout_once(replicas: Replicas, journal: FakeJournal) -> None:
    reads = OrderReads(list(replicas.peers.values()), journal, replica_timeout_s=SHORT_S)
    give(replicas, 2, 3)
    replicas[1].always("OrderLookup", replicas[1].silent)
    started = time.monotonic()
    for _ in range(5):
        assert reads.order(7) == ORDER
    assert SHORT_S * 0.9 < time.monotonic() - started < 4 * SHORT_S
    assert asked(replicas) == {1: 1, 2: 5}
