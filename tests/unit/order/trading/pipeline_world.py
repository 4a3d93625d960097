"""A pipeline that records each of its steps, with a fake catalog, fake followers and a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.domain import Order
from common.errors import BourseError
from common.pulls import Rows
from order.leadership.node import Node
from order.leadership.replica import Role
from order.leadership.watchdog import Progress
from order.log.ledger import Ledger, RowSource
from order.log.log import OrderLog
from order.trading.catalog_client import Decided
from order.trading.pipeline import Pipeline
from order.trading.queue import PendingTrade, TradeAnswer, TradeQueue
from tests.support.clock import Clock
from tests.unit.order.fakes import (
    FakeCatalog,
    FakeIdentity,
    lead,
    make_pending,
    make_rows,
    numbers,
    open_parts,
    outcome,
)

EPOCH = 3
ATTEMPT_TIMEOUT_S, PATIENCE_S = 0.5, 1.0


class WatchedLedger(Ledger):
    """Records appends and pulls."""

    steps: list[str]

    def append(self, rows: Iterable[Order], cluster_id: str = "") -> list[Order]:
        appended = super().append(rows, cluster_id)
        self.steps.append(f"append {numbers(appended)}")
        return appended

    def pull(self, source: RowSource, on_appended: Callable[[list[Order]], None]) -> None:
        self.steps.append("pull")
        super().pull(source, on_appended)


@dataclass
class World:
    """A leader of epoch 3 that records its steps. The class is also its fake followers."""

    log: OrderLog
    node: Node
    ledger: WatchedLedger
    catalog: FakeCatalog
    clock: Clock = field(default_factory=Clock)
    steps: list[str] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)
    identity: FakeIdentity = field(default_factory=FakeIdentity)
    resigned: list[str] = field(default_factory=list)  # the reasons for which it resigned
    break_down: str = ""  # the step that raises an unexpected error

    def __post_init__(self) -> None:
        self.ledger.steps = self.steps
        self.catalog.clock = self.clock
        self.queue = TradeQueue(capacity=100, batch_limit=3, clock=self.clock)
        self.progress = Progress(self.clock)
        self.pipeline = Pipeline(
            node=self.node,
            queue=self.queue,
            catalog=self,
            ledger=self.ledger,
            wake_followers=self.wake,
            publish=self.publish,
            resign=self.resign,
            contradicted=self.identity.contradicted,
            progress=self.progress,
            attempt_timeout_s=ATTEMPT_TIMEOUT_S,
            patience_s=PATIENCE_S,
            halt=self.halted.append,
            clock=self.clock,
            pause=self.clock.pause,
        )

    # ---- what the pipeline sees as the catalog, the followers and the publisher

    def update_batch(self, epoch: int, trades: Sequence[Any], timeout_s: float) -> Decided:
        self.note("commit", " ".join(trade.request_id for trade in trades))
        return self.catalog.update_batch(epoch, trades, timeout_s)

    def journal(self, after: int) -> Iterator[Rows]:
        return self.catalog.journal(after)

    def wake(self) -> None:
        self.note("wake", "followers")

    def publish(self, rows: Sequence[Order]) -> None:
        self.note("publish", str(sorted(set(numbers(rows)))))

    def resign(self, epoch: int, why: str) -> None:
        if self.node.step(lambda replica: replica.step_down(epoch), why):
            self.resigned.append(why)

    def note(self, step: str, detail: str) -> None:
        self.steps.append(f"{step} {detail}")
        if step == self.break_down:
            raise ZeroDivisionError(f"a defect in {step}")

    # ---- what a test does

    def ask(self, *requests: str | PendingTrade) -> list[PendingTrade]:
        """Puts trades into the queue, and records their answers as steps."""
        pendings = [make_pending(one) if isinstance(one, str) else one for one in requests]
        for pending in pendings:
            pending.outcome.add_done_callback(
                lambda _future, of=pending: self.steps.append(f"answer {of.trade.request_id}")
            )
            self.queue.put(pending)
        return pendings

    def run(self) -> None:
        """Runs the pipeline until all trades are answered."""
        self.queue.close()
        self.pipeline.run()

    def answers(self, *requests: str | PendingTrade) -> list[TradeAnswer | BourseError]:
        pendings = self.ask(*requests)
        self.run()
        return [outcome(pending) for pending in pendings]

    @property
    def role(self) -> Role:
        return self.node.view().role

    def assert_deposed(self) -> None:
        """Checks that it stopped leading, but did not resign."""
        view = self.node.view()
        assert (view.role, view.leader_id, view.epoch) == (Role.FOLLOWER, 0, EPOCH)
        assert self.resigned == []

    def assert_resigned(self, why: str) -> None:
        view = self.node.view()
        assert (view.role, view.leader_id, view.epoch) == (Role.FOLLOWER, 0, EPOCH)
        (reason,) = self.resigned
        assert why in reason


@contextmanager
def open_world(directory: Path) -> Iterator[World]:
    """A leader. Journal and log have two rows of earlier epochs."""
    rows = make_rows(2)
    with open_parts(directory, rows) as parts:
        lead(parts.node, EPOCH)
        catalog = FakeCatalog(rows)
        catalog.registered = (EPOCH, 1)
        yield World(parts.log, parts.node, WatchedLedger(parts.log, parts.node), catalog)


def summary(answer: TradeAnswer | BourseError) -> tuple[int, int] | type[BourseError]:
    return (answer.status, answer.number) if isinstance(answer, TradeAnswer) else type(answer)
