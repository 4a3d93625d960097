"""A replica with hanging work stops leading, and does not lead again until the work ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import Unavailable
from order.leadership import watchdog as watchdog_module
from order.leadership.replica import Role
from order.leadership.watchdog import Progress, Watchdog
from order.loops import Loops
from tests.support.clock import Clock
from tests.unit.order.fakes import TIMEOUT_S
from tests.unit.order.leadership.promotion_world import (
    REST_S,
    STUCK_AFTER_S,
    World,
    deposed,
    open_world,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


# ------------------------------------------------------------ what hangs


def test_without_work_nothing_hangs() -> None:
    clock = Clock()
    progress = Progress(clock)
    with progress.of_work():
        clock.now_s += 5
    clock.now_s += 100
    assert progress.longest_idle_s() == 0


def test_what_hangs_the_longest_counts() -> None:
    clock = Clock()
    progress = Progress(clock)
    with progress.of_work():
        clock.now_s += 1
        with progress.of_work() as moved:
            clock.now_s += 2
            moved()
            assert progress.longest_idle_s() == 3
        assert progress.longest_idle_s() == 3


def test_work_that_ends_with_an_error_is_over() -> None:
    clock = Clock()
    progress = Progress(clock)
    with pytest.raises(ZeroDivisionError), progress.of_work():
        raise ZeroDivisionError
    clock.now_s += 100
    assert progress.longest_idle_s() == 0


# ------------------------------------------------------------ a batch that hangs


@pytest.mark.parametrize("batch_takes_s", [0.0, STUCK_AFTER_S])
def test_a_leader_whose_batch_is_young_is_not_stuck(world: World, batch_takes_s: float) -> None:
    world.promotion.lead(5)
    world.clock.now_s += 100
    with world.progress.of_work():
        world.clock.now_s += batch_takes_s
        world.watchdog.look()
    assert world.state() == (Role.LEADER, 5, 1)


def test_a_leader_whose_batch_does_not_end_is_stuck(world: World) -> None:
    world.promotion.lead(5)
    with world.progress.of_work():
        world.clock.now_s += STUCK_AFTER_S + 0.1
        world.watchdog.look()
    assert world.state() == (Role.FOLLOWER, 5, 0)
    world.assert_rests("nothing has moved for 2.6 s")


def test_a_follower_whose_batch_does_not_end_does_not_lead(world: World) -> None:
    """It rests for as long as the batch hangs."""
    with world.progress.of_work():
        world.clock.now_s += STUCK_AFTER_S + 0.1
        for _ in range(5):
            world.watchdog.look()
            world.clock.now_s += REST_S - 0.001
            world.assert_rests("nothing has moved")
    world.watchdog.look()
    world.clock.now_s += 0.001
    assert world.promotion.lead(5) == 5


# ------------------------------------------------------------ a promotion that hangs


@pytest.mark.parametrize("chunk_takes_s", [2.0, 3.0])
def test_a_promotion_without_progress_is_stuck(world: World, chunk_takes_s: float) -> None:
    """A promotion may take any time as long as rows arrive."""
    world.catalog.chunk = 1
    states: list[Role] = []

    def slow(execute: Callable[[], list[list[Order]]]) -> Iterator[list[Order]]:
        for rows in execute():
            world.clock.now_s += chunk_takes_s
            world.watchdog.look()
            states.append(world.state()[0])
            yield rows

    world.catalog.journal_script.append(slow)
    world.clock.now_s += 100
    world.promotion.lead(5)
    if chunk_takes_s < STUCK_AFTER_S:
        assert states == [Role.PROMOTING] * 5
        assert world.state() == (Role.LEADER, 5, 1)
    else:
        assert states == [Role.FOLLOWER] * 5
        assert world.state() == (Role.FOLLOWER, 5, 0)


def test_while_a_promotion_is_stuck_no_other_begins(world: World) -> None:
    led: list[int] = []

    def hang(execute: Callable[[], object]) -> object:
        world.clock.now_s += 3
        for _ in range(3):
            world.watchdog.look()
            try:
                led.append(world.promotion.lead(6))
            except Unavailable:
                pass
            world.clock.now_s += REST_S
        return execute()

    world.catalog.journal_script.append(hang)
    world.promotion.lead(5)
    assert led == []


def test_a_deposed_promotion_that_ends_hides_no_later_one_that_hangs(world: World) -> None:
    """Two promotions can run at once, if the replica was deposed during the first."""
    states: list[Role] = []

    def hang(execute: Callable[[], object]) -> object:
        first_goes_on.set()
        first.join(TIMEOUT_S)
        world.clock.now_s += STUCK_AFTER_S + 0.1
        world.watchdog.look()
        states.append(world.state()[0])
        return execute()

    def be_deposed(execute: Callable[[], object]) -> object:
        deposed(world)
        first_is_deposed.set()
        assert first_goes_on.wait(TIMEOUT_S)
        return execute()

    first_is_deposed, first_goes_on = threading.Event(), threading.Event()
    world.catalog.journal_script += [be_deposed, hang]
    first = threading.Thread(target=world.promotion.lead, args=(5,))
    first.start()
    assert first_is_deposed.wait(TIMEOUT_S)
    world.catalog.registered = (6, 2)
    world.promotion.lead(7)
    assert states == [Role.FOLLOWER]
    world.assert_rests("nothing has moved")


# ------------------------------------------------------------ who looks


def test_the_watchdog_looks_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "_INTERVAL_S", 0.001)
    given_up: list[str] = []
    has_seen_it = threading.Event()

    def give_up(why: str) -> None:
        given_up.append(why)
        if len(given_up) == 1:
            raise ZeroDivisionError("a defect, which does not end the looking")
        has_seen_it.set()

    watchdog = Watchdog(world.progress, give_up, STUCK_AFTER_S)
    with world.progress.of_work():
        world.clock.now_s += 60
        loops = Loops()
        loops.start("watchdog", watchdog.run)
        assert has_seen_it.wait(TIMEOUT_S)
        loops.stop(TIMEOUT_S)
    assert set(given_up) == {"nothing has moved for 60.0 s"}
