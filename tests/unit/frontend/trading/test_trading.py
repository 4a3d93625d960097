"""A trade as a whole: what is invalidated, how long its answer is held back, what ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.domain import BUY, Trade
from common.errors import OutcomeUnknown
from frontend.model import DONE, Decision
from frontend.trading.trading import Trading
from tests.support.clock import Clock

TRADE = Trade("key-1", "stock1", BUY, 1)
DECISION = Decision(DONE, number=3, version=7, lease_ms=5_000, replayed=False)


class World:
    """A leader that takes its time, and a cache that confirms or does not."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.pass_by(100.0)
        self.decision = DECISION
        self.deciding_takes_s = 0.0
        self.arrivals: list[float] = []
        self.confirms = True
        self.gives_up_early = False
        self.invalidated: list[tuple[str, int, float]] = []
        self.trading = Trading(self, self, self.clock, self.clock.pause)

    def decide(self, trade: Trade, arrived_at: float) -> Decision:
        assert trade == TRADE
        self.arrivals.append(arrived_at)
        self.clock.pass_by(self.deciding_takes_s)
        return self.decision

    def invalidate(self, name: str, version: int, until: float) -> bool:
        self.invalidated.append((name, version, until))
        if not self.confirms and not self.gives_up_early:
            self.clock.pass_by(until - self.clock.now_s)
        return self.confirms


@pytest.fixture
def world() -> World:
    return World()


def test_a_done_trade_is_answered_when_redis_has_confirmed(world: World) -> None:
    assert world.trading.trade(TRADE, 0.0) == DECISION
    assert world.invalidated == [("stock1", 7, 105.0)]
    assert world.clock.now_s == 100.0


def test_a_repeat_waits_for_the_cache_too(world: World) -> None:
    world.decision = replace(DECISION, replayed=True)
    world.trading.trade(TRADE, 0.0)
    assert len(world.invalidated) == 1


@pytest.mark.parametrize("status", [0, -1])
def test_a_refused_trade_has_nothing_to_invalidate(world: World, status: int) -> None:
    world.decision = replace(DECISION, status=status, number=-1, version=0)
    assert world.trading.trade(TRADE, 0.0) == world.decision
    assert world.invalidated == []


@pytest.mark.parametrize("gives_up_early", [True, False])
def test_without_a_confirmation_the_lease_runs_out_first(
    world: World, gives_up_early: bool
) -> None:
    """From the leader's answer on, which says what is left of it."""
    world.confirms, world.gives_up_early = False, gives_up_early
    world.deciding_takes_s = 2.0
    assert world.trading.trade(TRADE, 0.0) == DECISION
    assert world.clock.now_s == pytest.approx(107.0)


def test_a_sleep_that_ends_early_is_continued(world: World) -> None:
    world.confirms, world.gives_up_early = False, True

    def wake_early(seconds: float) -> None:
        world.clock.pause(seconds / 2 + 0.001)

    Trading(world, world, world.clock, wake_early).trade(TRADE, 0.0)
    assert len(world.clock.pauses) > 1
    assert world.clock.now_s >= 105.0


def test_budgets_count_from_the_requests_arrival(world: World) -> None:
    world.trading.trade(TRADE, 3.0)
    assert world.arrivals == [97.0]


def test_who_has_no_time_for_the_lease_is_told_that_the_outcome_is_unknown(world: World) -> None:
    world.confirms = False
    with pytest.raises(OutcomeUnknown):
        world.trading.trade(TRADE, 6.0)
    assert world.invalidated == [("stock1", 7, pytest.approx(103.5))]
    assert world.clock.now_s == pytest.approx(103.5)


def test_a_lease_that_ends_in_time_is_waited_for(world: World) -> None:
    world.confirms = False
    world.decision = replace(DECISION, lease_ms=3_000)
    assert world.trading.trade(TRADE, 6.0) == world.decision
    assert world.clock.now_s == pytest.approx(103.0)
