"""Retries end: after a time, after a number of attempts, on an error that nothing can change."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from common.retries import Backoff, Retries, always
from tests.support.clock import Clock


class Away(Exception):
    pass


class AwayForGood(Away):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


def failing(times: int, error: type[Exception] = Away) -> Callable[[float], list[float]]:
    """An attempt that fails so often and then returns the times that were left to each."""
    left: list[float] = []

    def attempt(left_s: float) -> list[float]:
        left.append(left_s)
        if len(left) <= times:
            raise error(f"failure {len(left)}")
        return left

    return attempt


def test_no_pause_where_nothing_fails(clock: Clock) -> None:
    retries = Retries(on=(Away,), for_s=1, backoff=always(0.1), clock=clock, sleep=clock.pause)
    assert retries.call(failing(0)) == [1]
    assert clock.pauses == []


def test_each_attempt_is_told_what_is_left(clock: Clock) -> None:
    retries = Retries(on=(Away,), for_s=1, backoff=always(0.25), clock=clock, sleep=clock.pause)
    assert retries.call(failing(3)) == [1, 0.75, 0.5, 0.25]


def test_the_time_ends_them_with_the_last_error(clock: Clock) -> None:
    retries = Retries(on=(Away,), for_s=1, backoff=always(0.3), clock=clock, sleep=clock.pause)
    with pytest.raises(Away, match="failure 4"):
        retries.call(failing(100))
    assert clock.now_s == pytest.approx(100.9)  # a fifth attempt would have begun too late


def test_what_an_attempt_takes_is_part_of_the_time(clock: Clock) -> None:
    def slow(_left_s: float) -> None:
        clock.now_s += 0.6
        raise Away

    retries = Retries(on=(Away,), for_s=1, backoff=always(0.1), clock=clock, sleep=clock.pause)
    with pytest.raises(Away):
        retries.call(slow)
    assert clock.now_s == pytest.approx(101.3)


class Promising(Away):
    pass


def promising(clock: Clock, **more: float) -> Retries:
    return Retries(
        on=(Away,),
        longer_on=(Promising,),
        longest_s=3.0,
        backoff=always(0.25),
        clock=clock,
        sleep=clock.pause,
        **{"for_s": 1.0} | more,
    )


def test_an_error_that_promises_an_end_gives_the_time_anew(clock: Clock) -> None:
    errors = [Away, Promising, *[Away] * 10]

    def attempt(_left_s: float) -> None:
        raise errors.pop(0)

    with pytest.raises(Away):
        promising(clock).call(attempt)
    assert clock.now_s == 100 + 0.25 + 0.75  # one second from the promise


def test_promises_are_believed_only_for_so_long(clock: Clock) -> None:
    with pytest.raises(Promising):
        promising(clock).call(failing(100, Promising))
    assert clock.now_s == 102.75


def test_a_promise_does_not_shorten_the_time(clock: Clock) -> None:
    with pytest.raises(Promising):
        promising(clock, for_s=5.0).call(failing(100, Promising))
    assert clock.now_s == 104.75


def test_the_number_ends_them_too(clock: Clock) -> None:
    retries = Retries(on=(Away,), attempts=3, backoff=always(0.1), clock=clock, sleep=clock.pause)
    assert retries.call(failing(2)) == [math.inf] * 3
    with pytest.raises(Away, match="failure 3"):
        retries.call(failing(3))


@pytest.mark.parametrize("error", [KeyError, AwayForGood])
def test_other_errors_end_them_at_once(clock: Clock, error: type[Exception]) -> None:
    retries = Retries(
        on=(Away,),
        never_on=(AwayForGood,),
        for_s=1,
        backoff=always(0.1),
        clock=clock,
        sleep=clock.pause,
    )
    with pytest.raises(error):
        retries.call(failing(1, error))
    assert clock.pauses == []


def test_every_error_that_is_retried_is_heard_of(clock: Clock) -> None:
    retries = Retries(on=(Away,), attempts=3, backoff=always(0.1), clock=clock, sleep=clock.pause)
    heard: list[str] = []
    with pytest.raises(Away):
        retries.call(failing(3), lambda error: heard.append(str(error)))
    assert heard == ["failure 1", "failure 2"]


def test_who_hears_of_an_error_can_end_them(clock: Clock) -> None:
    def give_up(error: Exception) -> None:
        raise LookupError from error

    retries = Retries(on=(Away,), attempts=3, backoff=always(0.1), clock=clock, sleep=clock.pause)
    with pytest.raises(LookupError):
        retries.call(failing(3), give_up)
    assert clock.pauses == []


def test_a_bound_is_demanded() -> None:
    with pytest.raises(ValueError, match="without a bound"):
        Retries(on=(Away,), backoff=always(0.1))


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 0.5, at_least=1.0)
    assert [backoff.pause_s(failures) for failures in (1, 2, 3, 4, 10_000)] == [
        0.1,
        0.2,
        0.4,
        0.5,
        0.5,
    ]


def test_pauses_are_spread() -> None:
    pauses = [Backoff(0.1, 1.0, at_least=0.5).pause_s(2) for _ in range(1000)]
    assert all(0.1 <= pause_s <= 0.2 for pause_s in pauses)
    assert min(pauses) < 0.12
    assert max(pauses) > 0.18
