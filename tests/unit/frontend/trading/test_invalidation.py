"""When a trade may be acknowledged: the clock is the test's, and so is what Redis says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

import pytest
import redis

from common.domain import BUY, Trade
from common.errors import BourseError, OutcomeUnknown
from frontend.model import DONE, Decision
from frontend.trading.invalidation import AnswerSafety

ANSWERED_AT = 100.0


class World:
    """A clock that moves when somebody sleeps, and a Redis that answers as it is told."""

    def __init__(self) -> None:
        self.now_s = ANSWERED_AT
        self.tries: list[float] = []
        self.slept_s: list[float] = []
        self.answer: Callable[[], None] = lambda: None
        self.waits = 0

    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        assert list(versions) == [("stock1", 7)]
        self.tries.append(self.now_s)
        self.answer()

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def fail() -> None:
    raise redis.TimeoutError("slow")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def safety(world: World) -> Iterator[AnswerSafety]:
    made = AnswerSafety(world, threads=1, call_takes_s=1.0, clock=world.clock, sleep=world.sleep)
    yield made
    made.close()


def test_a_confirmed_invalidation_is_enough(world: World, safety: AnswerSafety) -> None:
    safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT)
    assert world.tries == [ANSWERED_AT]


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_with_nothing_left_of_the_lease_redis_is_not_asked(
    world: World, safety: AnswerSafety, late_s: float
) -> None:
    world.now_s += late_s
    safety.wait_until_safe("stock1", 7, int(late_s * 1000), ANSWERED_AT)
    assert world.tries == []


def test_it_tries_until_redis_confirms(world: World, safety: AnswerSafety) -> None:
    def fail_twice() -> None:
        if len(world.tries) <= 2:
            fail()

    world.answer = fail_twice
    safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT)
    assert len(world.tries) == 3
    assert world.now_s < ANSWERED_AT + 1


def test_it_tries_until_the_lease_has_run_out(world: World, safety: AnswerSafety) -> None:
    world.answer = fail
    safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT)
    assert world.now_s == pytest.approx(ANSWERED_AT + 5)
    assert world.slept_s[0] < 0.1
    assert max(world.slept_s) <= 0.25
    assert 20 <= len(world.tries) <= 50


def test_the_lease_counts_from_the_leaders_answer(world: World, safety: AnswerSafety) -> None:
    world.answer = fail
    world.now_s += 4.5
    safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT)
    assert world.now_s == pytest.approx(ANSWERED_AT + 5)


def test_a_try_that_hangs_does_not_hold_the_answer(world: World) -> None:
    hanging = threading.Event()
    world.answer = lambda: None if hanging.wait(30) else pytest.fail("nobody let it go")

    def let_time_pass(_attempt: Future[bool], seconds: float) -> None:
        world.waits += 1
        world.now_s += seconds / 2 + 0.001  # woken early: it must wait for the rest

    safety = AnswerSafety(
        world,
        threads=1,
        call_takes_s=1.0,
        clock=world.clock,
        sleep=world.sleep,
        wait_for=let_time_pass,
    )
    safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT)
    assert ANSWERED_AT + 5 <= world.now_s < ANSWERED_AT + 5.1
    assert world.waits > 1
    hanging.set()
    safety.close()


def test_a_defect_is_not_taken_for_safety(world: World, safety: AnswerSafety) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("a defect")

    world.answer = break_down
    safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT)
    assert world.now_s >= ANSWERED_AT + 5


def test_who_has_no_time_for_the_lease_is_told_that_it_is_not_safe(
    world: World, safety: AnswerSafety
) -> None:
    world.answer = _refuse
    with pytest.raises(OutcomeUnknown):
        safety.wait_until_safe("stock1", 7, 5_000, ANSWERED_AT, give_up_at=ANSWERED_AT + 2)
    assert ANSWERED_AT + 2 <= world.now_s < ANSWERED_AT + 3


def _refuse() -> None:
    raise redis.ConnectionError("gone")


def test_more_trades_than_threads_wait_no_longer_than_their_lease(world: World) -> None:
    hanging = threading.Event()
    world.answer = lambda: None if hanging.wait(30) else pytest.fail("nobody let it go")

    def let_time_pass(attempt: Future[bool], seconds: float) -> None:
        wait([attempt], timeout=0)
        world.now_s += seconds

    safety = AnswerSafety(
        world,
        threads=1,
        call_takes_s=1.0,
        clock=world.clock,
        sleep=world.sleep,
        wait_for=let_time_pass,
    )
    safety.wait_until_safe("stock1", 7, 1_000, ANSWERED_AT)
    safety.wait_until_safe("stock1", 7, 3_000, ANSWERED_AT)
    assert world.now_s == pytest.approx(ANSWERED_AT + 3)
    hanging.set()
    safety.close()


# ------------------------------------------------------------ together


class Together:
    """What was decided in one call, and a Redis that answers as it is told."""

    def __init__(self) -> None:
        self.now_s = ANSWERED_AT
        self.invalidated: list[list[tuple[str, int]]] = []
        self.takes_s = 0.0
        self.error: Exception | None = None
        self.safety = AnswerSafety(self, threads=1, call_takes_s=1.0, clock=lambda: self.now_s)

    def invalidate(self, versions: Sequence[tuple[str, int]]) -> None:
        self.invalidated.append(list(versions))
        self.now_s += self.takes_s
        if self.error is not None:
            raise self.error

    def end(self, *outcomes: Decision | BourseError) -> list[Decision | BourseError]:
        trades = [Trade(f"key-{i}", f"stock{i}", BUY, 1) for i in range(len(outcomes))]
        return self.safety.end_leases(trades, outcomes)


@pytest.fixture
def together() -> Iterator[Together]:
    together = Together()
    yield together
    together.safety.close()


def done(version: int, lease_ms: int) -> Decision:
    return Decision(DONE, version, version, lease_ms, replayed=False)


def test_what_was_decided_together_is_invalidated_by_one_call(together: Together) -> None:
    assert together.end(done(3, 5_000), done(4, 2_000)) == [done(3, 0), done(4, 0)]
    assert together.invalidated == [[("stock0", 3), ("stock1", 4)]]


def test_only_what_was_done_under_a_lease_worth_it_is_invalidated(together: Together) -> None:
    refused, failed = Decision(0, -1, 0, 0, replayed=False), OutcomeUnknown()
    outcomes = [done(3, 0), done(4, 999), refused, failed, done(5, 1_000)]
    assert together.end(*outcomes) == [done(3, 0), done(4, 999), refused, failed, done(5, 0)]
    assert together.invalidated == [[("stock4", 5)]]


def test_with_no_lease_redis_is_not_asked(together: Together) -> None:
    assert together.end(done(3, 0), done(4, 0)) == [done(3, 0), done(4, 0)]
    assert together.invalidated == []


@pytest.mark.parametrize("error", [redis.TimeoutError("slow"), ZeroDivisionError("a defect")])
def test_where_redis_does_not_confirm_the_leases_have_run_on(
    together: Together, error: Exception
) -> None:
    together.error, together.takes_s = error, 0.5
    assert together.end(done(3, 5_000), done(4, 1_000)) == [done(3, 4_500), done(4, 500)]


def test_a_call_that_outlasts_a_lease_ends_it_all_the_same(together: Together) -> None:
    together.error, together.takes_s = redis.TimeoutError("slow"), 7.0
    assert together.end(done(3, 5_000)) == [done(3, 0)]
