"""Taking office: the fence, the pull, and all that can go wrong between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from common.errors import BourseError, Internal, OutcomeUnknown, Unavailable
from common.records import Order
from order.ledger import AppendFailed
from order.office import Office, _in_a_thread
from order.replica import Role
from tests.unit.order_fakes import (
    TIMEOUT_S,
    Clock,
    FakeCatalog,
    Misfortune,
    Parts,
    answer_lost,
    broken_off,
    eventually,
    lead,
    lost,
    make_rows,
    meanwhile,
    open_parts,
    refusing_rows,
)

PATIENCE_S = 1.0
STUCK_AFTER_S = 2.5
REST_S = 2.0
JOURNAL = make_rows(7)


@dataclass
class World:
    """Replica 1, with the first two rows of a journal of seven; epoch 4 is registered.

    Taking office happens in the thread of who asks first, from the fence to the lead.
    """

    parts: Parts
    catalog: FakeCatalog
    clock: Clock = field(default_factory=Clock)
    announced: list[Order] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.node = self.parts.node
        self.office = self.make_office(lambda work: work(), TIMEOUT_S)

    def make_office(
        self, spawn: Callable[[Callable[[], None]], object], fence_timeout_s: float
    ) -> Office:
        return Office(
            self.node,
            self.catalog,
            self.parts.ledger,
            self.announced.extend,
            fence_timeout_s=fence_timeout_s,
            patience_s=PATIENCE_S,
            stuck_after_s=STUCK_AFTER_S,
            halt=self.halted.append,
            clock=self.clock,
            pause=self.clock.pause,
            spawn=spawn,
        )

    def state(self) -> tuple[Role, int, int]:
        view = self.node.view()
        return view.role, view.epoch, view.leader_id

    def asked_epochs(self) -> list[int]:
        return [epoch for epoch, _leader_id, _timeout_s in self.catalog.asked]

    def assert_rests(self, why: str) -> None:
        """It takes no office for a moment, and says why."""
        asked = len(self.catalog.asked)
        with pytest.raises(Unavailable, match=f"resting: .*{why}"):
            self.office.take(6)
        assert len(self.catalog.asked) == asked


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_parts(tmp_path, JOURNAL[:2]) as parts:
        catalog = FakeCatalog(JOURNAL)
        catalog.registered = (4, 3)
        yield World(parts, catalog)


# ------------------------------------------------------------ the way into office


def test_fence_pull_lead(world: World) -> None:
    states: list[tuple[Role, int, int]] = []
    world.catalog.fence_script.append(meanwhile(lambda: states.append(world.state())))
    world.catalog.journal_script.append(meanwhile(lambda: states.append(world.state())))
    assert world.office.take(5) == 5
    assert states == [(Role.CANDIDATE, 0, 0), (Role.PROMOTING, 5, 1)]
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.catalog.registered == (5, 1)
    assert world.parts.log.rows(0) == JOURNAL


def test_what_was_pulled_is_announced(world: World) -> None:
    """The leader that had it committed may have died before it could."""
    world.office.take(5)
    assert world.announced == JOURNAL[2:]
    assert world.catalog.pulled_after == [2]


def test_who_asked_does_not_wait_for_the_pull(world: World) -> None:
    is_reading, may_read = threading.Event(), threading.Event()

    def slow(execute: Callable[[], list[list[Order]]]) -> list[list[Order]]:
        is_reading.set()
        assert may_read.wait(TIMEOUT_S)
        return execute()

    world.catalog.journal_script.append(slow)
    office = world.make_office(_in_a_thread, TIMEOUT_S)
    assert office.take(5) == 5
    assert is_reading.wait(TIMEOUT_S)
    assert world.state() == (Role.PROMOTING, 5, 1)
    assert office.take(6) == 5
    may_read.set()
    view = world.node.wait_while_promoting(TIMEOUT_S)
    assert (view.role, view.position) == (Role.LEADER, 7)


@pytest.mark.parametrize("suggested", [1, 4, 6, 5_000])
def test_a_refusal_is_answered_with_the_registered_epoch_plus_one(
    world: World, suggested: int
) -> None:
    assert world.office.take(suggested) == 5
    assert world.asked_epochs() == [suggested, 5]
    assert world.state() == (Role.LEADER, 5, 1)


def test_what_was_heard_of_does_not_count_against_what_is_registered(world: World) -> None:
    world.node.step(lambda replica: replica.hear_of(2, 90))
    assert world.office.take(91) == 5
    assert world.state() == (Role.LEADER, 5, 1)


def test_a_refusal_that_names_the_asker_confers_nothing(world: World) -> None:
    """Epoch 5 was registered for this replica's life before this one."""
    world.catalog.registered = (5, 1)
    states: list[tuple[Role, int, int]] = []
    world.catalog.fence_script.extend([meanwhile(lambda: states.append(world.state()))] * 2)
    assert world.office.take(5) == 6
    assert world.asked_epochs() == [5, 6]
    assert states == [(Role.CANDIDATE, 0, 0)] * 2
    assert world.catalog.registered == (6, 1)


@pytest.mark.parametrize("error", [OutcomeUnknown(), Unavailable(), Internal()])
def test_an_epoch_registered_by_a_call_without_an_answer_is_not_used(
    world: World, error: BourseError
) -> None:
    world.catalog.fence_script.append(answer_lost(error))
    assert world.office.take(5) == 6
    assert world.asked_epochs() == [5, 5, 6]
    assert world.catalog.registered == (6, 1)


def test_it_races_for_the_epoch_until_it_wins(world: World) -> None:
    def too_late(execute: Callable[[], object]) -> object:
        epoch, _ = world.catalog.registered
        world.catalog.registered = (epoch + 1, 2)
        return execute()

    world.catalog.fence_script.extend([too_late] * 3)
    assert world.office.take(5) == 8
    assert world.asked_epochs() == [5, 6, 7, 8]


# ------------------------------------------------------------ the fence cannot be had


def test_a_candidate_that_does_not_reach_the_fence_withdraws(world: World) -> None:
    world.node.step(lambda replica: replica.hear_of(2, 4))
    started = world.clock()
    world.catalog.fence_script.extend([lost(Unavailable("down"))] * 1000)
    with pytest.raises(Unavailable, match="cannot reach the catalog to take office"):
        world.office.take(5)
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
        world.office.take(5)
    assert len(deadlines) > 3
    assert deadlines == pytest.approx([give_up_at] * len(deadlines))


def test_after_an_attempt_that_failed_comes_another(world: World) -> None:
    world.catalog.fence_script.extend([lost(Unavailable())] * 1000)
    with pytest.raises(Unavailable):
        world.office.take(5)
    world.catalog.fence_script.clear()
    assert world.office.take(5) == 5


def test_a_defect_on_the_way_ends_the_candidacy(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog.fence_script.append(lost(ZeroDivisionError("a defect")))
    with pytest.raises(Unavailable):
        world.office.take(5)
    assert "ZeroDivisionError" in caplog.text
    assert world.state()[0] is Role.FOLLOWER
    assert world.office.take(5) == 5


def test_a_thread_that_could_not_be_started_does_not_end_all_attempts(world: World) -> None:
    def no_thread(_work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    office = world.make_office(no_thread, fence_timeout_s=0.01)
    with pytest.raises((RuntimeError, Unavailable)):
        office.take(5)
    office._spawn = lambda work: work()
    assert office.take(5) == 5


# ------------------------------------------------------------ several at once


def test_who_holds_office_answers_with_its_epoch_and_changes_nothing(world: World) -> None:
    taken_while_promoting: list[int] = []
    world.catalog.journal_script.append(
        meanwhile(lambda: taken_while_promoting.append(world.office.take(9)))
    )
    world.office.take(5)
    assert taken_while_promoting == [5]
    for suggested in (1, 5, 6, 100):
        assert world.office.take(suggested) == 5
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.asked_epochs() == [5]
    assert len(world.catalog.pulled_after) == 1


def take_at_once(world: World, answer: Misfortune) -> list[Future[int]]:
    """Eight callers, all of them there before the first gets an answer from the fence."""
    is_asking = threading.Event()
    is_calling = threading.Semaphore(0)

    def hold(execute: Callable[[], object]) -> object:
        is_asking.set()
        for _ in range(7):
            assert is_calling.acquire(timeout=TIMEOUT_S)
        return answer(execute)

    begin = world.office.begin

    def watched(suggested_epoch: int) -> Future[int]:
        attempt = begin(suggested_epoch)
        is_calling.release()
        return attempt

    world.catalog.fence_script.append(hold)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(world.office.take, 5)
        assert is_asking.wait(TIMEOUT_S)
        world.office.begin = watched  # type: ignore[method-assign]
        return [first, *(threads.submit(world.office.take, epoch) for epoch in range(6, 13))]


def test_who_asks_at_once_joins_one_attempt(world: World) -> None:
    taken = take_at_once(world, lambda execute: execute())
    assert [one.result(timeout=TIMEOUT_S) for one in taken] == [5] * 8
    assert world.asked_epochs() == [5]
    assert len(world.catalog.pulled_after) == 1


def test_who_joins_an_attempt_that_fails_fails_with_it(world: World) -> None:
    taken = take_at_once(world, lost(ZeroDivisionError("a defect")))
    for one in taken:
        with pytest.raises(Unavailable, match="cannot take office"):
            one.result(timeout=TIMEOUT_S)
    assert world.asked_epochs() == [5]


def test_an_attempt_goes_on_without_its_callers(world: World) -> None:
    office = world.make_office(_in_a_thread, fence_timeout_s=0.01)
    may_answer = threading.Event()

    def hold(execute: Callable[[], object]) -> object:
        assert may_answer.wait(TIMEOUT_S)
        return execute()

    world.catalog.fence_script.append(hold)
    for suggested in (5, 6):
        with pytest.raises(Unavailable, match="taking office takes too long"):
            office.take(suggested)
    may_answer.set()
    eventually(lambda: world.state() == (Role.LEADER, 5, 1), world.state)
    assert office.take(7) == 5
    assert world.asked_epochs() == [5]


# ------------------------------------------------------------ the pull


@pytest.mark.parametrize("misfortune", [lost(Unavailable()), broken_off(1, OutcomeUnknown())])
def test_a_pull_that_breaks_off_is_tried_again_from_where_it_got_to(
    world: World, misfortune: Misfortune
) -> None:
    world.catalog.journal_script.extend([misfortune] * 2)
    world.office.take(5)
    assert world.state() == (Role.LEADER, 5, 1)
    assert world.announced == JOURNAL[2:]
    assert len(world.catalog.pulled_after) == 3
    assert world.catalog.pulled_after == sorted(world.catalog.pulled_after)


def test_it_does_not_lead_before_the_pull_succeeded(world: World) -> None:
    states: list[tuple[Role, int, int]] = []
    world.clock.during_pause = lambda: states.append(world.state())
    world.catalog.journal_script.extend([broken_off(1, Unavailable())] * 2)
    world.office.take(5)
    assert states == [(Role.PROMOTING, 5, 1)] * 2


def test_a_pull_that_keeps_failing_ends_the_office(world: World) -> None:
    started = world.clock()
    world.catalog.journal_script.extend([lost(Unavailable("down"))] * 1000)
    assert world.office.take(5) == 5
    assert world.state() == (Role.FOLLOWER, 5, 0)
    assert PATIENCE_S <= world.clock() - started < PATIENCE_S + 0.1
    assert world.halted == []
    world.assert_rests("cannot catch up: down")


def test_a_disk_that_takes_no_rows_ends_the_office(world: World) -> None:
    with refusing_rows(world.parts.log):
        world.office.take(5)
        assert world.state() == (Role.FOLLOWER, 5, 0)
    assert world.halted == []
    assert world.announced == []
    world.assert_rests("cannot catch up: .*readonly")


def test_a_journal_that_contradicts_the_log_stops_the_process(world: World) -> None:
    world.catalog.journal_script.append(lambda execute: [[replace(JOURNAL[2], quantity=99)]])
    world.office.take(5)
    assert world.state() == (Role.FOLLOWER, 5, 0)
    (reason,) = world.halted
    assert "row 3 does not continue the log's chain" in reason
    assert len(world.catalog.pulled_after) == 1  # and is not asked again


def test_a_defect_while_promoting_ends_the_office(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog.journal_script.append(lost(ZeroDivisionError("a defect")))
    world.office.take(5)
    assert world.state() == (Role.FOLLOWER, 5, 0)
    assert "ZeroDivisionError" in caplog.text
    world.assert_rests("unexpected error")


def deposed(world: World) -> None:
    world.node.step(lambda replica: replica.hear_of(2, 6))


def stepped_down(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(5))


@pytest.mark.parametrize("leave", [deposed, stepped_down])
def test_an_office_lost_while_promoting_stays_lost(
    world: World, leave: Callable[[World], None]
) -> None:
    world.catalog.journal_script.append(meanwhile(lambda: leave(world)))
    world.office.take(5)
    assert world.state()[0] is Role.FOLLOWER
    assert world.parts.log.rows(0) == JOURNAL  # what was pulled is right all the same
    assert world.announced == JOURNAL[2:]
    assert world.office.take(6) == 6  # it did nothing wrong, and need not rest


def test_a_pull_for_a_lost_office_is_not_tried_again(world: World) -> None:
    world.clock.during_pause = lambda: deposed(world)
    world.catalog.journal_script.extend([lost(Unavailable())] * 1000)
    world.office.take(5)
    assert len(world.catalog.pulled_after) == 2
    assert world.state() == (Role.FOLLOWER, 6, 2)


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), Unavailable("down")])
def test_a_promotion_that_fails_late_does_not_touch_the_next_office(
    world: World, error: Exception
) -> None:
    def lose_and_win(_execute: Callable[[], object]) -> object:
        deposed(world)
        world.catalog.registered = (6, 2)
        assert world.office.take(7) == 7  # leads when it returns
        raise error

    world.catalog.journal_script.append(lose_and_win)
    world.office.take(5)
    assert world.state() == (Role.LEADER, 7, 1)
    assert world.office.take(8) == 7


# ------------------------------------------------------------ a log that refused its last rows


@pytest.fixture
def refused(world: World) -> World:
    """Its log took no rows the last time."""
    with refusing_rows(world.parts.log), pytest.raises(AppendFailed):
        world.parts.ledger.append(JOURNAL[2:3])
    return world


def test_it_is_not_electable_while_the_disk_refuses(refused: World) -> None:
    with (
        refusing_rows(refused.parts.log),
        pytest.raises(Unavailable, match="the log takes no rows"),
    ):
        refused.office.take(5)
    assert refused.catalog.asked == []  # the fence is for those who can lead
    assert refused.state() == (Role.FOLLOWER, 0, 0)


def test_it_is_not_electable_while_nobody_can_say_that_the_disk_takes_rows(refused: World) -> None:
    refused.catalog.journal_script.append(lost(Unavailable("down")))
    with pytest.raises(Unavailable, match="down"):
        refused.office.take(5)
    assert refused.catalog.asked == []


def test_it_is_electable_again_when_the_log_took_the_rows(refused: World) -> None:
    assert refused.office.take(5) == 5
    assert refused.state() == (Role.LEADER, 5, 1)
    assert refused.parts.log.rows(0) == JOURNAL
    assert refused.announced == JOURNAL[2:]
    assert not refused.parts.ledger.last_append_failed


def test_a_contradiction_stops_the_process_also_before_the_fence(refused: World) -> None:
    refused.catalog.journal_script.append(lambda execute: [[replace(JOURNAL[2], quantity=99)]])
    with pytest.raises(Unavailable):
        refused.office.take(5)
    assert "row 3 does not continue the log's chain" in refused.halted[0]
    assert refused.catalog.asked == []


# ------------------------------------------------------------ resting


def test_who_resigned_rests_for_a_moment(world: World) -> None:
    world.office.take(5)
    world.office.resign(5, "the disk is full")
    assert world.state() == (Role.FOLLOWER, 5, 0)
    world.assert_rests("the disk is full")
    world.clock.now_s += REST_S - 0.001
    world.assert_rests("the disk is full")
    world.clock.now_s += 0.001
    assert world.office.take(6) == 6


def test_who_resigns_from_what_it_does_not_hold_need_not_rest(world: World) -> None:
    world.office.take(5)
    world.office.resign(4, "late")
    assert world.state() == (Role.LEADER, 5, 1)
    deposed(world)
    world.office.resign(5, "late")
    world.catalog.registered = (6, 2)
    assert world.office.take(7) == 7


@pytest.mark.parametrize("batch_age_s", [0.0, 2.5])
def test_a_leader_whose_batch_is_young_is_not_stuck(world: World, batch_age_s: float) -> None:
    world.office.take(5)
    world.clock.now_s += 100
    world.office.resign_if_stuck(batch_age_s)
    assert world.state() == (Role.LEADER, 5, 1)


def test_a_leader_whose_batch_does_not_end_is_stuck(world: World) -> None:
    world.office.take(5)
    world.office.resign_if_stuck(2.6)
    assert world.state() == (Role.FOLLOWER, 5, 0)
    world.assert_rests("nothing has moved for 2.6 s")


def test_a_follower_whose_batch_does_not_end_takes_no_office(world: World) -> None:
    """It rests for as long as it is asked, and finds itself stuck each time."""
    for batch_age_s in (2.6, 4.0, 60.0):
        world.office.resign_if_stuck(batch_age_s)
        world.assert_rests("nothing has moved")
        world.clock.now_s += REST_S
    world.office.resign_if_stuck(0)
    assert world.office.take(5) == 5


@pytest.mark.parametrize("chunk_takes_s", [2.0, 3.0])
def test_a_promotion_without_progress_is_stuck(world: World, chunk_takes_s: float) -> None:
    """It may last as long as it likes if only rows come in."""
    world.catalog.chunk = 1
    states: list[Role] = []

    def slow(execute: Callable[[], list[list[Order]]]) -> Iterator[list[Order]]:
        for rows in execute():
            world.clock.now_s += chunk_takes_s
            world.office.resign_if_stuck(0)
            states.append(world.state()[0])
            yield rows

    world.catalog.journal_script.append(slow)
    world.clock.now_s += 100
    world.office.take(5)
    if chunk_takes_s < 2.5:
        assert states == [Role.PROMOTING] * 5
        assert world.state() == (Role.LEADER, 5, 1)
    else:
        assert states == [Role.FOLLOWER] * 5
        assert world.state() == (Role.FOLLOWER, 5, 0)


def test_while_a_promotion_is_stuck_no_office_is_taken(world: World) -> None:
    taken: list[int] = []

    def hang(execute: Callable[[], object]) -> object:
        world.clock.now_s += 3
        for _ in range(3):
            world.office.resign_if_stuck(0)
            try:
                taken.append(world.office.take(6))
            except Unavailable:
                pass
            world.clock.now_s += REST_S
        return execute()

    world.catalog.journal_script.append(hang)
    world.office.take(5)
    assert taken == []


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
