"""While one catalog takes over from another, a leader waits and goes on leading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from common.errors import BourseError, NotActive, NotLeader, OutcomeUnknown, Unavailable
from order.leadership.replica import Role
from tests.support.mechanisms import taken_out
from tests.unit.order.fakes import answer_lost, lost, outcome
from tests.unit.order.trading.pipeline_world import (
    ATTEMPT_TIMEOUT_S,
    EPOCH,
    PATIENCE_S,
    World,
    open_world,
    summary,
)

TAKEOVER_S = 3.0  # as slow as it gets
# Longer than a batch that pulls the journal takes, and shorter than a takeover.
STUCK_AFTER_S = 2.5


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def fail_until(world: World, until_s: float, errors: Sequence[BourseError]) -> None:
    """Until then each copy ends with one of these errors, in turn. Silence takes its time."""
    turn = iter([*errors] * 1000)

    def play(execute: Callable[[], Any]) -> Any:
        if world.clock.now_s >= until_s:
            return execute()
        world.catalog.update_script.append(play)
        error = next(turn)
        if isinstance(error, OutcomeUnknown):
            world.clock.pass_by(ATTEMPT_TIMEOUT_S)
        raise error

    world.catalog.update_script.append(play)


TROUBLES = {
    "the active one died": [Unavailable("refused"), NotActive()],
    "it is silent": [OutcomeUnknown(), NotActive()],
    "all stand by": [NotActive()],
}


@pytest.mark.parametrize("errors", TROUBLES.values(), ids=TROUBLES)
def test_a_takeover_costs_time_and_nothing_else(world: World, errors: list[BourseError]) -> None:
    fail_until(world, TAKEOVER_S, errors)
    answers = world.answers(*"abcd")
    assert [summary(answer) for answer in answers] == [(1, n) for n in range(3, 7)]
    assert TAKEOVER_S <= world.clock.now_s < TAKEOVER_S + 2 * ATTEMPT_TIMEOUT_S
    assert world.role is Role.LEADER
    assert world.log.rows(0) == world.catalog.rows


def test_a_batch_that_the_dead_one_had_decided_gets_the_same_numbers(world: World) -> None:
    world.catalog.update_script.append(answer_lost(Unavailable()))
    fail_until(world, TAKEOVER_S, [NotActive(), Unavailable()])
    assert [summary(answer) for answer in world.answers("a", "b")] == [(1, 3), (1, 4)]
    assert len(world.catalog.rows) == 4


def test_without_the_wait_the_leader_is_lost(world: World, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with taken_out("wait for a takeover"), open_world(tmp_path / "second") as hasty:
        fail_until(hasty, TAKEOVER_S, [NotActive(), Unavailable()])
        assert [type(answer) for answer in hasty.answers("a")] == [OutcomeUnknown]
        hasty.assert_resigned("cannot reach the catalog")


def test_a_leader_that_hears_from_no_catalog_steps_down_as_ever(world: World) -> None:
    """It may be cut off from them, and another replica may not be."""
    fail_until(world, 60.0, [Unavailable("refused")])
    (answer,) = world.answers("a")
    assert type(answer) is OutcomeUnknown
    world.assert_resigned("cannot reach the catalog: refused")
    assert world.clock.now_s <= PATIENCE_S


def test_it_steps_down_when_no_catalog_becomes_active(world: World) -> None:
    """Within the 4.5 s that a frontend gives a trade, so that another one can be asked."""
    fail_until(world, 60.0, [NotActive("standing by")])
    (answer,) = world.answers("a")
    world.assert_resigned("cannot reach the catalog: standing by")
    assert TAKEOVER_S + 0.5 < world.clock.now_s <= 4.0
    # No catalog took a copy in.
    assert type(answer) is NotLeader


@pytest.mark.parametrize("errors", [[Unavailable(), NotActive()], [NotActive(), OutcomeUnknown()]])
def test_if_a_copy_may_have_been_decided_the_outcome_is_unknown(
    world: World, errors: list[BourseError]
) -> None:
    fail_until(world, 60.0, errors)
    (answer,) = world.answers("a")
    assert type(answer) is OutcomeUnknown


def test_a_copy_that_stood_by_leaves_nothing_in_doubt(world: World) -> None:
    """Another replica was registered meanwhile. Its catalog refuses the one copy it gets."""
    world.catalog.update_script.append(lost(NotActive()))

    def deposed() -> None:
        world.catalog.registered = (EPOCH + 1, 2)

    world.clock.during_pause = deposed
    (answer,) = world.answers("a")
    assert type(answer) is NotLeader
    world.assert_deposed()


def test_waiting_for_a_takeover_is_no_hanging(world: World) -> None:
    """The watchdog must not take it for a disk that hangs."""
    longest_idle_s = 0.0

    def look() -> None:
        nonlocal longest_idle_s
        longest_idle_s = max(longest_idle_s, world.progress.longest_idle_s())

    world.clock.during_pause = look
    fail_until(world, TAKEOVER_S, [OutcomeUnknown(), NotActive()])
    (pending,) = world.ask("a")
    world.run()
    assert summary(outcome(pending)) == (1, 3)
    assert 0 < longest_idle_s <= ATTEMPT_TIMEOUT_S + 0.1 < STUCK_AFTER_S
