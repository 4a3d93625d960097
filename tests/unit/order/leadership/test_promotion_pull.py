"""A new leader pulls the rows that it lacks. A replica whose log takes no rows cannot lead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import NotActive, OutcomeUnknown, Unavailable
from common.pulls import Rows
from order.leadership.replica import Role
from order.log.ledger import AppendFailed
from tests.unit.order.fakes import Misfortune, broken_off, lost, meanwhile, refusing_rows
from tests.unit.order.leadership.promotion_world import (
    JOURNAL,
    PATIENCE_S,
    World,
    deposed,
    open_world,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


# ------------------------------------------------------------ the pull


@pytest.mark.parametrize("misfortune", [lost(Unavailable()), broken_off(1, OutcomeUnknown())])
def test_a_pull_that_breaks_off_is_tried_again_from_where_it_got_to(
    world: World, misfortune: Misfortune
) -> None:
    world.catalog.journal_script.extend([misfortune] * 2)
    world.promotion.lead(5)
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.published == JOURNAL[2:]
    assert len(world.catalog.pulled_after) == 3
    assert world.catalog.pulled_after == sorted(world.catalog.pulled_after)


def test_it_does_not_lead_before_the_pull_succeeded(world: World) -> None:
    states: list[tuple[Role, int, int]] = []
    world.clock.during_pause = lambda: states.append(world.state())
    world.catalog.journal_script.extend([broken_off(1, Unavailable())] * 2)
    world.promotion.lead(5)
    assert states == [(Role.PROMOTING, 5, 1)] * 2


def test_a_pull_that_keeps_failing_ends_the_promotion(world: World) -> None:
    started = world.clock()
    world.catalog.journal_script.extend([lost(Unavailable("down"))] * 1000)
    assert world.promotion.lead(5) == 5
    assert world.state() == (Role.FOLLOWER, 5, 0)
    assert PATIENCE_S - 0.1 < world.clock() - started < PATIENCE_S + 0.1
    assert world.halted == []
    world.assert_rests("cannot catch up: down")


def test_a_pull_waits_for_a_catalog_to_take_over(world: World) -> None:
    def come_back() -> None:
        world.watchdog.look()
        if world.clock.now_s > 3.0:
            world.catalog.journal_script.clear()

    world.clock.during_pause = come_back
    world.catalog.journal_script.extend([lost(Unavailable()), lost(NotActive())] * 1000)
    world.promotion.lead(5)
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.published == JOURNAL[2:]


def test_a_disk_that_takes_no_rows_ends_the_promotion(world: World) -> None:
    with refusing_rows(world.parts.log):
        world.promotion.lead(5)
        assert world.state() == (Role.FOLLOWER, 5, 0)
    assert world.halted == []
    assert world.published == []
    world.assert_rests("cannot catch up: .*readonly")


def test_a_journal_that_contradicts_the_log_ends_the_promotion(world: World) -> None:
    world.catalog.journal_script.append(lambda execute: [Rows([replace(JOURNAL[2], quantity=99)])])
    world.promotion.lead(5)
    assert world.state() == (Role.FOLLOWER, 5, 0)
    (denial,) = world.identity.denials
    assert "row 3 does not continue the log's chain" in denial
    assert world.halted == []
    assert len(world.catalog.pulled_after) == 1  # the journal is not asked again


def test_a_defect_while_promoting_ends_the_promotion(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog.journal_script.append(lost(ZeroDivisionError("a defect")))
    world.promotion.lead(5)
    assert world.state() == (Role.FOLLOWER, 5, 0)
    assert "ZeroDivisionError" in caplog.text
    world.assert_rests("unexpected error")


def stepped_down(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(5))


@pytest.mark.parametrize("leave", [deposed, stepped_down])
def test_an_epoch_lost_while_promoting_stays_lost(
    world: World, leave: Callable[[World], None]
) -> None:
    world.catalog.journal_script.append(meanwhile(lambda: leave(world)))
    world.promotion.lead(5)
    assert world.state()[0] is Role.FOLLOWER
    assert world.parts.log.rows(0) == JOURNAL  # the pulled rows are right anyway
    assert world.published == JOURNAL[2:]
    assert world.promotion.lead(6) == 6  # it has no fault, so it need not rest


def test_a_pull_for_a_lost_epoch_is_not_tried_again(world: World) -> None:
    world.clock.during_pause = lambda: deposed(world)
    world.catalog.journal_script.extend([lost(Unavailable())] * 1000)
    world.promotion.lead(5)
    assert len(world.catalog.pulled_after) == 2
    assert world.state() == (Role.FOLLOWER, 6, 2)


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), Unavailable("down")])
def test_a_promotion_that_fails_late_does_not_touch_the_next_one(
    world: World, error: Exception
) -> None:
    def lose_and_win(_execute: Callable[[], object]) -> object:
        deposed(world)
        world.catalog.registered = (6, 2)
        assert world.promotion.lead(7) == 7  # it leads when this returns
        raise error

    world.catalog.journal_script.append(lose_and_win)
    world.promotion.lead(5)
    assert world.state() == (Role.LEADER, 7, 1)
    assert world.promotion.lead(8) == 7


# ------------------------------------------------------------ a log that refused its last rows


@pytest.fixture
def refused(world: World) -> World:
    """A replica whose last append failed."""
    with refusing_rows(world.parts.log), pytest.raises(AppendFailed):
        world.parts.ledger.append(JOURNAL[2:3])
    return world


def test_it_is_not_electable_while_the_disk_refuses(refused: World) -> None:
    with (
        refusing_rows(refused.parts.log),
        pytest.raises(Unavailable, match="the log takes no rows"),
    ):
        refused.promotion.lead(5)
    assert refused.catalog.asked == []  # only a replica that can lead asks the fence
    assert refused.state() == (Role.FOLLOWER, 0, 0)


def test_it_is_not_electable_while_nobody_can_say_that_the_disk_takes_rows(refused: World) -> None:
    refused.catalog.journal_script.append(lost(Unavailable("down")))
    with pytest.raises(Unavailable, match="down"):
        refused.promotion.lead(5)
    assert refused.catalog.asked == []


def test_it_is_electable_again_when_the_log_took_the_rows(refused: World) -> None:
    assert refused.promotion.lead(5) == 5
    assert refused.state() == (Role.LEADER, 5, 1)
    assert refused.parts.log.rows(0) == JOURNAL
    assert refused.published == JOURNAL[2:]
    assert not refused.parts.ledger.last_append_failed


def test_a_contradiction_before_the_fence_is_no_reason_to_halt(refused: World) -> None:
    refused.catalog.journal_script.append(
        lambda execute: [Rows([replace(JOURNAL[2], quantity=99)])]
    )
    with pytest.raises(Unavailable):
        refused.promotion.lead(5)
    assert "row 3 does not continue the log's chain" in refused.identity.denials[0]
    assert refused.halted == []
    assert refused.catalog.asked == []
