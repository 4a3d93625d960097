"""A replica that stops leading by its own fault, or is stuck, rests for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import Unavailable
from order.leadership.replica import Role
from tests.unit.order.leadership.promotion_world import REST_S, World, deposed, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def test_who_resigned_rests_for_a_moment(world: World) -> None:
    world.promotion.lead(5)
    world.promotion.resign(5, "the disk is full")
    assert world.state() == (Role.FOLLOWER, 5, 0)
    world.assert_rests("the disk is full")
    world.clock.now_s += REST_S - 0.001
    world.assert_rests("the disk is full")
    world.clock.now_s += 0.001
    assert world.promotion.lead(6) == 6


def test_who_resigns_from_what_it_does_not_hold_need_not_rest(world: World) -> None:
    world.promotion.lead(5)
    world.promotion.resign(4, "late")
    assert world.state() == (Role.LEADER, 5, 1)
    deposed(world)
    world.promotion.resign(5, "late")
    world.catalog.registered = (6, 2)
    assert world.promotion.lead(7) == 7


@pytest.mark.parametrize("batch_age_s", [0.0, 2.5])
def test_a_leader_whose_batch_is_young_is_not_stuck(world: World, batch_age_s: float) -> None:
    world.promotion.lead(5)
    world.clock.now_s += 100
    world.promotion.resign_if_stuck(batch_age_s)
    assert world.state() == (Role.LEADER, 5, 1)


def test_a_leader_whose_batch_does_not_end_is_stuck(world: World) -> None:
    world.promotion.lead(5)
    world.promotion.resign_if_stuck(2.6)
    assert world.state() == (Role.FOLLOWER, 5, 0)
    world.assert_rests("nothing has moved for 2.6 s")


def test_a_follower_whose_batch_does_not_end_does_not_lead(world: World) -> None:
    """It rests for as long as it is asked, and finds itself stuck each time."""
    for batch_age_s in (2.6, 4.0, 60.0):
        world.promotion.resign_if_stuck(batch_age_s)
        world.assert_rests("nothing has moved")
        world.clock.now_s += REST_S
    world.promotion.resign_if_stuck(0)
    assert world.promotion.lead(5) == 5


@pytest.mark.parametrize("chunk_takes_s", [2.0, 3.0])
def test_a_promotion_without_progress_is_stuck(world: World, chunk_takes_s: float) -> None:
    """It may last as long as it likes if only rows come in."""
    world.catalog.chunk = 1
    states: list[Role] = []

    def slow(execute: Callable[[], list[list[Order]]]) -> Iterator[list[Order]]:
        for rows in execute():
            world.clock.now_s += chunk_takes_s
            world.promotion.resign_if_stuck(0)
            states.append(world.state()[0])
            yield rows

    world.catalog.journal_script.append(slow)
    world.clock.now_s += 100
    world.promotion.lead(5)
    if chunk_takes_s < 2.5:
        assert states == [Role.PROMOTING] * 5
        assert world.state() == (Role.LEADER, 5, 1)
    else:
        assert states == [Role.FOLLOWER] * 5
        assert world.state() == (Role.FOLLOWER, 5, 0)


def test_while_a_promotion_is_stuck_no_other_begins(world: World) -> None:
    taken: list[int] = []

    def hang(execute: Callable[[], object]) -> object:
        world.clock.now_s += 3
        for _ in range(3):
            world.promotion.resign_if_stuck(0)
            try:
                taken.append(world.promotion.lead(6))
            except Unavailable:
                pass
            world.clock.now_s += REST_S
        return execute()

    world.catalog.journal_script.append(hang)
    world.promotion.lead(5)
    assert taken == []
