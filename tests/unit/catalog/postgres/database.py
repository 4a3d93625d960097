"""A database of several nodes in memory, with what goes wrong in PostgreSQL under a supervisor.

A node has a log of the states that its transactions wrote. A COMMIT is in the primary's log at
once; it is visible, and acknowledged, when the synchronous standby has it. Row locks last as long.
A node that starts again shows all that is in its log. So a state can be seen that was never
acknowledged, and lost by a failover.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as copy_of
from typing import Any

import psycopg

from catalog.decisions import Refusal, Registration
from catalog.postgres.session import Changes, Loaded, OfficeRow, Opened, SessionLost
from catalog.stock import Stock
from common.domain import EMPTY_DIGEST, Order
from tests.unit.catalog.postgres.scheduler import Machine, Scheduler

CLUSTER_ID = "cluster"
CLIENT_PATIENCE_S = 0.7
IDLE_IN_TRANSACTION_S = 2.0


@dataclass(frozen=True, eq=False)
class State:
    """All that is stored, as one transaction left it."""

    office: OfficeRow
    registration: Registration
    stocks: Mapping[str, Stock]
    orders: tuple[Order, ...] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)

    def with_changes(self, office: OfficeRow, changes: Changes) -> State:
        """Raises IntegrityError as the unique keys of the tables do."""
        known = {order.request_id for order in self.orders} | self.refusals.keys()
        ids = [order.request_id for order in changes.orders] + [key for key, _ in changes.refusals]
        numbers = [order.number for order in changes.orders]
        if known & set(ids) or any(number <= len(self.orders) for number in numbers):
            raise psycopg.IntegrityError("duplicate key")
        return State(
            office,
            changes.registration or self.registration,
            {**self.stocks, **{stock.name: copy_of(stock) for stock in changes.stocks}},
            self.orders + tuple(changes.orders),
            {**self.refusals, **dict(changes.refusals)},
        )


@dataclass(frozen=True)
class Pending:
    """A COMMIT that waits for the synchronous standby."""

    session: FakeSession
    call: Call
    index: int  # in the log
    answer: Any


class Node:
    """One database node. Its methods are what happens there at one instant."""

    def __init__(self, cluster: Cluster, name: str, state: State) -> None:
        self.cluster = cluster
        self.machine = Machine(name)
        self.log = [state]
        self.visible = 0  # index into the log
        self.is_up = True
        self.follows: Node | None = None  # None: it takes writes
        self.standby: Node | None = None  # whose copy a COMMIT waits for
        self.sessions: list[FakeSession] = []
        self.lock: FakeSession | None = None
        self.lock_queue: list[tuple[FakeSession, Callable[[], None]]] = []
        self.pending: Pending | None = None

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def shown(self) -> State:
        return self.log[self.visible]

    @property
    def is_well(self) -> bool:
        return self.is_up and self.machine.resumes_at_s <= self.cluster.scheduler.now_s

    # ---- the row lock of the office

    def lock_office(self, session: FakeSession, then: Callable[[], None]) -> None:
        self.lock_queue.append((session, then))
        self._grant()

    def unlock(self, session: FakeSession) -> None:
        self.lock_queue = [entry for entry in self.lock_queue if entry[0] is not session]
        if self.lock is session and not (self.pending and self.pending.session is session):
            self.lock = None
            self._grant()

    def _grant(self) -> None:
        while self.lock is None and self.lock_queue:
            session, then = self.lock_queue.pop(0)
            self.lock = session
            then()

    # ---- commits

    def commit(self, session: FakeSession, call: Call, state: State, answer: Any) -> None:
        """The answer goes out when the commit is safe."""
        self.log.append(state)
        self.pending = Pending(session, call, len(self.log) - 1, answer)
        for follower in self.cluster.nodes:
            if follower.follows is self:
                self.cluster.send_log(self, follower)

    def received(self, standby: Node, length: int) -> None:
        """The standby says how much it has."""
        if self.pending and standby is self.standby and length > self.pending.index:
            self.cluster.acknowledged = self.log[self.pending.index]
            self._finish(self.pending.answer)

    def cancel_wait(self, late_s: float) -> None:
        """Somebody cancels the wait for the standby: a success, with a warning that is late."""
        if self.pending:
            success = self.pending.answer
            warning = SessionLost("committed, with a warning")
            self._finish(success if self.cluster.warnings_are_success else warning, late_s)

    def _finish(self, answer: Any, late_s: float = 0.0) -> None:
        assert self.pending is not None
        done, self.pending = self.pending, None
        self.visible = done.index
        self.unlock(done.session)
        self.cluster.scheduler.after(late_s, lambda: done.call.answer(answer))

    # ---- faults

    def terminate(self) -> None:
        """All connections break. What is in the log is visible when the node runs again."""
        self.pending, self.lock, self.lock_queue = None, None, []
        for session in self.sessions:
            session.terminate()
        self.sessions = []
        self.visible = len(self.log) - 1


class Cluster:
    """The nodes, and the supervisor that says which one takes writes.

    Attributes:
        late_answers: the share of answers that take long, and often too long.
        leader: the node that the supervisor takes for the primary. Others may think they are it.
        acknowledged: the last state that a COMMIT was acknowledged for.
        cut: pairs of machines that do not reach each other.
        warnings_are_success: a cancelled wait for the standby is reported as a commit.
    """

    warnings_are_success = False

    def __init__(self, scheduler: Scheduler, chance: random.Random, stocks: list[Stock]) -> None:
        self.scheduler = scheduler
        self.chance = chance
        self.cut: set[frozenset[str]] = set()
        self.late_answers = 0.0
        first = State(
            OfficeRow(0, 0, "", True), Registration(0, 0), {stock.name: stock for stock in stocks}
        )
        self.acknowledged = first
        self.nodes = [Node(self, f"node-{number}", first) for number in (1, 2, 3)]
        self.leader = self.nodes[0]
        for node in self.nodes[1:]:
            node.follows = self.leader
        self.leader.standby = self.nodes[1]
        self._unwell_since_s: float | None = None
        self.ttl_s = 1.0
        self.is_supervised = True
        scheduler.after(0.1, self._supervise)

    def reaches(self, one: Machine, other: Machine) -> bool:
        return frozenset((one.name, other.name)) not in self.cut

    # ---- replication

    def send_log(self, primary: Node, follower: Node) -> None:
        delay_s = 0.002 if follower is primary.standby else 0.05
        self.scheduler.after(
            delay_s * (0.5 + self.chance.random()), lambda: self._deliver_log(primary, follower)
        )

    def _deliver_log(self, primary: Node, follower: Node) -> None:
        if not (primary.is_well and follower.is_well and follower.follows is primary):
            return
        if not self.reaches(primary.machine, follower.machine):
            return
        known = len(follower.log)
        # One of another history must be rewound first.
        if primary.log[known - 1 : known] == follower.log[-1:]:
            follower.log += primary.log[known:]
            follower.visible = len(follower.log) - 1
            self._confirm(primary, follower, len(follower.log))

    def _confirm(self, primary: Node, follower: Node, length: int) -> None:
        def arrive() -> None:
            if primary.is_well and self.reaches(primary.machine, follower.machine):
                primary.received(follower, length)

        self.scheduler.after(self.chance.uniform(0.0002, 0.002), arrive)

    # ---- the supervisor

    def _supervise(self) -> None:
        self.scheduler.after(0.2, self._supervise)
        if not self.is_supervised:
            return
        now_s = self.scheduler.now_s
        if self.leader.is_well:
            self._unwell_since_s = None
            self._keep_followers()
        elif self._unwell_since_s is None:
            self._unwell_since_s = now_s
        elif now_s - self._unwell_since_s >= self.ttl_s:
            self.fail_over()

    def fail_over(self) -> None:
        """Promotes the synchronous standby, if it is well. The old primary learns nothing of it."""
        standby = self.leader.standby
        if standby is not None and standby.is_well:
            self.promote(standby)

    def promote(self, node: Node) -> None:
        self._unwell_since_s = None
        self.leader = node
        node.follows = None
        node.standby = None
        node.visible = len(node.log) - 1

    def force_failover(self) -> None:
        """After the primary's end, to any node that has all that was acknowledged."""
        old = self.leader
        for node in self.nodes:
            if node is not old and node.is_well and self.acknowledged in node.log:
                self.crash(old, away_s=self.chance.uniform(0.1, 1.0))
                if old.standby is not None and old.standby is not node:
                    old.standby.follows = node
                self.promote(node)
                return

    def _keep_followers(self) -> None:
        for node in self.nodes:
            if node is not self.leader and node.is_well:
                if node.follows is not self.leader and self.chance.random() < 0.3:
                    self.rejoin(node)
                self.send_log(self.leader, node)
        standby = self.leader.standby
        if standby is None or not (standby.is_well and standby.follows is self.leader):
            self._choose_standby()

    def rejoin(self, node: Node) -> None:
        """Demotes it if it took itself for the primary, and rewinds it."""
        node.terminate()
        node.follows = self.leader
        kept = [
            mine for mine, theirs in zip(node.log, self.leader.log, strict=False) if mine is theirs
        ]
        node.log = kept
        node.visible = len(kept) - 1

    def _choose_standby(self) -> None:
        """Only one that has everything already: it may be promoted from then on."""
        for node in self.nodes:
            follows = node.is_well and node.follows is self.leader
            if follows and node.log[-1] is self.leader.log[-1]:
                self.leader.standby = node
                self.leader.received(node, len(node.log))
                return

    # ---- faults

    def crash(self, node: Node, away_s: float) -> None:
        if node.is_up:
            node.is_up = False
            node.terminate()
            self.scheduler.after(away_s, lambda: self._restart(node))

    def _restart(self, node: Node) -> None:
        node.is_up = True
        if node.follows is not None and self.chance.random() < 0.5:
            node.follows = self.leader if node is not self.leader else None

    def heal(self) -> None:
        self.cut.clear()
        self.is_supervised = True
        for node in self.nodes:
            node.machine.resumes_at_s = 0.0
            node.is_up = True


class Call:
    """One round trip of a session."""

    def __init__(self, session: FakeSession) -> None:
        self._session = session
        self._scheduler = session.cluster.scheduler
        self._task = self._scheduler.task
        self._outcomes: list[Any] = []
        self._is_over = False

    def answer(self, outcome: Any) -> None:
        """Called at the node. The answer arrives later, or never."""
        self._scheduler.after(self._session.answer_delay_s(), lambda: self._arrive(outcome))

    def _arrive(self, outcome: Any) -> None:
        if self._session.is_reached:
            self.end(outcome)

    def end(self, outcome: Any) -> None:
        if not self._is_over:
            self._outcomes.append(outcome)
            self._scheduler.wake(self._task)

    def wait(self) -> Any:
        """Raises SessionLost when the answer does not come in time."""
        try:
            return self._wait()
        finally:
            self._is_over = True

    def _wait(self) -> Any:
        give_up_at_s = self._scheduler.now_s + CLIENT_PATIENCE_S
        while not self._outcomes:
            left_s = give_up_at_s - self._scheduler.now_s
            if left_s <= 0:
                raise SessionLost("late")
            self._scheduler.wait(left_s)
        if isinstance(self._outcomes[0], BaseException):
            raise self._outcomes[0]
        return self._outcomes[0]


class FakeSession:
    """A `Session` of a catalog process with one node, as the real one behaves.

    After a `SessionLost` it may still work: it is the rule of the store not to use it.
    """

    def __init__(self, cluster: Cluster, machine: Machine, node: Node) -> None:
        self.cluster = cluster
        self._machine = machine
        self._node = node
        self._calls: list[Call] = []
        self._is_open = True  # at the node
        self._office: OfficeRow | None = None  # as the open transaction leaves it
        self._transaction = 0
        node.sessions.append(self)

    @property
    def node(self) -> str:
        return self._node.name

    @property
    def is_reached(self) -> bool:
        return self.cluster.reaches(self._machine, self._node.machine)

    # ---- the interface

    def observe(self) -> OfficeRow:
        office: OfficeRow = self._read(lambda state: state.office)
        return office

    def take(self, seen: OfficeRow, beat: int, holder: str) -> bool:
        def locked(call: Call) -> None:
            state = self._node.shown
            if state.office[:2] == seen[:2]:
                taken = OfficeRow(seen.generation + 1, beat, holder, False)
                self._node.commit(self, call, copy_of(state, office=taken), True)
            else:
                self._node.unlock(self)
                call.answer(False)

        return bool(self._call(lambda call: self._node.lock_office(self, lambda: locked(call))))

    def load(self) -> Loaded:
        everything: Loaded = self._read(loaded)
        return everything

    def begin(self, generation: int, beat: int, request_ids: Sequence[str]) -> Opened | None:
        def locked(call: Call) -> None:
            state = self._node.shown
            if may_write(state.office, generation):
                self._office = state.office._replace(beat=beat)
                self._transaction += 1
                self._end_if_idle(self._transaction)
                call.answer(opened(state, request_ids))
            else:
                self._node.unlock(self)
                call.answer(None)

        begun: Opened | None = self._call(
            lambda call: self._node.lock_office(self, lambda: locked(call))
        )
        return begun

    def _end_if_idle(self, transaction: int) -> None:
        def end() -> None:
            if self._transaction == transaction and self._office is not None:
                self.end_at_node()

        self.cluster.scheduler.after(IDLE_IN_TRANSACTION_S, end)

    def commit(self, changes: Changes) -> None:
        def at_node(call: Call) -> None:
            if self._office is None:
                call.answer(SessionLost("no transaction is open"))
                return
            office, self._office = self._office, None
            try:
                state = self._node.shown.with_changes(office, changes)
            except psycopg.Error as error:
                self._node.unlock(self)
                call.answer(error)
            else:
                self._node.commit(self, call, state, None)

        self._call(at_node)

    def roll_back(self) -> None:
        def at_node(call: Call) -> None:
            self._office = None
            self._node.unlock(self)
            call.answer(None)

        self._call(at_node)

    def delete_refusals(self, until_s: float, limit: int) -> int:
        return int(self._read(lambda _state: 0))

    def journal(self, after: int, limit: int) -> list[Order]:
        rows: list[Order] = self._read(lambda state: list(state.orders[after : after + limit]))
        return rows

    def digest_of(self, number: int) -> bytes | None:
        found: bytes | None = self._read(lambda state: digest_of(state, number))
        return found

    def release(self, generation: int, beat: int) -> None:
        if self.begin(generation, beat, ()) is not None and self._office is not None:
            self._office = self._office._replace(released=True)
            self.commit(Changes())

    def close(self) -> None:
        self._send(self.end_at_node)

    # ---- what no store may show: all that the node has

    def every_stock(self) -> Mapping[str, Stock]:
        stocks: Mapping[str, Stock] = self._read(lambda state: state.stocks)
        return stocks

    def count_orders(self) -> int:
        return int(self._read(lambda state: len(state.orders)))

    def find_orders(self, request_ids: Sequence[str]) -> Mapping[str, Order]:
        orders: Mapping[str, Order] = self._read(lambda state: opened(state, request_ids).orders)
        return orders

    # ---- round trips

    def _read(self, read: Callable[[State], Any]) -> Any:
        return self._call(lambda call: call.answer(read(self._node.shown)))

    def _call(self, at_node: Callable[[Call], None]) -> Any:
        """Has it happen at the node, however late, and waits for the answer, but not for ever."""
        call = Call(self)
        self._calls.append(call)

        def arrive() -> None:
            if self._is_open:
                at_node(call)
            else:
                call.answer(SessionLost("the connection is closed"))

        self._send(arrive)
        try:
            return call.wait()
        finally:
            self._calls.remove(call)

    def _send(self, arrive: Callable[[], None], tries: int = 20) -> None:
        """What is cut off or paused gets it later. A network repeats it for a while."""
        scheduler, machine = self.cluster.scheduler, self._node.machine

        def try_to_arrive() -> None:
            if machine.resumes_at_s > scheduler.now_s:
                scheduler.at(machine.resumes_at_s, try_to_arrive)
            elif self.is_reached:
                arrive()
            elif tries > 0:
                scheduler.after(0.2, lambda: self._send(arrive, tries - 1))

        scheduler.after(self.cluster.chance.uniform(0.0002, 0.002), try_to_arrive)

    def answer_delay_s(self) -> float:
        chance = self.cluster.chance
        if chance.random() < self.cluster.late_answers:
            return chance.uniform(0.2, 2.0)
        return chance.uniform(0.0002, 0.002)

    def break_off(self) -> None:
        """The connection breaks; the node goes on with a COMMIT that it has begun."""
        for call in self._calls:
            call.end(SessionLost("broken"))
        self.close()

    def end_at_node(self) -> None:
        """What was not committed is rolled back."""
        self._is_open = False
        self._office = None
        self._node.unlock(self)
        if self in self._node.sessions:
            self._node.sessions.remove(self)

    def terminate(self) -> None:
        """The node is gone, so everything that waits for it fails."""
        self._is_open = False
        self._office = None
        for call in self._calls:
            call.answer(SessionLost("terminated"))


def may_write(office: OfficeRow, generation: int) -> bool:
    """What the first statement of every write transaction looks at."""
    return office.generation == generation


def digest_of(state: State, number: int) -> bytes | None:
    return state.orders[number - 1].digest if number <= len(state.orders) else None


def loaded(state: State) -> Loaded:
    digest = state.orders[-1].digest if state.orders else EMPTY_DIGEST
    stocks = [copy_of(stock) for stock in state.stocks.values()]
    count = len(state.orders)
    return Loaded(state.registration, stocks, count, digest, len(state.refusals), CLUSTER_ID)


def opened(state: State, request_ids: Sequence[str]) -> Opened:
    wanted = set(request_ids)
    return Opened(
        state.registration,
        {one.request_id: one for one in state.orders if one.request_id in wanted},
        {key: one for key, one in state.refusals.items() if key in wanted},
    )
