"""A simulated process of a replica, with the real pipeline, promotion, ledger and state machine.

Only one of its threads runs at a time, and only from one network call to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from catalog.sqlite.store import SqliteStore
from common.domain import Order, Trade
from common.errors import Contradiction
from common.pulls import Rows
from order.leadership.node import Node
from order.leadership.promotion import Promotion
from order.leadership.replica import Gap, Replica
from order.leadership.watchdog import Progress
from order.log.ledger import Ledger
from order.log.log import OrderLog
from order.trading.catalog_client import Decided, FenceAnswer
from order.trading.pipeline import Pipeline
from order.trading.queue import TradeQueue


class Killed(BaseException):
    """The process of this task has died."""


@dataclass
class Message:
    """A call on its way to the catalog, or its answer on the way back."""

    task: Task
    description: str
    execute: Callable[[], Any]  # runs at the catalog; raises the error for the caller
    outcome: Any = None
    was_executed: bool = False


class Task:
    """One activity of a process. It runs until a network call, and then until it is resumed."""

    def __init__(self, process: Process, work: Callable[[], None]) -> None:
        self.process = process
        self.waiting_for: Message | None = None  # None in a pause: no message is expected
        self.is_over = False
        self._work = work
        self._outcome: Any = None
        self._may_run = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._has_stopped.acquire()

    def wait(self, message: Message | None) -> Any:
        """Called in the task's own thread."""
        if not self.process.is_alive:
            raise Killed
        self.waiting_for = message
        self._has_stopped.release()
        self._may_run.acquire()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def resume(self, outcome: Any) -> None:
        self._outcome = outcome
        self.waiting_for = None
        self._may_run.release()
        self._has_stopped.acquire()

    def _run(self) -> None:
        _RUNNING.task = self
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:  # `World.check` raises it again
            self.process.world.defects.append(error)
        self.is_over = True
        self._has_stopped.release()


_RUNNING = threading.local()


def running_task() -> Task:
    """The task that runs in the current thread."""
    task: Task = _RUNNING.task
    return task


class Surroundings(Protocol):
    """The part of the world that a process uses."""

    now_s: float
    store: SqliteStore
    to_catalog: list[Message]
    to_replicas: list[tuple[list[Order], int, int]]  # rows, the sender, its epoch
    sent: set[tuple[int, str, int]]  # epoch, request id, id of the process
    defects: list[BaseException]

    def halted(self, reason: str) -> None: ...

    def update(self, epoch: int, trades: Sequence[Trade]) -> Decided: ...

    def fence(
        self, process: Process, epoch: int, leader_id: int, claim: tuple[int, bytes, str]
    ) -> FenceAnswer: ...


class Process:
    """A replica from one start until it is killed."""

    def __init__(self, world: Surroundings, replica_id: int, log: OrderLog) -> None:
        self.world = world
        self.is_alive = True
        self.log = log
        self.node = Node(Replica(replica_id, log.last_number, log.digest))
        self.ledger = Ledger(log, self.node)
        self.tasks: list[Task] = []
        self.pipeline_task: Task | None = None
        self.queue = TradeQueue(100, 3, lambda: world.now_s)
        self.promotion = Promotion(
            self.node,
            self,
            self.ledger,
            lambda rows: None,
            self.contradicted,
            progress=Progress(lambda: world.now_s),
            fence_timeout_s=2.0,
            patience_s=4.0,
            halt=world.halted,
            clock=lambda: world.now_s,
            pause=self.pause,
            spawn=self.spawn,
        )
        self.pipeline = Pipeline(
            node=self.node,
            queue=self.queue,
            catalog=self,
            ledger=self.ledger,
            wake_followers=self.wake,
            publish=self.publish,
            resign=self.promotion.resign,
            contradicted=self.contradicted,
            progress=Progress(lambda: world.now_s),
            attempt_timeout_s=1.0,
            patience_s=4.0,
            halt=world.halted,
            clock=lambda: world.now_s,
            pause=self.pause,
        )

    def spawn(self, work: Callable[[], None]) -> Task:
        task = Task(self, work)
        self.tasks.append(task)
        task.start()
        return task

    def pause(self, duration_s: float) -> None:
        running_task().wait(None)
        self.world.now_s += duration_s

    def call(self, description: str, execute: Callable[[], Any]) -> Any:
        message = Message(running_task(), description, execute)
        self.world.to_catalog.append(message)
        return message.task.wait(message)

    # ---- what the parts see as the catalog, the followers and the publisher

    def update_batch(self, epoch: int, trades: Sequence[Trade], timeout_s: float) -> Decided:
        self.world.sent.update((epoch, trade.request_id, id(self)) for trade in trades)
        return self.call(f"update {epoch}", lambda: self.world.update(epoch, trades))

    def fence(
        self,
        epoch: int,
        leader_id: int,
        timeout_s: float,
        last_number: int = 0,
        digest: bytes = b"",
        *,
        cluster_id: str = "",
    ) -> FenceAnswer:
        claim = last_number, digest, cluster_id
        return self.call(f"fence {epoch}", lambda: self.world.fence(self, epoch, leader_id, claim))

    def journal(self, after: int) -> Iterator[Rows]:
        rows = self.call(f"journal {after}", lambda: self.world.store.journal(after))
        for start in range(0, len(rows), 2):
            yield Rows(rows[start : start + 2], self.world.store.cluster_id)

    def wake(self) -> None:
        """The world sends rows when it chooses to."""

    def publish(self, rows: Sequence[Order]) -> None:
        pass

    def contradicted(self, denial: Contradiction) -> None:
        self.world.halted(denial.message)  # no simulated fault can cause that

    # ---- what the world does to it

    def die(self) -> None:
        self.is_alive = False
        for task in self.tasks:
            if not task.is_over:
                task.resume(Killed())
        self.log.close()

    def receive(self, rows: Sequence[Order], leader_id: int, epoch: int) -> None:
        self.node.step(lambda replica: replica.hear_of(leader_id, epoch))
        try:
            self.ledger.append(rows)
        except Gap:
            pass  # the real sender would send the missing rows later

    def promote(self, suggested_epoch: int) -> None:
        self.promotion.begin(suggested_epoch)  # joins a running attempt, if there is one

    def run_batch(self) -> None:
        is_idle = self.pipeline_task is None or self.pipeline_task.is_over
        if is_idle and (batch := self.queue.take_batch()):
            self.pipeline_task = self.spawn(lambda: self.pipeline._process_guarded(batch))
