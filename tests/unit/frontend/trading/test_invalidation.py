"""Taking older quotes out of the cache: what is tried again, until when, and what goes together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from frontend.trading.invalidation import CacheInvalidation
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import PATIENCE_S

UNTIL = 5.0


class World:
    """A clock that moves when somebody sleeps, and a Redis that answers as it is told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.tries: list[tuple[float, list[tuple[str, int]]]] = []
        self.answer: Callable[[], None] = lambda: None
        self.invalidation = CacheInvalidation(self, self.clock, self.clock.pause)

    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        self.tries.append((self.clock.now_s, list(versions)))
        self.answer()


def time_out() -> None:
    raise redis.TimeoutError("slow")


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.invalidation.close()


def test_it_is_confirmed_by_redis(world: World) -> None:
    assert world.invalidation.invalidate("stock1", 7, UNTIL)
    assert world.tries == [(0.0, [("stock1", 7)])]


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_when_the_time_is_over_redis_is_not_asked(world: World, late_s: float) -> None:
    world.clock.pass_by(UNTIL + late_s)
    assert not world.invalidation.invalidate("stock1", 7, UNTIL)
    assert world.tries == []


def test_it_tries_until_redis_confirms(world: World) -> None:
    def time_out_twice() -> None:
        if len(world.tries) <= 2:
            time_out()

    world.answer = time_out_twice
    assert world.invalidation.invalidate("stock1", 7, UNTIL)
    assert len(world.tries) == 3
    assert world.clock.now_s < 1.0


@pytest.mark.parametrize("error", [redis.TimeoutError("slow"), ZeroDivisionError("a defect")])
def test_it_tries_until_the_time_is_over(world: World, error: Exception) -> None:
    def fail() -> None:
        raise error

    world.answer = fail
    assert not world.invalidation.invalidate("stock1", 7, UNTIL)
    assert world.clock.now_s == pytest.approx(UNTIL)
    assert world.clock.pauses[0] < 0.1
    assert max(world.clock.pauses) <= 0.25
    assert 20 <= len(world.tries) <= 60


def test_a_try_that_hangs_holds_nobody_longer_than_its_time() -> None:
    """On the real clock, which the wait for an answer goes by."""
    may_answer = threading.Event()

    class HangingCache:
        def invalidate(self, _versions: Sequence[tuple[str, int]]) -> None:
            assert may_answer.wait(PATIENCE_S)

    invalidation = CacheInvalidation(HangingCache())
    try:
        clock = invalidation._clock
        for _ in range(2):  # in the call, then in the queue behind it
            assert not invalidation.invalidate("stock1", 7, clock() + 0.02)
    finally:
        may_answer.set()
        invalidation.close()


def test_what_comes_while_a_call_is_out_goes_together_in_the_next(world: World) -> None:
    may_answer = threading.Event()
    world.answer = lambda: None if may_answer.wait(PATIENCE_S) else pytest.fail("never let go")
    with ThreadPoolExecutor(3) as executor:
        confirming = [executor.submit(world.invalidation.invalidate, "stock1", 7, UNTIL)]
        wait_for(lambda: len(world.tries) == 1, PATIENCE_S, "the first call is out")
        for count, name in enumerate(("stock2", "stock3"), start=1):
            confirming.append(executor.submit(world.invalidation.invalidate, name, 1, UNTIL))
            wait_for(
                lambda n=count: len(world.invalidation._sender._waiting) == n,
                PATIENCE_S,
                "it waits",
            )
        may_answer.set()
        assert all(one.result(PATIENCE_S) for one in confirming)
    assert [versions for _, versions in world.tries] == [
        [("stock1", 7)],
        [("stock2", 1), ("stock3", 1)],
    ]
