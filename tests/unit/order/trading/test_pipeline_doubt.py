"""A batch of unknown outcome is sent again, unchanged, until it is decided or patience ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import (
    BourseError,
    Busy,
    Damaged,
    Internal,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
)
from order.leadership.replica import Role
from tests.unit.order.fakes import answer_lost, lost, meanwhile, outcome
from tests.unit.order.trading.pipeline_world import (
    ATTEMPT_TIMEOUT_S,
    EPOCH,
    PATIENCE_S,
    World,
    open_world,
    summary,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


@pytest.mark.parametrize("misfortune", [lost, answer_lost])
@pytest.mark.parametrize(
    "error", [OutcomeUnknown(), Unavailable(), Internal(), Busy(), NotLeader(), Damaged()]
)
def test_a_batch_in_doubt_is_sent_again_as_it_is(
    world: World, misfortune: Callable[..., Any], error: BourseError
) -> None:
    """After any error, the batch keeps its trades and its epoch, and no other one is sent first."""
    world.catalog.update_script.extend([misfortune(error)] * 3)
    pendings = world.ask("a", "b")

    def another_arrives() -> None:
        pendings.extend(world.ask(f"later {len(pendings)}"))
        if len(pendings) == 5:
            world.queue.close()

    world.clock.during_pause = another_arrives
    world.pipeline.run()
    assert world.catalog.sent == [
        *[(EPOCH, ["a", "b"], ATTEMPT_TIMEOUT_S)] * 4,
        (EPOCH, ["later 2", "later 3", "later 4"], ATTEMPT_TIMEOUT_S),
    ]
    assert [summary(outcome(pending)) for pending in pendings] == [(1, n) for n in range(3, 8)]
    assert world.log.rows(0) == world.catalog.rows
    assert world.role is Role.LEADER


def test_the_first_copy_refused_for_its_epoch_was_not_executed(world: World) -> None:
    world.catalog.registered = (EPOCH + 1, 2)
    first, second = world.answers("a", "b")
    assert type(first) is type(second) is NotLeader
    assert world.steps == ["commit a b", "answer a", "answer b"]
    world.assert_deposed()


@pytest.mark.parametrize("misfortune", [lost, answer_lost])
def test_a_later_copy_refused_for_its_epoch_leaves_the_outcome_unknown(
    world: World, misfortune: Callable[..., Any]
) -> None:
    """The first copy may have been executed. In one case of this test, it was."""

    def deposed() -> None:
        world.catalog.registered = (EPOCH + 1, 2)

    world.catalog.update_script.append(misfortune(Unavailable()))
    world.clock.during_pause = deposed
    (answer,) = world.answers("a")
    assert type(answer) is OutcomeUnknown
    world.assert_deposed()


def test_who_waits_behind_a_refused_batch_is_told_that_another_leads(world: World) -> None:
    world.catalog.registered = (EPOCH + 1, 2)
    answers = world.answers(*"abcdefg")
    assert {type(answer) for answer in answers} == {NotLeader}
    assert len(world.catalog.sent) == 1  # the waiting trades are refused without asking the catalog


def test_a_leader_without_the_catalog_steps_down_when_its_patience_is_over(world: World) -> None:
    started = world.clock()
    world.catalog.update_script.extend([lost(Unavailable("down"))] * 1000)
    answers = world.answers(*"abcd")
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 3 + [NotLeader]
    world.assert_resigned("cannot reach the catalog: down")
    assert PATIENCE_S - 0.1 < world.clock() - started < PATIENCE_S + 0.1
    assert len(world.catalog.sent) > 5
    assert {tuple(ids) for _, ids, _ in world.catalog.sent} == {("a", "b", "c")}


def test_the_patience_is_for_each_batch(world: World) -> None:
    almost = [lost(Unavailable())] * 15  # 20 in one batch would be too many
    world.catalog.update_script.extend([*almost, lambda execute: execute(), *almost])
    answers = world.answers(*"abcdef")
    assert [summary(answer) for answer in answers] == [(1, n) for n in range(3, 9)]
    assert len(world.catalog.sent) == 32


def test_an_answer_that_comes_late_but_comes_is_taken(world: World) -> None:
    """The patience limits when a batch is sent again. It does not end a call in flight."""

    def slow() -> None:
        world.clock.now_s += 10 * PATIENCE_S

    world.catalog.update_script.append(meanwhile(slow))
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 3)
    assert world.role is Role.LEADER
