"""The parts of the client that only compute: pauses, percentiles, checks of orders and books."""

from __future__ import annotations

import pytest

from client.api import Order, RetryPolicy
from client.checks import (
    NEVER_S,
    Move,
    OwnOrder,
    SeenQuantity,
    out_of_order,
    shared_numbers,
    wrong_quantities,
)
from client.tally import LatencyRecorder, LatencySummary
from stack.numbers import percentile


def test_pauses_double_up_to_the_longest() -> None:
    policy = RetryPolicy(first_pause_s=1, longest_pause_s=5, jitter=lambda _low, high: high)
    assert [policy.pause_s(made, 0) for made in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_jitter_leaves_half_the_pause() -> None:
    policy = RetryPolicy(first_pause_s=1)
    assert all(0.5 <= (policy.pause_s(1, 0) or 0) <= 1 for _ in range(50))


def test_attempts_and_time_are_bounded() -> None:
    policy = RetryPolicy(attempts=3, total_s=10, first_pause_s=1, jitter=lambda _low, high: high)
    assert policy.pause_s(2, 0) == 2
    assert policy.pause_s(3, 0) is None
    assert policy.pause_s(1, 9) == 1
    assert policy.pause_s(1, 9.5) is None


def test_retry_after_is_honoured_within_its_bound() -> None:
    policy = RetryPolicy(first_pause_s=1, longest_retry_after_s=5, jitter=lambda _low, high: high)
    assert policy.pause_s(1, 0, retry_after_s=2) == 3
    assert policy.pause_s(1, 0, retry_after_s=3600) == 6


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (90, 90), (99, 99), (100, 100)]
)
def test_percentiles_of_a_hundred(percent: int, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 101)], percent) == expected


def test_percentiles_of_few_are_values_that_were_measured() -> None:
    assert [percentile([1.0, 2.0, 3.0], percent) for percent in (33, 34, 50, 90)] == [1, 2, 2, 3]
    assert percentile([7.0], 99) == 7


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_percentiles_of_nothing_are_refused(values: list[float], percent: int) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_latencies_are_summed_up_over_clients() -> None:
    recorder, other = LatencyRecorder(), LatencyRecorder()
    assert recorder.summary() is None
    recorder.record(began_at_s=10.0, latency_s=0.2)
    other.record(began_at_s=4.2, latency_s=0.3)
    other.record(began_at_s=20.0, latency_s=0.1)
    recorder.add(other)
    assert recorder.summary() == LatencySummary(3, 0.2, 0.3, 0.3, 0.3, 4.2)


def own(number: int, began_at_s: float, acknowledged_at_s: float, key: str = "k") -> OwnOrder:
    return OwnOrder(Order(number, "stock1", "BUY", 1), 1, key, began_at_s, acknowledged_at_s)


def test_a_number_given_twice_is_found() -> None:
    assert shared_numbers([own(1, 0, 1), own(2, 1, 2)]) == []
    (line,) = shared_numbers([own(1, 0, 1, "a"), own(2, 1, 2), own(1, 2, 3, "b")])
    assert "key a" in line
    assert "key b" in line


def test_numbers_against_time_are_found() -> None:
    overlapping = [own(2, 0, 5), own(1, 4, 6), own(3, 6, 7)]
    assert out_of_order(overlapping) == []
    late_but_low = [*overlapping, own(5, 8, 9), own(4, 10, 11)]
    (line,) = out_of_order(late_but_low)
    assert line.startswith("numbered against time: order 4:")


def seen(quantity: int, began_at_s: float, answered_at_s: float) -> SeenQuantity:
    return SeenQuantity("stock1", quantity, began_at_s, answered_at_s)


def wrong(moves: list[Move], *quotes: SeenQuantity) -> int:
    return len(wrong_quantities({"stock1": 100}, moves, quotes))


def test_a_settled_trade_is_in_every_later_quote() -> None:
    moves = [Move("stock1", -3, 1, 2)]
    assert wrong(moves, seen(97, 3, 4)) == 0
    assert wrong(moves, seen(100, 3, 4)) == 1
    assert wrong(moves, seen(100, 0, 0.5), seen(97, 0, 0.5)) == 1


def test_an_open_trade_may_be_in_a_quote_or_not() -> None:
    moves = [Move("stock1", -3, 1, 5), Move("stock1", 10, 2, 6)]
    assert wrong(moves, *[seen(quantity, 3, 4) for quantity in (97, 100, 107, 110)]) == 0
    assert wrong(moves, seen(96, 3, 4), seen(111, 3, 4)) == 2


def test_a_trade_of_unknown_outcome_stays_open() -> None:
    moves = [Move("stock1", -3, 1, NEVER_S)]
    assert wrong(moves, seen(97, 100, 101), seen(100, 100, 101)) == 0


def test_stocks_without_an_opening_quantity_are_left_out() -> None:
    assert wrong([], SeenQuantity("stock2", 7, 0, 1)) == 0
