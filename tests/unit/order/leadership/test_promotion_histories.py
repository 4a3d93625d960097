"""Promotions, resignations, hanging work and the watchdog, in every order of events.

Every activity of a replica pauses at each call to the catalog, and before and after each step of
the state machine. A list of numbers decides which activity goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.domain import EMPTY_DIGEST, Order
from common.errors import Contradiction, OutcomeUnknown
from common.pulls import Rows
from order.leadership.node import Node
from order.leadership.promotion import Promotion
from order.leadership.replica import LEADING, IllegalTransition, Replica, Role
from order.leadership.watchdog import Progress, Watchdog
from order.trading.catalog_client import FenceAnswer
from tests.unit.order.trading.simulated_process import Message, Task, running_task

STUCK_AFTER_S = 3.0
REST_S = 2.0
REPLICAS = 2

Result = TypeVar("Result")


def let_others_run() -> None:
    running_task().wait(None)


class TurnLock:
    """A lock. Who waits for it lets other activities run."""

    def __init__(self) -> None:
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            let_others_run()
        self._is_held = True

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._is_held = False


class TurnNode(Node):
    """Lets others run before and after each step."""

    def step(self, transition: Callable[[Replica], Result], why: str = "") -> Result:
        let_others_run()
        result = super().step(transition, why)
        let_others_run()
        return result


class Ledger:
    """Appends pulled rows, and lets others run before each chunk."""

    last_append_failed = False
    cluster_id = ""

    def pull(
        self,
        source: Callable[[int], Iterator[Rows]],
        on_appended: Callable[[Sequence[Order]], None],
    ) -> None:
        for rows in source(0):
            let_others_run()
            on_appended(rows.orders)


class Replicated:
    """A replica that can lead, with work that can hang."""

    is_alive = True

    def __init__(self, world: World, replica_id: int) -> None:
        self.world = world
        self.tasks: list[Task] = []
        self.won: set[int] = set()  # the epochs that the catalog registered for it
        self.attempts: list[Future[int]] = []
        self.begun_resting: list[Future[int]] = []  # attempts that began while it rested
        self.node = TurnNode(Replica(replica_id, 0, EMPTY_DIGEST))
        self.progress = Progress(world.clock)
        self.promotion = Promotion(
            self.node,
            self,
            Ledger(),  # type: ignore[arg-type]
            lambda _rows: None,
            self.contradicted,
            progress=self.progress,
            fence_timeout_s=1.0,
            patience_s=1.0,
            halt=self.halt,
            clock=world.clock,
            pause=self.pause,
            spawn=self.spawn,
        )
        self.promotion._joining = TurnLock()  # type: ignore[assignment]
        self.watchdog = Watchdog(self.progress, self.promotion.give_up, STUCK_AFTER_S)

    # ---- what the promotion sees as the catalog and its surroundings

    def fence(self, epoch: int, leader_id: int, *_: object, **_claim: object) -> FenceAnswer:
        answer: FenceAnswer = self._call(lambda: self.world.register(self, epoch, leader_id))
        return answer

    def journal(self, _after: int) -> Iterator[Rows]:
        for _ in range(2):
            yield Rows(self._call(list))

    def contradicted(self, denial: Contradiction) -> None:
        self.halt(denial.message)

    def halt(self, reason: str) -> None:
        self.world.defects.append(AssertionError(reason))

    def pause(self, duration_s: float) -> None:
        let_others_run()
        self.world.now_s += duration_s

    def spawn(self, work: Callable[[], None]) -> Task:
        task = Task(self, work)  # type: ignore[arg-type]
        self.tasks.append(task)
        task.start()
        return task

    def _call(self, execute: Callable[[], Any]) -> Any:
        message = Message(running_task(), "", execute)
        self.world.to_catalog.append(message)
        return message.task.wait(message)

    # ---- what can happen to it

    def be_asked_to_lead(self, epoch: int) -> None:
        rested = self._rests()
        attempt = self.promotion.begin(epoch)
        self.attempts.append(attempt)
        if rested and self._rests() and self.node.view().role not in LEADING:
            self.begun_resting.append(attempt)

    def _rests(self) -> bool:
        return self.world.now_s < self.promotion._rests_until

    def resign(self, epoch: int) -> None:
        led = self.node.view()
        self.promotion.resign(epoch, "its disk is full")
        if led.role in LEADING and led.epoch == epoch:
            now = self.node.view()
            assert now.role not in LEADING or now.epoch != epoch, "the resignation was lost"

    def look(self) -> None:
        """Runs the watchdog once."""
        hangs, before = self.progress.longest_idle_s() > STUCK_AFTER_S, self.node.view()
        self.watchdog.look()
        if hangs and before.role in LEADING:
            now = self.node.view()
            assert now.role not in LEADING or now.epoch != before.epoch, "it hangs and leads on"

    def hear_of(self, leader_id: int, epoch: int) -> None:
        self.node.step(lambda replica: replica.hear_of(leader_id, epoch))

    def do_a_batch(self) -> None:
        with self.progress.of_work():
            try:
                epoch = self.node.step(Replica.open_batch)
            except IllegalTransition:
                return
            let_others_run()  # the work hangs here
            self.node.step(lambda replica: replica.settle_batch(epoch))


class World:
    """Replicas, and the catalog in which they register."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.registered = FenceAnswer(True, 0, 0)
        self.to_catalog: list[Message] = []
        self.answers: list[Message] = []
        self.defects: list[BaseException] = []
        self.replicas = [Replicated(self, number + 1) for number in range(REPLICAS)]

    def clock(self) -> float:
        return self.now_s

    def register(self, replica: Replicated, epoch: int, leader_id: int) -> FenceAnswer:
        if epoch != self.registered.epoch + 1:
            return FenceAnswer(False, self.registered.epoch, self.registered.leader_id)
        replica.won.add(epoch)
        self.registered = FenceAnswer(True, epoch, leader_id)
        return self.registered

    # ---- the invariants

    def check(self) -> None:
        if self.defects:
            raise self.defects[0]
        leading = [
            view.epoch for replica in self.replicas if (view := replica.node.view()).role in LEADING
        ]
        assert len(set(leading)) == len(leading), "two lead in one epoch"
        for replica in self.replicas:
            view = replica.node.view()
            assert view.role not in LEADING or view.epoch in replica.won, "leads without a fence"
            for attempt in replica.attempts:
                if attempt.done() and attempt.exception() is None:
                    assert attempt.result() in replica.won, "an epoch that was never registered"
            for attempt in replica.begun_resting:
                assert attempt.done(), "asked while it rested, it tried"

    # ---- events

    def step(self, choice: int) -> None:
        event, choice = EVENTS[choice % len(EVENTS)], choice // len(EVENTS)
        event(self, choice)
        self.check()

    def deliver(self, choice: int) -> None:
        if self.to_catalog:
            message = self.to_catalog.pop(choice % len(self.to_catalog))
            message.outcome = message.execute()
            self.answers.append(message)

    def answer(self, choice: int) -> None:
        if self.answers:
            message = self.answers.pop(choice % len(self.answers))
            if message.task.waiting_for is message:
                message.task.resume(message.outcome)

    def lose_patience(self, choice: int) -> None:
        waiting = [task for task in self._tasks() if task.waiting_for is not None]
        if waiting:
            self.now_s += 0.5
            waiting[choice % len(waiting)].resume(OutcomeUnknown("deadline"))

    def wake(self, choice: int) -> None:
        ready = [task for task in self._tasks() if task.waiting_for is None]
        if ready:
            ready[choice % len(ready)].resume(None)

    def elect(self, choice: int) -> None:
        replica, epoch = self._pick(choice), self.registered.epoch + choice // 4 % 3
        replica.spawn(lambda: replica.be_asked_to_lead(epoch))

    def resign(self, choice: int) -> None:
        replica = self._pick(choice)
        epoch = replica.node.view().epoch - (choice // 4 % 4 == 0)
        replica.spawn(lambda: replica.resign(epoch))

    def look(self, choice: int) -> None:
        replica = self._pick(choice)
        replica.spawn(replica.look)

    def hear(self, choice: int) -> None:
        replica, registered = self._pick(choice), self.registered
        replica.spawn(lambda: replica.hear_of(registered.leader_id, registered.epoch))

    def batch(self, choice: int) -> None:
        replica = self._pick(choice)
        replica.spawn(replica.do_a_batch)

    def pass_time(self, choice: int) -> None:
        self.now_s += (0.1, 1.0, STUCK_AFTER_S + 0.1)[choice % 3]

    def _pick(self, choice: int) -> Replicated:
        return self.replicas[choice % REPLICAS]

    def _tasks(self) -> list[Task]:
        return [task for one in self.replicas for task in one.tasks if not task.is_over]

    # ---- the end

    def settle(self) -> None:
        """Runs all activities until nothing is left to do."""
        for _ in range(5_000):
            if not self._tasks():
                return
            if self.to_catalog:
                self.deliver(0)
            elif self.answers:
                self.answer(0)
            elif any(task.waiting_for is None for task in self._tasks()):
                self.wake(random.randrange(2**16))  # noqa: S311 - a lock's holder gets its turn, too
            else:
                self.lose_patience(0)
            self.check()
        raise AssertionError("something never ends")

    def check_that_all_can_lead(self) -> None:
        self.settle()
        self.now_s += REST_S
        for replica in self.replicas:
            assert replica.progress.longest_idle_s() == 0
            assert replica.promotion._attempt is None
            assert replica.node.view().role in (Role.FOLLOWER, Role.LEADER), "promoting for ever"
            epoch = self.registered.epoch + 1
            attempt: list[Future[int]] = []
            replica.spawn(lambda: attempt.append(replica.promotion.begin(epoch)))  # noqa: B023
            self.settle()
            view = replica.node.view()
            assert view.role is Role.LEADER
            assert attempt[0].result() == view.epoch


WEIGHTS: dict[Callable[[World, int], None], int] = {
    World.deliver: 6,
    World.answer: 6,
    World.lose_patience: 1,
    World.wake: 24,
    World.elect: 4,
    World.resign: 2,
    World.look: 3,
    World.hear: 2,
    World.batch: 2,
    World.pass_time: 2,
}
EVENTS = [event for event, weight in WEIGHTS.items() for _ in range(weight)]


def explore(choices: Sequence[int]) -> None:
    world = World()
    for choice in choices:
        world.step(choice)
    world.check_that_all_can_lead()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.lists(st.integers(0, 2**16 - 1), max_size=120))
def test_no_short_history_breaks_the_rules(choices: list[int]) -> None:
    explore(choices)


@pytest.mark.slow
def test_no_long_history_breaks_the_rules() -> None:
    for seed in range(50):
        chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        explore([chance.randrange(2**16) for _ in range(300)])
