"""A deterministic simulation of several replicas and the catalog.

The pipeline, promotion, ledger, state machine and catalog store are the real ones. The network and
the scheduler are simulated.

Each activity of a replica runs in a thread of its own. Only one thread runs at a time, and only
from one network call to the next. So a list of numbers decides everything that happens. Messages
are delivered late, twice, out of order or never. Callers give up while their message is still on
its way. Processes die, and restart with their log, a part of it, or an empty one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.sqlite.database import Database
from common.domain import BUY, EMPTY_DIGEST, SELL, Order, Trade, next_digest
from common.domain import Trade as CatalogTrade
from common.errors import BourseError, OutcomeUnknown
from order.leadership.replica import LEADING, Role
from order.log.log import OrderLog
from order.trading.catalog_client import Decided, FenceAnswer, Result
from order.trading.queue import PendingTrade, TradeAnswer
from tests.unit.catalog.support import store_on
from tests.unit.order.trading.simulated_process import Message, Process, Task

STOCKS = {"a": 40, "b": 3}
TRADES = [
    Trade(f"request-{index}", "ab"[index % 2], BUY if index % 3 else SELL, 1 + index % 5)
    for index in range(12)
]


@dataclass
class World:
    directory: Path
    replica_count: int = 3
    now_s: float = 1000.0
    to_catalog: list[Message] = field(default_factory=list)
    answers: list[Message] = field(default_factory=list)
    to_replicas: list[tuple[list[Order], int, int]] = field(default_factory=list)
    asked: list[tuple[Trade, PendingTrade]] = field(default_factory=list)
    told: dict[str, tuple[int, int]] = field(default_factory=dict)  # request id -> first answer
    registrants: dict[int, Process] = field(default_factory=dict)  # epoch -> its leader
    sent: set[tuple[int, str, int]] = field(default_factory=set)
    defects: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stocks_file = self.directory / "stocks.txt"
        lines = [f"{name},1.00,{volume}" for name, volume in STOCKS.items()]
        self.stocks_file.write_text("\n".join(["stockname,price,currvol", *lines, ""]))
        self.database = Database(self.directory / "catalog", self.stocks_file, readers=1)
        self.store = store_on(self.database, lambda: self.now_s)
        self.processes = [self.start(replica_id + 1) for replica_id in range(self.replica_count)]

    def start(self, replica_id: int) -> Process:
        return Process(self, replica_id, OrderLog(self.directory / f"orders-{replica_id}.db"))

    def halted(self, reason: str) -> None:
        self.defects.append(AssertionError(f"halted: {reason}"))

    # ---- the catalog

    def update(self, epoch: int, trades: Sequence[Trade]) -> Decided:
        before = len(self.store.journal(0))
        decisions = self.store.update(
            epoch,
            [CatalogTrade(one.request_id, one.name, one.type, one.quantity) for one in trades],
        )
        if len(self.store.journal(0)) > before:
            assert epoch == self.store.registered().epoch, "a deposed leader committed"
        results = [
            Result(
                TradeAnswer(
                    status=decision.status,
                    number=decision.number,
                    version=decision.order.version if decision.order else 0,
                    lease_ms=0,
                    decided_at_s=self.now_s,
                    replayed=decision.replayed,
                )
                if decision.failure.value == "none"
                else BourseError(f"failure {decision.failure}"),
                decision.order,
            )
            for decision in decisions
        ]
        return Decided(results, self.store.cluster_id)

    def fence(
        self, process: Process, epoch: int, leader_id: int, claim: tuple[int, bytes, str]
    ) -> FenceAnswer:
        accepted, registered = self.store.fence(epoch, leader_id, *claim)
        if accepted:
            self.registrants[epoch] = process
        return FenceAnswer(accepted, registered.epoch, registered.leader_id)

    def execute(self, message: Message) -> None:
        """The catalog gets a message, or a copy of it. Only the first execution is answered."""
        try:
            outcome = message.execute()
        except BourseError as error:
            outcome = error
        if not message.was_executed:
            message.was_executed, message.outcome = True, outcome
            self.answers.append(message)

    # ---- the invariants, checked after every step

    def check(self) -> None:
        if self.defects:
            raise self.defects[0]
        journal = self.store.journal(0)
        self._check_journal(journal)
        self._check_books(journal)
        self._collect_answers(journal)
        for process in self.processes:
            self._check_process(process, journal)

    def _check_journal(self, journal: Sequence[Order]) -> None:
        assert [row.number for row in journal] == list(range(1, len(journal) + 1)), "gap"
        assert len({row.request_id for row in journal}) == len(journal), "executed twice"
        assert [row.epoch for row in journal] == sorted(row.epoch for row in journal)
        digest = EMPTY_DIGEST
        for row in journal:
            digest = next_digest(digest, row)
            assert row.digest == digest
            sender = self.registrants[row.epoch]
            assert (row.epoch, row.request_id, id(sender)) in self.sent, "not sent by its leader"

    def _check_books(self, journal: Sequence[Order]) -> None:
        for name, volume in STOCKS.items():
            left = volume
            for row in journal:
                if row.name == name:
                    left += row.quantity if row.type == SELL else -row.quantity
                    assert left >= 0
            stock = self.store.lookup(name)
            assert stock is not None
            assert stock.volume == left

    def _collect_answers(self, journal: Sequence[Order]) -> None:
        for trade, pending in [*self.asked]:
            if not pending.outcome.done():
                continue
            self.asked.remove((trade, pending))
            decision = pending.outcome.result()
            assert type(decision) is not BourseError, decision
            if isinstance(decision, BourseError):
                continue
            answer = (decision.status, decision.number)
            assert self.told.setdefault(trade.request_id, answer) == answer, "two answers"
            if decision.status == 1:
                row = journal[decision.number - 1]
                assert (row.request_id, row.name) == (trade.request_id, trade.name)

    def _check_process(self, process: Process, journal: Sequence[Order]) -> None:
        view = process.node.view()
        rows = process.log.rows(0)
        assert rows == journal[: len(rows)], "the log is not a prefix of the journal"
        assert view.position == len(rows)
        assert view.digest == (rows[-1].digest if rows else EMPTY_DIGEST)
        if view.role in LEADING:
            assert self.registrants[view.epoch] is process, "leader by hearsay"
        if view.role is Role.LEADER:
            older = sum(row.epoch < view.epoch for row in journal)
            assert view.position >= older, "leads without the rows of earlier epochs"

    # ---- what can happen

    def step(self, choice: int) -> None:
        """Does the event that the number selects, or nothing if that event is not possible now."""
        pick, choice = choice % len(_EVENTS), choice // len(_EVENTS)
        _EVENTS[pick](self, choice)
        self.check()

    def deliver(self, choice: int) -> None:
        if self.to_catalog:
            self.execute(self.to_catalog.pop(choice % len(self.to_catalog)))

    def deliver_copy(self, choice: int) -> None:
        if self.to_catalog:
            self.execute(self.to_catalog[choice % len(self.to_catalog)])

    def answer(self, choice: int) -> None:
        if self.answers:
            message = self.answers.pop(choice % len(self.answers))
            if message.task.waiting_for is message:  # otherwise its caller gave up or died
                message.task.resume(message.outcome)

    def lose_patience(self, choice: int) -> None:
        waiting = [task for task in self._tasks() if task.waiting_for is not None]
        if waiting:
            self.now_s += 1.0
            waiting[choice % len(waiting)].resume(OutcomeUnknown("deadline"))

    def wake(self, choice: int) -> None:
        sleeping = [task for task in self._tasks() if task.waiting_for is None]
        if sleeping:
            sleeping[choice % len(sleeping)].resume(None)

    def lose_message(self, choice: int) -> None:
        if self.to_catalog:
            self.to_catalog.pop(choice % len(self.to_catalog))

    def replicate(self, choice: int) -> None:
        """A leader sends some rows of its log. Somebody gets rows, maybe others, sent long ago;
        they stay, so others get them too, or again."""
        leaders = [one for one in self.processes if one.node.view().role is Role.LEADER]
        if leaders:
            sender = leaders[choice % len(leaders)]
            view = sender.node.view()
            if rows := sender.log.rows(choice // 3 % (view.position + 1), 1 + choice % 4):
                self.to_replicas.append((rows, view.replica_id, view.epoch))
        if self.to_replicas:
            rows, leader_id, epoch = self.to_replicas[choice % len(self.to_replicas)]
            process = self._pick(choice // 7)
            if process.node.view().replica_id != leader_id:
                process.receive(rows, leader_id, epoch)

    def ask(self, choice: int) -> None:
        """A client sends a new or repeated trade, if possible to one that thinks it leads."""
        leading = [one for one in self.processes if one.node.view().role in LEADING]
        process = leading[choice % len(leading)] if leading else self._pick(choice)
        trade = TRADES[choice // self.replica_count % len(TRADES)]
        self.ask_process(process, trade)

    def ask_process(self, process: Process, trade: Trade) -> None:
        if process.node.view().role in LEADING:
            pending = PendingTrade(trade, self.now_s + 1000)
            process.queue.put(pending)
            self.asked.append((trade, pending))

    def batch(self, choice: int) -> None:
        process = self._pick(choice)
        if process.node.view().role is not Role.PROMOTING:
            process.run_batch()

    def elect(self, choice: int) -> None:
        """A frontend asks this replica to lead. It may suggest a wrong epoch."""
        suggested = self.store.registered().epoch + 1 + (choice // 3 % 4 - 1 if choice & 8 else 0)
        self._pick(choice).promote(suggested)

    def gossip(self, choice: int) -> None:
        """A replica hears of an epoch that has a leader."""
        if self.registrants:
            epoch = list(self.registrants)[choice % len(self.registrants)]
            leader_id = self.registrants[epoch].node.view().replica_id
            self._pick(choice // 5).node.step(lambda replica: replica.hear_of(leader_id, epoch))

    def crash(self, choice: int) -> None:
        """Kills a replica. It restarts with its log, with a part of it, or with an empty one."""
        index = choice % self.replica_count
        process = self.processes[index]
        replica_id = process.node.view().replica_id
        process.die()
        kept = [1.0, 1.0, 0.5, 0.0][choice // self.replica_count % 4]
        with sqlite3.connect(self.directory / f"orders-{replica_id}.db") as connection:
            connection.execute(
                "DELETE FROM orders WHERE number > ?", (int(process.log.last_number * kept),)
            )
        connection.close()
        self.processes[index] = self.start(replica_id)

    def _pick(self, choice: int) -> Process:
        return self.processes[choice % self.replica_count]

    def _tasks(self) -> list[Task]:
        return [task for process in self.processes for task in process.tasks if not task.is_over]

    # ---- the end

    def heal(self) -> None:
        """From now on the network works, and every trade must be decided."""
        leader = self.processes[-1]
        for _ in range(200):
            self._let_all_arrive()
            role = leader.node.view().role
            undecided = [trade for trade in TRADES if trade.request_id not in self.told]
            if not undecided:
                return
            if role is Role.FOLLOWER:
                leader.promote(self.store.registered().epoch + 1)
            elif role is Role.LEADER:
                for trade in undecided:
                    self.ask_process(leader, trade)
                leader.run_batch()
            self.now_s += 0.5
            self.check()
        raise AssertionError(f"never decided: {undecided}")

    def _let_all_arrive(self) -> None:
        for _ in range(1000):
            if self.to_catalog:
                self.deliver(0)
            elif self.answers:
                self.answer(0)
            elif any(task.waiting_for is None for task in self._tasks()):
                self.wake(0)
            elif self._tasks():
                self.lose_patience(0)  # the network had lost its message
            else:
                return
            self.check()

    def close(self) -> None:
        for process in self.processes:
            process.die()
        self.database.close()


# How often each event is chosen. Most trades must succeed, and every fault must still happen.
_WEIGHTS: dict[Callable[[World, int], None], int] = {
    World.deliver: 10,
    World.deliver_copy: 3,
    World.answer: 10,
    World.lose_patience: 1,
    World.wake: 4,
    World.lose_message: 1,
    World.replicate: 4,
    World.ask: 8,
    World.batch: 8,
    World.elect: 2,
    World.gossip: 1,
    World.crash: 1,
}
_EVENTS = [event for event, weight in _WEIGHTS.items() for _ in range(weight)]


def explore(directory: Path, choices: Sequence[int]) -> None:
    """Runs one history. Raises AssertionError as soon as a promise is broken."""
    world = World(directory)
    try:
        for choice in choices:
            world.step(choice)
        world.heal()
        world.check()
    finally:
        world.close()
