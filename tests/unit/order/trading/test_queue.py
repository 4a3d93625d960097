"""The queue of trades: it is bounded, oldest first, and drops trades after their deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.errors import Busy, OutcomeUnknown
from order.trading.queue import PendingTrade, TradeQueue
from tests.support.clock import Clock
from tests.unit.order.fakes import NEVER, make_pending, make_trade, outcome

LONG_S = 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def queue(clock: Clock) -> TradeQueue:
    return TradeQueue(capacity=5, batch_limit=3, clock=clock)


def fill(queue: TradeQueue, count: int) -> list[PendingTrade]:
    pendings = [make_pending(f"request-{index}") for index in range(count)]
    for pending in pendings:
        queue.put(pending)
    return pendings


def test_batches_are_bounded_and_oldest_first(queue: TradeQueue) -> None:
    pendings = fill(queue, 5)
    assert queue.take_batch() == pendings[:3]
    assert queue.take_batch() == pendings[3:]
    assert queue.take_batch() == []


def test_a_full_queue_takes_nothing_more(queue: TradeQueue) -> None:
    pendings = fill(queue, 5)
    refused = make_pending("refused")
    with pytest.raises(Busy, match="too many trades are waiting"):
        queue.put(refused)
    assert queue.take_batch() + queue.take_batch() == pendings
    assert not refused.outcome.done()
    queue.put(refused)  # there is space again
    assert queue.take_batch() == [refused]


def test_the_capacity_is_of_what_waits_not_of_what_was_taken(queue: TradeQueue) -> None:
    fill(queue, 5)
    queue.take_batch()
    fill(queue, 3)
    with pytest.raises(Busy):
        queue.put(make_pending("one more"))


@pytest.mark.parametrize(
    ("deadline_s", "is_sent"), [(999.0, False), (1000.0, False), (1000.001, True), (NEVER, True)]
)
def test_a_trade_is_not_sent_after_its_deadline(
    queue: TradeQueue, deadline_s: float, is_sent: bool
) -> None:
    first, last = make_pending("first"), make_pending("last")
    between = PendingTrade(make_trade("between"), deadline_s)
    for pending in (first, between, last):
        queue.put(pending)
    assert queue.take_batch() == ([first, between, last] if is_sent else [first, last])
    assert not first.outcome.done()
    assert between.outcome.done() is not is_sent
    if not is_sent:
        answer = outcome(between)
        assert isinstance(answer, OutcomeUnknown)
        assert answer.message == "the deadline passed before the trade was sent"


def test_the_clock_is_read_when_the_batch_is_taken(queue: TradeQueue, clock: Clock) -> None:
    pending = PendingTrade(make_trade("waits too long"), clock() + 1)
    queue.put(pending)
    clock.now_s += 1
    assert queue.take_batch() == []
    assert isinstance(outcome(pending), OutcomeUnknown)


def woken_in_a_thread(
    queue: TradeQueue,
    meanwhile: Callable[[], None],
    waits: Callable[[], object] | None = None,
) -> object:
    """Lets a thread wait, then calls `meanwhile`. Returns what the thread gets."""
    is_waiting = threading.Event()
    wait_for = queue._arrived.wait_for

    def watched(predicate: Callable[[], object], timeout: float | None = None) -> object:
        is_waiting.set()
        return wait_for(predicate, timeout)

    queue._arrived.wait_for = watched  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(1) as thread:
        taking = thread.submit(waits or (lambda: queue.wait(LONG_S)))
        assert is_waiting.wait(10)
        meanwhile()  # gets the lock only after the thread released it to wait
        return taking.result(timeout=10)


def test_who_waits_is_woken_by_a_trade(queue: TradeQueue) -> None:
    pending = make_pending("request")
    assert woken_in_a_thread(queue, lambda: queue.put(pending))


def test_who_waits_is_woken_when_the_queue_closes(queue: TradeQueue) -> None:
    assert not woken_in_a_thread(queue, queue.close)


def test_who_gathers_goes_on_when_enough_have_come(queue: TradeQueue) -> None:
    fill(queue, 2)
    queue.gather(2, LONG_S)  # returns at once
    woken_in_a_thread(
        queue,
        lambda: queue.put(make_pending("a"), make_pending("b")),
        waits=lambda: queue.gather(4, LONG_S),
    )
    assert len(queue) == 4


def test_who_gathers_goes_on_when_the_queue_closes(queue: TradeQueue) -> None:
    woken_in_a_thread(queue, queue.close, waits=lambda: queue.gather(1, LONG_S))


def test_who_gathers_goes_on_without_those_who_do_not_come(queue: TradeQueue) -> None:
    fill(queue, 1)
    queue.gather(2, timeout_s=0.001)
    assert len(queue) == 1


def test_trades_are_taken_all_or_none(queue: TradeQueue) -> None:
    fill(queue, 3)
    with pytest.raises(Busy):
        queue.put(*(make_pending(name) for name in "abc"))
    assert len(queue) == 3
    queue.put(*(make_pending(name) for name in "ab"))
    assert len(queue) == 5


def test_a_closed_queue_takes_nothing_and_hands_out_what_it_has(queue: TradeQueue) -> None:
    assert not queue.is_drained
    pendings = fill(queue, 4)
    queue.close()
    with pytest.raises(Busy, match="stopping"):
        queue.put(make_pending("too late"))
    assert not queue.is_drained
    assert queue.take_batch() == pendings[:3]
    assert not queue.is_drained
    assert queue.take_batch() == pendings[3:]
    assert queue.is_drained
    assert queue.take_batch() == []  # returns at once
