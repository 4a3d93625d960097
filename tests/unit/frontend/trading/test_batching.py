"""Requests that share calls: who goes with whom, and who is told what."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from common.errors import BourseError, Busy, KeyReused, OutcomeUnknown, Unavailable
from frontend.trading.batching import BatchSender, NotSent
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import PATIENCE_S

BATCH_LIMIT = 4
QUEUE_LIMIT = 10
LATE_S = 1_000.0  # on the sender's clock

Outcomes = Sequence[str | BourseError]


class World:
    """A sender on the test's clock, whose calls each wait until the test answers them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.calls: list[list[str]] = []
        self.timeouts_s: list[float] = []
        self._answers: queue.SimpleQueue[Callable[[Sequence[str]], Outcomes]] = queue.SimpleQueue()
        self.sender: BatchSender[str, str] = BatchSender(
            "sender",
            self._send,
            batch_limit=BATCH_LIMIT,
            queue_limit=QUEUE_LIMIT,
            clock=self.clock,
            on_end=self.has_ended,
        )

    def has_ended(self) -> None:
        self.calls.append(["the end"])

    def _send(self, requests: Sequence[str], timeout_s: float) -> Outcomes:
        self.timeouts_s.append(timeout_s)
        self.calls.append(list(requests))
        return self._answers.get(timeout=PATIENCE_S)(requests)

    def put(self, *requests: str, give_up_at: float = LATE_S) -> list[Future[str]]:
        return [self.sender.put(request, give_up_at) for request in requests]

    def first_is_out(self) -> Future[str]:
        (first,) = self.put("first")
        self.out(["first"])
        return first

    def out(self, *calls: list[str]) -> None:
        wait_for(lambda: len(self.calls) == len(calls), PATIENCE_S, f"{len(calls)} calls are out")
        assert self.calls == [*calls]

    def answers(self, calls: int = 1) -> None:
        for _ in range(calls):
            self._answers.put(lambda requests: [answer_to(request) for request in requests])

    def says(self, *outcomes: str | BourseError) -> None:
        self._answers.put(lambda _requests: outcomes)

    def fails(self, error: BaseException) -> None:
        def act(_requests: Sequence[str]) -> Outcomes:
            raise error

        self._answers.put(act)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.sender.close()
    world.answers(2)


def answer_to(request: str) -> str:
    return f"answer to {request}"


def told(answer: Future[str]) -> str | BaseException:
    return answer.exception(PATIENCE_S) or answer.result()


def cause(answer: Future[str]) -> BourseError:
    """Of a request that was in no call."""
    not_sent = answer.exception(PATIENCE_S)
    assert isinstance(not_sent, NotSent)
    return not_sent.cause


def test_alone_a_request_goes_at_once(world: World) -> None:
    for request in ("a", "b"):
        world.answers()
        assert told(*world.put(request)) == answer_to(request)
    assert world.calls == [["a"], ["b"]]


def test_what_comes_while_a_call_is_out_goes_together_in_the_next(world: World) -> None:
    first = world.first_is_out()
    others = world.put("a", "b", "c")
    world.answers(2)
    assert told(first) == answer_to("first")
    assert [told(one) for one in others] == [answer_to(request) for request in "abc"]
    assert world.calls == [["first"], ["a", "b", "c"]]


def test_a_call_holds_only_so_many(world: World) -> None:
    world.first_is_out()
    others = world.put(*"abcdef")
    world.answers(3)
    assert [told(one) for one in others] == [answer_to(request) for request in "abcdef"]
    assert world.calls == [["first"], [*"abcd"], [*"ef"]]


def test_each_gets_its_own_outcome(world: World) -> None:
    world.first_is_out()
    refused, done = world.put("a", "b")
    world.answers()
    world.says(KeyReused(), "done")
    assert isinstance(told(refused), KeyReused)
    assert told(done) == "done"


def test_only_so_many_wait(world: World) -> None:
    world.first_is_out()
    waiting = world.put(*map(str, range(QUEUE_LIMIT)))
    with pytest.raises(Busy):
        world.sender.put("one too many", LATE_S)
    world.answers(4)
    assert [told(one) for one in waiting] == [answer_to(str(n)) for n in range(QUEUE_LIMIT)]


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("error", [Unavailable("gone"), OutcomeUnknown()])
def test_when_a_call_fails_who_was_in_it_is_told_so_and_who_waited_was_not_sent(
    world: World, error: BourseError
) -> None:
    world.first_is_out()
    together = world.put("a", "b")
    world.answers()
    world.out(["first"], ["a", "b"])
    waiting = world.put("c", "d")
    world.fails(error)
    assert [told(one) for one in together] == [error, error]
    assert [cause(one) for one in waiting] == [error, error]
    assert world.calls == [["first"], ["a", "b"]]


@pytest.mark.parametrize("error", [Unavailable(), ZeroDivisionError(), SystemExit()])
def test_after_whatever_went_wrong_it_goes_on(world: World, error: BaseException) -> None:
    first = world.first_is_out()
    world.fails(error)
    assert isinstance(told(first), BourseError)
    world.answers()
    assert told(*world.put("a")) == answer_to("a")


def test_a_defect_leaves_the_outcome_unknown(world: World) -> None:
    first = world.first_is_out()
    waiting = world.put("a")
    world.fails(ZeroDivisionError())
    assert isinstance(told(first), OutcomeUnknown)
    world.answers()
    assert told(*waiting) == answer_to("a")


@pytest.mark.parametrize("outcomes", [(), ("one", "two")])
def test_too_few_answers_or_too_many_are_nobodys(world: World, outcomes: Outcomes) -> None:
    first = world.first_is_out()
    world.says(*outcomes)
    assert isinstance(told(first), OutcomeUnknown)


def test_who_is_dismissed_was_not_sent(world: World) -> None:
    first = world.first_is_out()
    waiting = world.put("a", "b")
    error = OutcomeUnknown("another leads")
    world.sender.dismiss(error)
    assert [cause(one) for one in waiting] == [error, error]
    world.answers()
    assert told(first) == answer_to("first")


# ---------------------------------------------------------------- time


def test_who_has_cancelled_is_not_sent(world: World) -> None:
    first = world.first_is_out()
    cancelled, patient = world.put("a", "b")
    assert cancelled.cancel()
    assert not first.cancel()
    world.answers(2)
    assert told(patient) == answer_to("b")
    assert world.calls == [["first"], ["b"]]


def test_whose_time_is_over_in_the_queue_is_not_sent(world: World) -> None:
    world.first_is_out()
    (hasty,) = world.put("a", give_up_at=5.0)
    (patient,) = world.put("b", give_up_at=6.0)
    world.clock.pass_by(5.0)
    world.answers(2)
    assert isinstance(cause(hasty), OutcomeUnknown)
    assert told(patient) == answer_to("b")
    assert world.calls == [["first"], ["b"]]


def test_when_everybodys_time_is_over_no_call_is_made(world: World) -> None:
    first = world.first_is_out()
    waiting = world.put("a", "b", give_up_at=5.0)
    world.clock.pass_by(5.0)
    world.answers()
    assert told(first) == answer_to("first")
    for one in waiting:
        assert isinstance(cause(one), OutcomeUnknown)
    world.answers()
    assert told(*world.put("c")) == answer_to("c")
    assert world.calls == [["first"], ["c"]]


def test_a_call_has_the_time_of_the_most_patient_in_it(world: World) -> None:
    world.first_is_out()
    world.put("a", give_up_at=3.0)
    world.put("b", give_up_at=7.0)
    world.put("c", give_up_at=2.0)
    world.clock.pass_by(1.0)
    world.answers(2)
    world.out(["first"], ["a", "b", "c"])
    assert world.timeouts_s == [LATE_S, 6.0]


# ---------------------------------------------------------------- the end


def test_when_it_closes_only_the_call_that_is_out_is_answered(world: World) -> None:
    first = world.first_is_out()
    waiting = world.put("a")
    world.sender.close()
    later = world.put("b")
    for one in (*waiting, *later):
        assert isinstance(cause(one), Unavailable)
    assert world.calls == [["first"]]
    world.answers()
    assert told(first) == answer_to("first")
    world.out(["first"], ["the end"])
    wait_for(
        lambda: all(thread.name != "sender" for thread in threading.enumerate()),
        PATIENCE_S,
        "its thread has ended",
    )


def test_many_threads_for_many_rounds() -> None:
    """Every request gets its own answer, and none is in two calls."""
    calls: list[Sequence[str]] = []

    def send(requests: Sequence[str], _timeout_s: float) -> list[str | BourseError]:
        calls.append(requests)
        time.sleep(0)  # lets others come
        return [answer_to(request) for request in requests]

    sender: BatchSender[str, str] = BatchSender(
        "many", send, batch_limit=BATCH_LIMIT, queue_limit=16, clock=time.monotonic
    )

    def put_all(requests: Sequence[str]) -> list[str]:
        give_up_at = time.monotonic() + PATIENCE_S
        return [sender.put(request, give_up_at).result(PATIENCE_S) for request in requests]

    requests = [[f"{thread}-{number}" for number in range(200)] for thread in range(16)]
    with ThreadPoolExecutor(16) as executor:
        answers = list(executor.map(put_all, requests))
    sender.close()
    assert answers == [[answer_to(request) for request in mine] for mine in requests]
    sent = [request for call in calls for request in call]
    assert sorted(sent) == sorted(request for mine in requests for request in mine)
