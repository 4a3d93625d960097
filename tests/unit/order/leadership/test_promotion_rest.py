"""A replica that resigns because of its own fault does not lead for a short time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from order.leadership.replica import Replica, Role
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


@pytest.mark.parametrize("way", ["resign", "give up"])
def test_nobody_can_have_it_lead_between_resigning_and_resting(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    world.promotion.lead(5)
    attempts: list[Future[int]] = []
    asking = threading.Thread(target=lambda: attempts.append(world.promotion.begin(6)))
    step = world.node.step

    def step_then_be_asked(transition: Callable[[Replica], object], why: str = "") -> object:
        result = step(transition, why)
        monkeypatch.setattr(world.node, "step", step)
        asking.start()
        if not world.promotion._joining.locked():
            asking.join()
        return result

    monkeypatch.setattr(world.node, "step", step_then_be_asked)
    if way == "resign":
        world.promotion.resign(5, "the disk is full")
    else:
        world.promotion.give_up("the disk hangs")
    asking.join()
    (attempt,) = attempts
    assert "resting" in str(attempt.exception())
    assert world.state() == (Role.FOLLOWER, 5, 0)
