"""Promotion: the fence, several callers at the same time, and waiting for the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import BourseError, Contradiction, Internal, OutcomeUnknown, Unavailable
from order.leadership.promotion import _in_a_thread
from order.leadership.replica import Role
from stack.waiting import wait_for
from tests.unit.order.fakes import (
    CLUSTER,
    OTHER_CLUSTER,
    TIMEOUT_S,
    Misfortune,
    answer_lost,
    lead,
    lost,
    meanwhile,
)
from tests.unit.order.leadership.promotion_world import JOURNAL, PATIENCE_S, World, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


# ------------------------------------------------------------ the way to leading


def test_fence_pull_lead(world: World) -> None:
    states: list[tuple[Role, int, int]] = []
    world.catalog.fence_script.append(meanwhile(lambda: states.append(world.state())))
    world.catalog.journal_script.append(meanwhile(lambda: states.append(world.state())))
    assert world.promotion.lead(5) == 5
    assert states == [(Role.CANDIDATE, 0, 0), (Role.PROMOTING, 5, 1)]
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.catalog.registered == (5, 1)
    assert world.parts.log.rows(0) == JOURNAL


def test_pulled_rows_are_published(world: World) -> None:
    """The leader that had them committed may have died before it published them."""
    world.promotion.lead(5)
    assert world.published == JOURNAL[2:]
    assert world.catalog.pulled_after == [2]


def test_who_asked_does_not_wait_for_the_pull(world: World) -> None:
    is_reading, may_read = threading.Event(), threading.Event()

    def slow(execute: Callable[[], list[list[Order]]]) -> list[list[Order]]:
        is_reading.set()
        assert may_read.wait(TIMEOUT_S)
        return execute()

    world.catalog.journal_script.append(slow)
    promotion = world.make_promotion(_in_a_thread, TIMEOUT_S)
    assert promotion.lead(5) == 5
    assert is_reading.wait(TIMEOUT_S)
    assert world.state() == (Role.PROMOTING, 5, 1)
    assert promotion.lead(6) == 5
    may_read.set()
    view = world.node.wait_while_promoting(TIMEOUT_S)
    assert (view.role, view.position) == (Role.LEADER, 7)


@pytest.mark.parametrize("suggested", [1, 4, 6, 5_000])
def test_a_refusal_is_answered_with_the_registered_epoch_plus_one(
    world: World, suggested: int
) -> None:
    assert world.promotion.lead(suggested) == 5
    assert world.asked_epochs() == [suggested, 5]
    assert world.state() == (Role.LEADER, 5, 1)


def test_what_was_heard_of_does_not_count_against_what_is_registered(world: World) -> None:
    world.node.step(lambda replica: replica.hear_of(2, 90))
    assert world.promotion.lead(91) == 5
    assert world.state() == (Role.LEADER, 5, 1)


def test_a_refusal_that_names_the_asker_confers_nothing(world: World) -> None:
    """Epoch 5 was registered for this replica before its last restart."""
    world.catalog.registered = (5, 1)
    states: list[tuple[Role, int, int]] = []
    world.catalog.fence_script.extend([meanwhile(lambda: states.append(world.state()))] * 2)
    assert world.promotion.lead(5) == 6
    assert world.asked_epochs() == [5, 6]
    assert states == [(Role.CANDIDATE, 0, 0)] * 2
    assert world.catalog.registered == (6, 1)


@pytest.mark.parametrize("error", [OutcomeUnknown(), Unavailable(), Internal()])
def test_an_epoch_registered_by_a_call_without_an_answer_is_not_used(
    world: World, error: BourseError
) -> None:
    world.catalog.fence_script.append(answer_lost(error))
    assert world.promotion.lead(5) == 6
    assert world.asked_epochs() == [5, 5, 6]
    assert world.catalog.registered == (6, 1)


def test_it_races_for_the_epoch_until_it_wins(world: World) -> None:
    def too_late(execute: Callable[[], object]) -> object:
        epoch, _ = world.catalog.registered
        world.catalog.registered = (epoch + 1, 2)
        return execute()

    world.catalog.fence_script.extend([too_late] * 3)
    assert world.promotion.lead(5) == 8
    assert world.asked_epochs() == [5, 6, 7, 8]


# ------------------------------------------------------------ the fence cannot be had


def test_a_candidate_that_does_not_reach_the_fence_withdraws(world: World) -> None:
    world.node.step(lambda replica: replica.hear_of(2, 4))
    started = world.clock()
    world.catalog.fence_script.extend([lost(Unavailable("down"))] * 1000)
    with pytest.raises(Unavailable, match="cannot reach the catalog to register an epoch"):
        world.promotion.lead(5)
    assert world.state() == (Role.FOLLOWER, 4, 2)
    assert world.catalog.pulled_after == []
    assert PATIENCE_S <= world.clock() - started < PATIENCE_S + 0.1
    assert len(world.catalog.asked) > 5


def test_no_call_to_the_fence_outlives_the_attempt(world: World) -> None:
    give_up_at = world.clock() + PATIENCE_S
    deadlines = []

    def slow(_execute: Callable[[], object]) -> object:
        timeout_s = world.catalog.asked[-1][2]
        deadlines.append(world.clock() + timeout_s)
        world.clock.now_s += timeout_s / 3
        raise OutcomeUnknown

    world.catalog.fence_script.extend([slow] * 1000)
    with pytest.raises(Unavailable):
        world.promotion.lead(5)
    assert len(deadlines) > 3
    assert deadlines == pytest.approx([give_up_at] * len(deadlines))


def test_after_an_attempt_that_failed_comes_another(world: World) -> None:
    world.catalog.fence_script.extend([lost(Unavailable())] * 1000)
    with pytest.raises(Unavailable):
        world.promotion.lead(5)
    world.catalog.fence_script.clear()
    assert world.promotion.lead(5) == 5


def test_a_defect_on_the_way_ends_the_candidacy(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog.fence_script.append(lost(ZeroDivisionError("a defect")))
    with pytest.raises(Unavailable):
        world.promotion.lead(5)
    assert "ZeroDivisionError" in caplog.text
    assert world.state()[0] is Role.FOLLOWER
    assert world.promotion.lead(5) == 5


def test_a_thread_that_could_not_be_started_does_not_end_all_attempts(world: World) -> None:
    def no_thread(_work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    promotion = world.make_promotion(no_thread, fence_timeout_s=0.01)
    with pytest.raises((RuntimeError, Unavailable)):
        promotion.lead(5)
    promotion._spawn = lambda work: work()
    assert promotion.lead(5) == 5


# ------------------------------------------------------------ several at once


def test_who_leads_answers_with_its_epoch_and_changes_nothing(world: World) -> None:
    taken_while_promoting: list[int] = []
    world.catalog.journal_script.append(
        meanwhile(lambda: taken_while_promoting.append(world.promotion.lead(9)))
    )
    world.promotion.lead(5)
    assert taken_while_promoting == [5]
    for suggested in (1, 5, 6, 100):
        assert world.promotion.lead(suggested) == 5
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.asked_epochs() == [5]
    assert len(world.catalog.pulled_after) == 1


def take_at_once(world: World, answer: Misfortune) -> list[Future[int]]:
    """Eight callers. All of them call before the fence answers the first."""
    is_asking = threading.Event()
    is_calling = threading.Semaphore(0)

    def hold(execute: Callable[[], object]) -> object:
        is_asking.set()
        for _ in range(7):
            assert is_calling.acquire(timeout=TIMEOUT_S)
        return answer(execute)

    begin = world.promotion.begin

    def watched(suggested_epoch: int) -> Future[int]:
        attempt = begin(suggested_epoch)
        is_calling.release()
        return attempt

    world.catalog.fence_script.append(hold)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(world.promotion.lead, 5)
        assert is_asking.wait(TIMEOUT_S)
        world.promotion.begin = watched  # type: ignore[method-assign]
        return [first, *(threads.submit(world.promotion.lead, epoch) for epoch in range(6, 13))]


def test_who_asks_at_once_joins_one_attempt(world: World) -> None:
    taken = take_at_once(world, lambda execute: execute())
    assert [one.result(timeout=TIMEOUT_S) for one in taken] == [5] * 8
    assert world.asked_epochs() == [5]
    assert len(world.catalog.pulled_after) == 1


def test_who_joins_an_attempt_that_fails_fails_with_it(world: World) -> None:
    taken = take_at_once(world, lost(ZeroDivisionError("a defect")))
    for one in taken:
        with pytest.raises(Unavailable, match="cannot lead"):
            one.result(timeout=TIMEOUT_S)
    assert world.asked_epochs() == [5]


def test_an_attempt_goes_on_without_its_callers(world: World) -> None:
    promotion = world.make_promotion(_in_a_thread, fence_timeout_s=0.01)
    may_answer = threading.Event()

    def hold(execute: Callable[[], object]) -> object:
        assert may_answer.wait(TIMEOUT_S)
        return execute()

    world.catalog.fence_script.append(hold)
    for suggested in (5, 6):
        with pytest.raises(Unavailable, match="the promotion takes too long"):
            promotion.lead(suggested)
    may_answer.set()
    wait_for(lambda: world.state() == (Role.LEADER, 5, 1), TIMEOUT_S, world.state)
    assert promotion.lead(7) == 5
    assert world.asked_epochs() == [5]


# ------------------------------------------------------------ waiting for the promotion


def promote(world: World) -> None:
    world.node.step(lambda replica: replica.stand(5))
    world.node.step(lambda replica: replica.fence_accepted(5))


def test_waiting_for_a_promotion_ends_with_it(world: World) -> None:
    promote(world)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(world.node.wait_while_promoting, 30)
        world.node.step(lambda replica: replica.caught_up(5))
        assert waiting.result(timeout=TIMEOUT_S).role is Role.LEADER


def test_waiting_for_a_promotion_is_bounded(world: World) -> None:
    assert world.node.wait_while_promoting(30).role is Role.FOLLOWER
    promote(world)
    assert world.node.wait_while_promoting(0.01).role is Role.PROMOTING


def test_every_change_of_role_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lead(world.node, 5)
    world.node.step(lambda replica: replica.step_down(5), "the reason")
    assert [record.getMessage() for record in caplog.records] == [
        "follower of epoch 0 -> candidate of epoch 0, leader unknown, last number 2",
        "candidate of epoch 0 -> promoting of epoch 5, leader 1, last number 2",
        "promoting of epoch 5 -> leader of epoch 5, leader 1, last number 2",
        "leader of epoch 5 -> follower of epoch 5, leader unknown, last number 2: the reason",
    ]


# ------------------------------------------------------------ the wrong catalog


def test_a_candidate_tells_the_fence_where_its_log_ends(world: World) -> None:
    world.promotion.lead(5)
    assert world.catalog.claimed == [(2, JOURNAL[1].digest, "")]


def test_a_candidate_tells_the_fence_of_which_cluster_its_log_is(world: World) -> None:
    world.parts.ledger.join_cluster(CLUSTER)
    world.promotion.lead(5)
    assert world.catalog.claimed == [(2, JOURNAL[1].digest, CLUSTER)]


def test_rows_of_another_cluster_end_the_promotion(world: World) -> None:
    world.parts.ledger.join_cluster(OTHER_CLUSTER)
    world.promotion.lead(5)
    assert world.state()[0] is Role.FOLLOWER
    (denial,) = world.identity.denials
    assert OTHER_CLUSTER in denial
    assert world.parts.log.rows(0) == JOURNAL[:2]


def test_a_catalog_that_denies_the_log_registers_no_epoch(world: World) -> None:
    world.catalog.fence_script.append(lost(Contradiction("another log")))
    with pytest.raises(Unavailable, match="cannot lead: another log"):
        world.promotion.lead(5)
    assert world.asked_epochs() == [5]  # the fence is asked only once
    assert world.identity.denials == ["another log"]
    assert world.halted == []
    assert world.state() == (Role.FOLLOWER, 0, 0)
    assert world.promotion.lead(5) == 5  # after the right catalog is back
