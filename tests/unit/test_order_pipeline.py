"""The pipeline, step by step: what a batch does to the log, to others and to its callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import (
    BourseError,
    Busy,
    Damaged,
    Internal,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
)
from common.records import Order
from order.catalog_client import Result
from order.ledger import Ledger, RowSource
from order.log import OrderLog
from order.node import Node
from order.pipeline import Pipeline
from order.replica import Role
from order.trades import Decision, PendingTrade, TradeQueue
from tests.unit.order_fakes import (
    Clock,
    FakeCatalog,
    answer_lost,
    lead,
    lost,
    make_pending,
    make_rows,
    make_trade,
    meanwhile,
    numbers,
    open_parts,
    outcome,
    refusing_rows,
)

EPOCH = 3
ATTEMPT_TIMEOUT_S, PATIENCE_S = 0.5, 1.0


class WatchedLedger(Ledger):
    """Writes down what is appended and what is pulled."""

    steps: list[str]

    def append(self, rows: Iterable[Order]) -> list[Order]:
        appended = super().append(rows)
        self.steps.append(f"append {numbers(appended)}")
        return appended

    def pull(self, source: RowSource, on_appended: Callable[[list[Order]], None]) -> None:
        self.steps.append("pull")
        super().pull(source, on_appended)


@dataclass
class World:
    """A leader of epoch 3 whose every step is written down; it plays the followers, too."""

    log: OrderLog
    node: Node
    ledger: WatchedLedger
    catalog: FakeCatalog
    clock: Clock = field(default_factory=Clock)
    steps: list[str] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)
    resigned: list[str] = field(default_factory=list)  # why it left office by its own fault
    break_down: str = ""  # the step that has a defect

    def __post_init__(self) -> None:
        self.ledger.steps = self.steps
        self.catalog.clock = self.clock
        self.queue = TradeQueue(capacity=100, batch_limit=3, clock=self.clock)
        self.pipeline = Pipeline(
            node=self.node,
            queue=self.queue,
            catalog=self,
            ledger=self.ledger,
            followers=self,
            announcer=self,
            resign=self.resign,
            attempt_timeout_s=ATTEMPT_TIMEOUT_S,
            patience_s=PATIENCE_S,
            halt=self.halted.append,
            clock=self.clock,
            pause=self.clock.pause,
        )

    # ---- what the pipeline sees as the catalog, the followers and the announcer

    def update_batch(self, epoch: int, trades: Sequence[Any], timeout_s: float) -> list[Result]:
        self.note("commit", " ".join(trade.request_id for trade in trades))
        return self.catalog.update_batch(epoch, trades, timeout_s)

    def journal(self, after: int) -> Iterator[list[Order]]:
        return self.catalog.journal(after)

    def replicate(self, rows: Sequence[Order], epoch: int) -> None:
        assert epoch == EPOCH
        self.note("replicate", str(numbers(rows)))

    def announce(self, rows: Sequence[Order]) -> None:
        self.note("announce", str(sorted(set(numbers(rows)))))

    def resign(self, epoch: int, why: str) -> None:
        if self.node.step(lambda replica: replica.step_down(epoch), why):
            self.resigned.append(why)

    def note(self, step: str, detail: str) -> None:
        self.steps.append(f"{step} {detail}")
        if step == self.break_down:
            raise ZeroDivisionError(f"a defect in {step}")

    # ---- what a test does

    def ask(self, *requests: str | PendingTrade) -> list[PendingTrade]:
        """Puts trades into the queue; their answers are written down, too."""
        pendings = [make_pending(one) if isinstance(one, str) else one for one in requests]
        for pending in pendings:
            pending.outcome.add_done_callback(
                lambda _future, of=pending: self.steps.append(f"answer {of.trade.request_id}")
            )
            self.queue.put(pending)
        return pendings

    def run(self) -> None:
        """Until everything that was asked for is answered."""
        self.queue.close()
        self.pipeline.run()

    def answers(self, *requests: str | PendingTrade) -> list[Decision | BourseError]:
        pendings = self.ask(*requests)
        self.run()
        return [outcome(pending) for pending in pendings]

    @property
    def role(self) -> Role:
        return self.node.view().role

    def assert_deposed(self) -> None:
        """It left office, but not by its own fault."""
        view = self.node.view()
        assert (view.role, view.leader_id, view.epoch) == (Role.FOLLOWER, 0, EPOCH)
        assert self.resigned == []

    def assert_resigned(self, why: str) -> None:
        view = self.node.view()
        assert (view.role, view.leader_id, view.epoch) == (Role.FOLLOWER, 0, EPOCH)
        (reason,) = self.resigned
        assert why in reason


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Leads, with two rows of earlier epochs in journal and log."""
    rows = make_rows(2)
    with open_parts(tmp_path, rows) as parts:
        lead(parts.node, EPOCH)
        catalog = FakeCatalog(rows)
        catalog.registered = (EPOCH, 1)
        yield World(parts.log, parts.node, WatchedLedger(parts.log, parts.node), catalog)


def summary(answer: Decision | BourseError) -> tuple[int, int] | type[BourseError]:
    return (answer.status, answer.number) if isinstance(answer, Decision) else type(answer)


# ------------------------------------------------------------ a batch's way


def test_a_batch_takes_its_steps_in_order(world: World) -> None:
    world.answers("a", "b")
    assert world.steps == [
        "commit a b",
        "append [3, 4]",
        "replicate [3, 4]",
        "announce [3, 4]",
        "answer a",
        "answer b",
    ]
    assert world.log.rows(0) == world.catalog.rows
    assert world.catalog.sent == [(EPOCH, ["a", "b"], ATTEMPT_TIMEOUT_S)]
    assert world.role is Role.LEADER


def test_each_caller_gets_the_decision_on_its_own_trade(world: World) -> None:
    done, refused, unknown = world.answers(
        "done", make_pending("refused", quantity=5_000), make_pending("unknown", name="nosuch")
    )
    row = world.catalog.rows[2]
    assert done == Decision(1, 3, row.version, 5_000, world.clock(), replayed=False)
    assert refused == Decision(0, -1, 0, 5_000, world.clock(), replayed=False)
    assert unknown == Decision(-1, -1, 0, 5_000, world.clock(), replayed=False)
    assert "append [3]" in world.steps


def test_batches_follow_one_another(world: World) -> None:
    answers = world.answers(*"abcdefg")
    assert [summary(answer) for answer in answers] == [(1, n) for n in range(3, 10)]
    assert [ids for _, ids, _ in world.catalog.sent] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert world.steps.index("answer c") < world.steps.index("commit d e f")


def test_a_batch_without_a_new_row_still_goes_all_the_way(world: World) -> None:
    """Nothing for the followers; what is repeated is announced again, for the first time may
    have been lost with the leader that had it committed."""
    world.catalog.update_batch(EPOCH, [make_trade("a")], 1)
    world.ledger.append(world.catalog.rows[2:])
    world.steps.clear()
    repeat, refused = world.answers("a", make_pending("r", quantity=5_000))
    assert isinstance(repeat, Decision)
    assert (repeat.number, repeat.replayed) == (3, True)
    assert summary(refused) == (0, -1)
    assert world.steps == [
        "commit a r",
        "append []",
        "replicate []",
        "announce [3]",
        "answer a",
        "answer r",
    ]


def test_a_repeat_within_one_batch(world: World) -> None:
    first, again = world.answers("a", "a")
    assert summary(first) == summary(again) == (1, 3)
    assert "append [3]" in world.steps


def test_a_trade_that_fails_by_itself_fails_alone(world: World) -> None:
    def spoil(execute: Callable[[], list[Result]]) -> list[Result]:
        results = execute()
        return [results[0], Result(Internal(), None), results[2]]

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


# ------------------------------------------------------------ in doubt


@pytest.mark.parametrize("misfortune", [lost, answer_lost])
@pytest.mark.parametrize(
    "error", [OutcomeUnknown(), Unavailable(), Internal(), Busy(), NotLeader(), Damaged()]
)
def test_a_batch_in_doubt_is_sent_again_as_it_is(
    world: World, misfortune: Callable[..., Any], error: BourseError
) -> None:
    """Whatever was answered: the batch keeps its trades and its epoch, and none overtakes it."""
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
    """The copy before it may have been executed, and here it sometimes was."""

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
    assert len(world.catalog.sent) == 1  # the queue is emptied without asking the catalog again


def test_a_leader_without_the_catalog_steps_down_when_its_patience_is_over(world: World) -> None:
    started = world.clock()
    world.catalog.update_script.extend([lost(Unavailable("down"))] * 1000)
    answers = world.answers(*"abcd")
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 3 + [NotLeader]
    world.assert_resigned("cannot reach the catalog: down")
    assert PATIENCE_S <= world.clock() - started < PATIENCE_S + 0.2
    assert len(world.catalog.sent) > 5
    assert {tuple(ids) for _, ids, _ in world.catalog.sent} == {("a", "b", "c")}


def test_the_patience_is_for_each_batch(world: World) -> None:
    almost = [lost(Unavailable())] * 15  # of 20 that would be too many
    world.catalog.update_script.extend([*almost, lambda execute: execute(), *almost])
    answers = world.answers(*"abcdef")
    assert [summary(answer) for answer in answers] == [(1, n) for n in range(3, 9)]
    assert len(world.catalog.sent) == 32


def test_an_answer_that_comes_late_but_comes_is_taken(world: World) -> None:
    """The patience says when to stop asking, not when to stop listening."""

    def slow() -> None:
        world.clock.now_s += 10 * PATIENCE_S

    world.catalog.update_script.append(meanwhile(slow))
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 3)
    assert world.role is Role.LEADER


# ------------------------------------------------------------ the office is lost meanwhile


def test_decisions_hold_though_the_office_was_lost_meanwhile(world: World) -> None:
    def another_leads() -> None:
        world.node.step(lambda replica: replica.hear_of(2, EPOCH + 1))

    world.catalog.update_script.append(meanwhile(another_leads))
    first, second = world.ask("a"), world.ask("b", "c", "d")
    world.run()
    assert summary(outcome(first[0])) == (1, 3)
    assert [summary(outcome(pending)) for pending in second] == [(1, 4), (1, 5), NotLeader]
    assert world.log.rows(0) == world.catalog.rows
    assert (world.node.view().leader_id, world.role) == (2, Role.FOLLOWER)


def test_a_batch_of_an_old_office_does_not_end_the_new_one(world: World) -> None:
    """Deposed while the batch is in doubt, and elected again before it is refused."""

    def lose_and_win() -> None:
        world.node.step(lambda replica: replica.hear_of(2, EPOCH + 1))
        world.catalog.registered = (EPOCH + 2, 1)
        lead(world.node, EPOCH + 2)
        world.clock.during_pause = lambda: None

    world.catalog.update_script.append(lost(Unavailable()))
    world.clock.during_pause = lose_and_win
    pendings = world.ask(*"abc")
    world.queue.close()
    world.pipeline.run()
    assert {type(outcome(pending)) for pending in pendings} == {OutcomeUnknown}
    assert (world.role, world.node.view().epoch) == (Role.LEADER, EPOCH + 2)
    assert world.node.step(lambda replica: replica.open_batch()) == EPOCH + 2


@pytest.mark.parametrize("leads_in_the_end", [True, False])
def test_trades_wait_while_the_replica_is_promoting(world: World, leads_in_the_end: bool) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    world.node.step(lambda replica: replica.stand(EPOCH))
    world.node.step(lambda replica: replica.fence_accepted(EPOCH))
    (pending,) = world.ask("a")
    world.queue.close()
    is_waiting = threading.Event()
    wait_while_promoting = world.node.wait_while_promoting

    def watched(timeout_s: float) -> Any:
        is_waiting.set()
        return wait_while_promoting(timeout_s)

    world.node.wait_while_promoting = watched  # type: ignore[method-assign]
    thread = threading.Thread(target=world.pipeline.run, daemon=True)
    thread.start()
    assert is_waiting.wait(10)
    assert not pending.outcome.done()
    assert world.catalog.sent == []
    if leads_in_the_end:
        world.node.step(lambda replica: replica.caught_up(EPOCH))
    else:
        world.node.step(lambda replica: replica.step_down(EPOCH))
    thread.join(timeout=10)
    assert summary(outcome(pending)) == ((1, 3) if leads_in_the_end else NotLeader)


def test_trades_wait_for_a_promotion_that_begins_while_the_pipeline_is_idle(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    is_idle, is_waiting = threading.Event(), threading.Event()
    wait, wait_while_promoting = world.queue.wait, world.node.wait_while_promoting

    def watched_wait(timeout_s: float) -> bool:
        is_idle.set()
        return wait(timeout_s)

    def watched_wait_while_promoting(timeout_s: float) -> Any:
        is_waiting.set()
        return wait_while_promoting(timeout_s)

    world.queue.wait = watched_wait  # type: ignore[method-assign]
    world.node.wait_while_promoting = watched_wait_while_promoting  # type: ignore[method-assign]
    thread = threading.Thread(target=world.pipeline.run, daemon=True)
    thread.start()
    assert is_idle.wait(10)
    world.node.step(lambda replica: replica.stand(EPOCH))
    world.node.step(lambda replica: replica.fence_accepted(EPOCH))
    is_waiting.clear()
    (pending,) = world.ask("a")
    assert is_waiting.wait(10)
    world.node.step(lambda replica: replica.caught_up(EPOCH))
    assert summary(pending.outcome.result(timeout=10)) == (1, 3)
    world.queue.close()
    thread.join(timeout=10)


# ------------------------------------------------------------ the log


def test_an_append_that_fails_ends_the_office_but_not_the_answers(world: World) -> None:
    """What the catalog decided is decided; the followers get it by the journal."""
    with refusing_rows(world.log):
        answers = world.answers("a", make_pending("r", quantity=5_000), "b", "c")
    assert [summary(answer) for answer in answers] == [(1, 3), (0, -1), (1, 4), NotLeader]
    assert world.steps[:3] == ["commit a r b", "replicate []", "announce [3, 4]"]
    world.assert_resigned("cannot append: ")
    assert world.ledger.last_append_failed
    assert world.log.last_number == 2


def test_a_gap_is_filled_from_the_journal(world: World) -> None:
    """Rows that an earlier leader had committed, but nobody sent here."""
    world.catalog.rows += make_rows(5, after=world.catalog.rows, epoch=2)
    world.catalog.chunk = 4
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 8)
    assert world.steps == [
        "commit a",
        "pull",
        "append [3, 4, 5, 6]",
        "append [7, 8]",
        "replicate [3, 4, 5, 6, 7, 8]",
        "announce [3, 4, 5, 6, 7, 8]",
        "answer a",
    ]
    assert world.log.rows(0) == world.catalog.rows
    assert world.role is Role.LEADER


def test_a_gap_that_cannot_be_filled_ends_the_office_but_not_the_answers(world: World) -> None:
    world.catalog.rows += make_rows(5, after=world.catalog.rows, epoch=2)
    world.catalog.journal_script.append(lost(Unavailable("down")))
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 8)
    assert world.steps[-3:] == ["replicate []", "announce [8]", "answer a"]
    world.assert_resigned("cannot pull the journal: down")


def test_a_contradiction_stops_the_process(world: World) -> None:
    """The catalog numbers a trade 2 that is another one in the log."""
    del world.catalog.rows[1:]
    answers = world.answers(*"abcd")
    assert [type(answer) for answer in answers] == [Damaged] * 3 + [NotLeader]
    assert world.halted == [answers[0].message]  # type: ignore[union-attr]
    assert "row 2 is not the one in the log" in world.halted[0]
    assert "replicate" not in " ".join(world.steps)
    assert len(world.catalog.sent) == 1


def test_a_journal_that_contradicts_the_log_stops_the_process(world: World) -> None:
    rows = make_rows(4, after=world.catalog.rows, epoch=2)
    world.catalog.rows += rows
    world.catalog.journal_script.append(lambda execute: [[replace(rows[0], quantity=77)]])
    (answer,) = world.answers("a")
    assert type(answer) is Damaged
    assert len(world.halted) == 1


# ------------------------------------------------------------ defects


@pytest.mark.parametrize("step", ["commit", "replicate", "announce"])
def test_a_defect_leaves_no_caller_without_an_answer(
    world: World, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.break_down = step
    answers = world.answers(*"abcd")  # returns: the pipeline's thread goes on to the end
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 3 + [NotLeader]
    world.assert_resigned("unexpected error in the trade pipeline")
    assert world.halted == []
    assert "ZeroDivisionError" in caplog.text


def test_a_disk_that_cannot_be_read_ends_the_office_but_not_the_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log is said to have cannot be compared."""

    def fail(_number: int) -> Order:
        raise Unavailable("disk I/O error")

    world.catalog.update_batch(EPOCH, [make_trade("a")], 1)
    world.ledger.append(world.catalog.rows[2:])
    monkeypatch.setattr(world.log, "row", fail)
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 3)
    world.assert_resigned("disk I/O error")


def test_what_was_answered_before_a_defect_stays_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.ask("a", "b")
    monkeypatch.setattr(PendingTrade, "answer", answer_only_a)
    world.run()
    assert summary(outcome(first)) == (1, 3)
    assert type(outcome(second)) is OutcomeUnknown


def answer_only_a(pending: PendingTrade, decision: Decision) -> None:
    if pending.trade.request_id != "a":
        raise ZeroDivisionError("a defect in answering")
    pending.outcome.set_result(decision)


def test_the_pipeline_ends_when_the_queue_is_closed_and_empty(world: World) -> None:
    thread = threading.Thread(target=world.pipeline.run, daemon=True)
    thread.start()
    (pending,) = world.ask("a")
    assert summary(pending.outcome.result(timeout=10)) == (1, 3)
    assert thread.is_alive()
    world.queue.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


# ------------------------------------------------------------ how long a batch takes


def test_the_age_of_the_batch_in_work(world: World) -> None:
    ages: list[float] = []

    def look() -> None:
        ages.append(world.pipeline.batch_age_s())

    def work(duration_s: float) -> None:
        look()
        world.clock.now_s += duration_s
        look()

    world.clock.now_s += 50
    look()
    world.catalog.update_script.append(meanwhile(lambda: work(3)))
    world.catalog.update_script.append(meanwhile(lambda: work(2)))
    world.answers(*"abcd")  # two batches
    assert ages == [0, 0, 3, 0, 2]
    world.clock.now_s += 50
    assert world.pipeline.batch_age_s() == 0


@pytest.mark.parametrize("failure", ["defect", "damage"])
def test_a_batch_that_failed_is_not_in_work(world: World, failure: str) -> None:
    if failure == "defect":
        world.break_down = "replicate"
    else:
        del world.catalog.rows[1:]
    world.answers("a")
    world.clock.now_s += 50
    assert world.pipeline.batch_age_s() == 0
