"""The steps of the pipeline: the effects of a batch on log, followers and callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import BourseError, Internal, KeyReused, NotLeader, OutcomeUnknown, Unavailable
from order.leadership.replica import Role
from order.trading.catalog_client import Decided, Result
from order.trading.queue import PendingTrade, TradeAnswer
from tests.unit.order.fakes import make_pending, make_trade, meanwhile, outcome
from tests.unit.order.trading.pipeline_world import (
    ATTEMPT_TIMEOUT_S,
    EPOCH,
    World,
    open_world,
    summary,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


# ------------------------------------------------------------ a batch's way


def test_a_batch_takes_its_steps_in_order(world: World) -> None:
    world.answers("a", "b")
    assert world.steps == [
        "commit a b",
        "append [3, 4]",
        "answer a",
        "answer b",
        "wake followers",
        "publish [3, 4]",
    ]
    assert world.log.rows(0) == world.catalog.rows
    assert world.catalog.sent == [(EPOCH, ["a", "b"], ATTEMPT_TIMEOUT_S)]
    assert world.role is Role.LEADER


def test_each_caller_gets_the_decision_on_its_own_trade(world: World) -> None:
    done, refused, unknown = world.answers(
        "done", make_pending("refused", quantity=5_000), make_pending("unknown", name="nosuch")
    )
    row = world.catalog.rows[2]
    assert done == TradeAnswer(1, 3, row.version, 5_000, world.clock(), replayed=False)
    assert refused == TradeAnswer(0, -1, 0, 5_000, world.clock(), replayed=False)
    assert unknown == TradeAnswer(-1, -1, 0, 5_000, world.clock(), replayed=False)
    assert "append [3]" in world.steps


def test_batches_follow_one_another(world: World) -> None:
    answers = world.answers(*"abcdefg")
    assert [summary(answer) for answer in answers] == [(1, n) for n in range(3, 10)]
    assert [ids for _, ids, _ in world.catalog.sent] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert world.steps.index("answer c") < world.steps.index("commit d e f")


def test_a_batch_without_a_new_row_still_goes_all_the_way(world: World) -> None:
    """A repeated trade is published again: its leader may have died before it published.

    There is nothing to send to the followers.
    """
    world.catalog.update_batch(EPOCH, [make_trade("a")], 1)
    world.ledger.append(world.catalog.rows[2:])
    world.steps.clear()
    repeat, refused = world.answers("a", make_pending("r", quantity=5_000))
    assert isinstance(repeat, TradeAnswer)
    assert (repeat.number, repeat.replayed) == (3, True)
    assert summary(refused) == (0, -1)
    assert world.steps == [
        "commit a r",
        "append []",
        "answer a",
        "answer r",
        "wake followers",
        "publish [3]",
    ]


def test_a_repeat_within_one_batch(world: World) -> None:
    first, again = world.answers("a", "a")
    assert summary(first) == summary(again) == (1, 3)
    assert "append [3]" in world.steps


def test_a_trade_that_fails_by_itself_fails_alone(world: World) -> None:
    def spoil(execute: Callable[[], Decided]) -> Decided:
        results, cluster_id = execute()
        return Decided([results[0], Result(Internal(), None), results[2]], cluster_id)

    world.catalog.update_batch(EPOCH, [make_trade("reused", quantity=7)], 1)
    world.ledger.append(world.catalog.rows[2:])
    world.catalog.update_script.append(spoil)
    good, bad, reused = world.answers("good", make_pending("bad", quantity=5_000), "reused")
    assert summary(good) == (1, 4)
    assert type(bad) is Internal
    assert type(reused) is KeyReused
    assert world.role is Role.LEADER
    assert world.log.last_number == 4


def test_a_trade_that_is_too_late_is_not_sent(world: World) -> None:
    late = PendingTrade(make_trade("late"), world.clock())
    answers = world.answers("a", late, "b")
    assert [summary(answer) for answer in answers] == [(1, 3), OutcomeUnknown, (1, 4)]
    assert world.catalog.sent[0][1] == ["a", "b"]


# ------------------------------------------------------------ defects


@pytest.mark.parametrize(
    ("step", "answered"),
    [("commit", OutcomeUnknown), ("wake", TradeAnswer), ("publish", TradeAnswer)],
)
def test_a_defect_leaves_no_caller_without_an_answer(
    world: World, step: str, answered: type, caplog: pytest.LogCaptureFixture
) -> None:
    world.break_down = step
    answers = world.answers(*"abcd")  # returns: the pipeline's thread goes on to the end
    assert [type(answer) for answer in answers] == [answered] * 3 + [NotLeader]
    world.assert_resigned("unexpected error in the trade pipeline")
    assert world.halted == []
    assert "ZeroDivisionError" in caplog.text


def test_a_disk_that_cannot_be_read_ends_leading_but_not_the_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader cannot compare the decision with the row in its log."""

    def fail(*_: int) -> list[Order]:
        raise Unavailable("disk I/O error")

    world.catalog.update_batch(EPOCH, [make_trade("a")], 1)
    world.ledger.append(world.catalog.rows[2:])
    monkeypatch.setattr(world.log, "rows", fail)
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 3)
    world.assert_resigned("disk I/O error")


def test_what_was_answered_before_a_defect_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.ask("a", "b")
    monkeypatch.setattr(PendingTrade, "settle", answer_only_a)
    world.run()
    assert summary(outcome(first)) == (1, 3)
    assert type(outcome(second)) is OutcomeUnknown


def answer_only_a(pending: PendingTrade, outcome: TradeAnswer | BourseError) -> None:
    if isinstance(outcome, TradeAnswer) and pending.trade.request_id != "a":
        raise ZeroDivisionError("a defect in answering")
    pending.outcome.set_result(outcome)


def test_the_pipeline_ends_when_the_queue_is_closed_and_empty(world: World) -> None:
    thread = threading.Thread(target=world.pipeline.run, daemon=True)
    thread.start()
    (pending,) = world.ask("a")
    assert summary(pending.outcome.result(timeout=10)) == (1, 3)
    assert thread.is_alive()
    world.queue.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


# ------------------------------------------------------------ how many a batch waits for


def test_a_batch_waits_for_those_just_answered_and_those_who_waited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[int] = []
    monkeypatch.setattr(world.queue, "gather", lambda count, _timeout_s: gathered.append(count))
    world.ask(*"abcdefgh")  # a batch takes three
    world.run()
    # The first batch waits for nobody. Before the second, three were answered and five wait (8).
    # Before the third, three were answered and two wait (5).
    assert gathered == [8, 5]


def test_few_callers_do_not_wait_for_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(world.queue, "gather", fail)
    monkeypatch.setattr(world.queue, "_batch_limit", 1)
    assert all(isinstance(one, TradeAnswer) for one in world.answers("a", "b", "c"))


# ------------------------------------------------------------ how long a batch takes


def test_a_batch_is_work_until_it_is_answered(world: World) -> None:
    idle_s: list[float] = []

    def look() -> None:
        idle_s.append(world.progress.longest_idle_s())

    def work(duration_s: float) -> None:
        look()
        world.clock.now_s += duration_s
        look()

    world.clock.now_s += 50
    look()
    world.catalog.update_script.append(meanwhile(lambda: work(3)))
    world.catalog.update_script.append(meanwhile(lambda: work(2)))
    world.answers(*"abcd")  # in two batches
    assert idle_s == [0, 0, 3, 0, 2]
    world.clock.now_s += 50
    assert world.progress.longest_idle_s() == 0


@pytest.mark.parametrize("failure", ["defect", "damage"])
def test_a_batch_that_failed_is_no_work_any_more(world: World, failure: str) -> None:
    if failure == "defect":
        world.break_down = "commit"
    else:
        del world.catalog.rows[1:]
    world.answers("a")
    world.clock.now_s += 50
    assert world.progress.longest_idle_s() == 0
