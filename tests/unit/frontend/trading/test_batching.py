"""Trades that go to a leader together: who sends, who goes along, who is told what."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from common.domain import MAX_TRADES_PER_CALL, Trade
from common.errors import BourseError, KeyReused, OutcomeUnknown, Unavailable
from frontend.model import Decision
from frontend.trading import batching as line
from frontend.trading.batching import Line, NotSent, Outcome
from tests.support.replica_fakes import eventually

PATIENCE_S = 20.0  # far more than anything here takes
CALL_S = 10.0


def trade_of(key: str) -> Trade:
    return Trade(key, "stock1", "BUY", 1)


def decision_of(key: str) -> Decision:
    return Decision(1, int(key), 1, 0, replayed=False)


class Leader:
    """Every call waits until the test answers it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.timeouts_s: list[float] = []
        self.settled: list[list[str]] = []
        self._answers: queue.SimpleQueue[Callable[[Sequence[Trade]], Sequence[Outcome]]] = (
            queue.SimpleQueue()
        )

    def send(self, trades: Sequence[Trade], timeout_s: float) -> Sequence[Outcome]:
        self.timeouts_s.append(timeout_s)
        self.calls.append([trade.request_id for trade in trades])
        return self._answers.get(timeout=PATIENCE_S)(trades)

    def settle(self, trades: Sequence[Trade], outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        self.settled.append([trade.request_id for trade in trades])
        return outcomes

    def decides(self) -> None:
        self._answers.put(lambda trades: [decision_of(trade.request_id) for trade in trades])

    def answers(self, *outcomes: Outcome) -> None:
        self._answers.put(lambda _trades: outcomes)

    def fails(self, error: BaseException) -> None:
        def act(_trades: Sequence[Trade]) -> Sequence[Outcome]:
            raise error

        self._answers.put(act)


class World:
    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.leader = Leader()
        self.line = Line(self.leader.send, self.leader.settle, time.monotonic, CALL_S)
        self._executor = executor

    def start(self, *keys: str, patience_s: float = PATIENCE_S) -> list[Future[Decision]]:
        """Trades from a thread each, which come in this order."""
        trading = []
        for key in keys:
            come = len(self.line._waiting) + len(self.leader.calls)
            give_up_at = time.monotonic() + patience_s
            trading.append(self._executor.submit(self.line.trade, trade_of(key), give_up_at))
            eventually(
                lambda come=come: len(self.line._waiting) + len(self.leader.calls) > come,
                "it has come",
            )
        return trading

    def first_is_out(self) -> Future[Decision]:
        (first,) = self.start("0")
        assert self.leader.calls == [["0"]]
        return first


@pytest.fixture(autouse=True)
def nobody_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_LONGEST_WAIT_S", PATIENCE_S)


@pytest.fixture
def world() -> Iterator[World]:
    with ThreadPoolExecutor(MAX_TRADES_PER_CALL * 2 + 2) as executor:
        yield World(executor)


def outcome(trading: Future[Decision]) -> Decision | BaseException:
    return trading.exception(PATIENCE_S) or trading.result()


def test_alone_a_trade_goes_at_once(world: World) -> None:
    for key in ("1", "2"):
        world.leader.decides()
        assert world.line.trade(trade_of(key), time.monotonic() + PATIENCE_S) == decision_of(key)
    assert world.leader.calls == [["1"], ["2"]]


def test_what_comes_while_a_call_is_out_goes_together_in_the_next(world: World) -> None:
    first = world.first_is_out()
    others = world.start("1", "2", "3")
    world.leader.decides()
    assert outcome(first) == decision_of("0")
    world.leader.decides()
    assert [outcome(one) for one in others] == [decision_of(key) for key in "123"]
    assert world.leader.calls == [["0"], ["1", "2", "3"]]
    assert world.leader.settled == world.leader.calls


def test_a_call_holds_only_so_many(world: World) -> None:
    first = world.first_is_out()
    keys = [str(number) for number in range(1, MAX_TRADES_PER_CALL + 3)]
    others = world.start(*keys)
    for _ in range(3):
        world.leader.decides()
    assert outcome(first) == decision_of("0")
    assert [outcome(one) for one in others] == [decision_of(key) for key in keys]
    assert [len(call) for call in world.leader.calls] == [1, MAX_TRADES_PER_CALL, 2]


def test_each_gets_its_own_outcome(world: World) -> None:
    first = world.first_is_out()
    others = world.start("1", "2")
    world.leader.decides()
    world.leader.answers(KeyReused(), decision_of("2"))
    assert isinstance(outcome(others[0]), KeyReused)
    assert outcome(others[1]) == decision_of("2")
    assert outcome(first) == decision_of("0")


def test_outcomes_are_settled_before_they_are_told_and_while_the_next_call_is_out(
    world: World,
) -> None:
    may_settle: queue.SimpleQueue[None] = queue.SimpleQueue()

    def settle(trades: Sequence[Trade], _outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        may_settle.get(timeout=PATIENCE_S)
        return [decision_of("7") for _ in trades]

    world.line = Line(world.leader.send, settle, time.monotonic, CALL_S)
    first = world.first_is_out()
    (second,) = world.start("1")
    world.leader.decides()
    eventually(lambda: len(world.leader.calls) == 2, "the next call is out")
    assert not first.done()
    may_settle.put(None)
    assert outcome(first) == decision_of("7")
    world.leader.decides()
    may_settle.put(None)
    assert outcome(second) == decision_of("7")


@pytest.mark.parametrize("error", [Unavailable("gone"), OutcomeUnknown()])
def test_when_a_call_fails_who_waited_was_not_sent(world: World, error: BourseError) -> None:
    first = world.first_is_out()
    others = world.start("1", "2")
    world.leader.fails(error)
    assert outcome(first) is error
    for one in others:
        told = outcome(one)
        assert isinstance(told, NotSent)
        assert told.cause is error
    assert world.leader.calls == [["0"]]
    assert world.leader.settled == []


def test_after_a_failure_the_line_takes_trades(world: World) -> None:
    first = world.first_is_out()
    world.leader.fails(Unavailable())
    assert isinstance(outcome(first), Unavailable)
    world.leader.decides()
    assert world.line.trade(trade_of("1"), time.monotonic() + PATIENCE_S) == decision_of("1")


def test_who_went_along_when_a_call_failed_is_told_the_same(world: World) -> None:
    first = world.first_is_out()
    others = world.start("1", "2")
    world.leader.decides()
    world.leader.fails(Unavailable("gone"))
    assert outcome(first) == decision_of("0")
    assert [type(outcome(one)) for one in others] == [Unavailable, Unavailable]


def test_a_defect_leaves_nobody_waiting(world: World) -> None:
    first = world.first_is_out()
    others = world.start("1", "2")
    (last,) = world.start("3")
    world.leader.decides()
    assert outcome(first) == decision_of("0")
    world.leader.fails(ZeroDivisionError())
    told = [outcome(one) for one in (*others, last)]
    assert [type(one) for one in told] == [ZeroDivisionError, OutcomeUnknown, OutcomeUnknown]


def test_a_defect_while_settling_leaves_nobody_waiting(world: World) -> None:
    def settle(_trades: Sequence[Trade], _outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        raise ZeroDivisionError

    first = world.first_is_out()
    others = world.start("1", "2")
    world.line._settle = settle
    world.leader.decides()
    assert isinstance(outcome(first), ZeroDivisionError)
    world.leader.decides()
    assert isinstance(outcome(others[0]), ZeroDivisionError)
    assert outcome(others[1]) == decision_of("2"), "the leader has decided it"


def test_who_waits_too_long_for_a_call_was_not_sent(world: World) -> None:
    first = world.first_is_out()
    (hasty,) = world.start("1", patience_s=0.05)
    told = outcome(hasty)
    assert isinstance(told, NotSent)
    assert isinstance(told.cause, OutcomeUnknown)
    world.leader.decides()
    assert outcome(first) == decision_of("0")
    assert world.leader.calls == [["0"]]


def test_who_waits_too_long_for_an_answer_does_not_know_its_outcome(world: World) -> None:
    first = world.first_is_out()
    (sender,) = world.start("1")
    (hasty,) = world.start("2", patience_s=2.0)
    world.leader.decides()
    assert outcome(first) == decision_of("0")
    assert isinstance(outcome(hasty), OutcomeUnknown)
    world.leader.decides()
    assert outcome(sender) == decision_of("1")
    assert world.leader.calls == [["0"], ["1", "2"]]


def test_who_waits_too_long_for_what_is_settled_knows_the_leaders_decision(world: World) -> None:
    may_settle: queue.SimpleQueue[None] = queue.SimpleQueue()

    def settle(_trades: Sequence[Trade], outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        may_settle.get(timeout=PATIENCE_S)
        return outcomes

    first = world.first_is_out()
    (sender,) = world.start("1")
    (hasty,) = world.start("2", patience_s=2.0)
    world.leader.decides()
    assert outcome(first) == decision_of("0")
    world.line._settle = settle
    world.leader.decides()
    assert outcome(hasty) == decision_of("2")
    assert not sender.done()
    may_settle.put(None)
    assert outcome(sender) == decision_of("1")


def test_who_waited_has_the_time_of_a_whole_call() -> None:
    """Else a leader that answers each call in time would be doubted by all who waited for one."""
    now_s = [0.0]
    with ThreadPoolExecutor(2) as executor:
        world = World(executor)
        world.line = Line(world.leader.send, world.leader.settle, lambda: now_s[0], CALL_S)
        first = world.first_is_out()
        (second,) = world.start("1")
        now_s[0] += 0.99 * CALL_S
        world.leader.decides()
        world.leader.decides()
        assert [outcome(first), outcome(second)] == [decision_of("0"), decision_of("1")]
    assert world.leader.timeouts_s[1] == CALL_S


def test_who_has_little_time_left_sends_for_nobody_else(world: World) -> None:
    first = world.first_is_out()
    (hasty,) = world.start("1", patience_s=0.8 * CALL_S)
    (patient,) = world.start("2")
    for _ in range(3):
        world.leader.decides()
    told = [outcome(one) for one in (first, hasty, patient)]
    assert told == [decision_of(key) for key in "012"]
    assert world.leader.calls == [["0"], ["1"], ["2"]]


class HeldCalls:
    """Calls of one trade each, or of more; the first one's key names the call."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.of: dict[str, Future[None]] = {key: Future() for key in "012"}
        world.line = Line(self.send, world.leader.settle, time.monotonic, CALL_S)

    def send(self, trades: Sequence[Trade], _timeout_s: float) -> Sequence[Outcome]:
        self._world.leader.calls.append([trade.request_id for trade in trades])
        self.of[trades[0].request_id].result(PATIENCE_S)
        return [decision_of(trade.request_id) for trade in trades]


@pytest.fixture
def overtaken(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[HeldCalls, list[Future[Any]]]:
    """The call of 0, which that of 1 has overtaken; 2 waits."""
    held = HeldCalls(world)
    first = world.first_is_out()
    monkeypatch.setattr(line, "_LONGEST_WAIT_S", 0.0)
    (second,) = world.start("1")
    eventually(lambda: world.leader.calls == [["0"], ["1"]], "it does not wait")
    monkeypatch.setattr(line, "_LONGEST_WAIT_S", PATIENCE_S)
    (third,) = world.start("2")
    return held, [first, second, third]


def test_behind_a_call_that_was_overtaken_nobody_waits(
    world: World, overtaken: tuple[HeldCalls, list[Future[Any]]]
) -> None:
    held, (first, second, third) = overtaken
    held.of["1"].set_result(None)
    held.of["2"].set_result(None)
    assert [outcome(second), outcome(third)] == [decision_of("1"), decision_of("2")]
    assert not first.done()
    held.of["0"].set_result(None)
    assert outcome(first) == decision_of("0")
    assert world.leader.calls == [["0"], ["1"], ["2"]]


@pytest.mark.parametrize("fails", [True, False])
def test_a_call_that_was_overtaken_leaves_the_line_as_it_is(
    world: World, overtaken: tuple[HeldCalls, list[Future[Any]]], fails: bool
) -> None:
    held, (first, second, third) = overtaken
    if fails:
        held.of["0"].set_exception(Unavailable())
        assert isinstance(outcome(first), Unavailable)
    else:
        held.of["0"].set_result(None)
        assert outcome(first) == decision_of("0")
    assert world.leader.calls == [["0"], ["1"]]
    held.of["1"].set_result(None)
    held.of["2"].set_result(None)
    assert [outcome(second), outcome(third)] == [decision_of("1"), decision_of("2")]


def test_a_call_has_the_time_that_its_sender_has_left(world: World) -> None:
    world.leader.decides()
    world.line.trade(trade_of("1"), time.monotonic() + 5.0)
    (timeout_s,) = world.leader.timeouts_s
    assert 0 < timeout_s <= 5.0


def test_many_threads_for_many_rounds(world: World) -> None:
    """Every trade gets its own decision, and none is in two calls."""

    def send(trades: Sequence[Trade], _timeout_s: float) -> Sequence[Outcome]:
        world.leader.calls.append([trade.request_id for trade in trades])
        time.sleep(0)  # lets others come
        return [decision_of(trade.request_id) for trade in trades]

    world.line = Line(send, world.leader.settle, time.monotonic, CALL_S)

    def trade_all(keys: Sequence[str]) -> list[Decision]:
        return [world.line.trade(trade_of(key), time.monotonic() + PATIENCE_S) for key in keys]

    keys = [[str(1_000 * thread + number) for number in range(200)] for thread in range(16)]
    with ThreadPoolExecutor(16) as executor:
        told = list(executor.map(trade_all, keys))
    assert told == [[decision_of(key) for key in mine] for mine in keys]
    sent = [key for call in world.leader.calls for key in call]
    assert sorted(sent) == sorted(key for mine in keys for key in mine)
