"""A leader with its in-sync set, and followers that are real servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.domain import Order
from common.replicas import ReplicaPeer
from order.leadership.node import Node
from order.log.ledger import Ledger
from order.log.replication import Replicator
from stack.waiting import wait_for
from tests.unit.order.fakes import TIMEOUT_S, Parts, lead, make_rows, open_parts
from tests.unit.order.replicas import RunningReplica, peer_of, running_replica

EPOCH = 3
ROWS = make_rows(10)


class RacingLedger(Ledger):
    """Calls `before` right before the log is locked, and `after` right after its release."""

    before: Callable[[], None] = staticmethod(lambda: None)
    after: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def standing_still(self) -> Iterator[int]:
        self.before()
        with super().standing_still() as position:
            yield position
        self.after()


class Rounds(threading.Event):
    """Limits the rounds of checking a follower: one, and one more after each of `between`."""

    def __init__(self, between: Sequence[Callable[[], object]]) -> None:
        super().__init__()
        self._left: list[Callable[[], object]] = [lambda: None, *between]

    def wait(self, timeout: float | None = None) -> bool:
        if not self._left:
            return True
        self._left.pop(0)()
        return False


@dataclass
class World:
    """Replica 1 leads epoch 3 and has five rows. Replicas 2 and 3 are followers without rows."""

    parts: Parts
    followers: dict[int, RunningReplica]
    peers: list[ReplicaPeer]
    asked: dict[int, list[list[int]]] = field(default_factory=dict)  # what each was sent
    replicators: list[Replicator] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = RacingLedger(self.parts.log, self.parts.node)
        self.replicator = self.make_replicator(self.peers)
        for replica_id, follower in self.followers.items():
            self.asked[replica_id] = []
            follower.servicer.on_rows = self.asked[replica_id].append

    @property
    def node(self) -> Node:
        return self.parts.node

    def make_replicator(
        self, peers: Sequence[ReplicaPeer], timeout_s: float = TIMEOUT_S
    ) -> Replicator:
        replicator = Replicator(
            self.node,
            self.parts.log,
            self.ledger,
            peers,
            replication_timeout_s=timeout_s,
            catch_up_timeout_s=TIMEOUT_S,
            interval_s=0.002,
        )
        self.replicators.append(replicator)
        return replicator

    def wait_in_sync(self, *replica_ids: int) -> None:
        wait_for(
            lambda: self.replicator.in_sync() == list(replica_ids),
            TIMEOUT_S,
            self.replicator.in_sync,
        )

    def settle(self) -> None:
        """Brings both followers in sync. No thread goes on checking them."""
        for peer in self.peers:
            self.look(peer)
        assert self.replicator.in_sync() == [2, 3]
        for sent in self.asked.values():
            sent.clear()

    def look(self, peer: ReplicaPeer, *between: Callable[[], object]) -> None:
        """Checks this follower round by round, as its thread would, but in the test's thread."""
        stopping = self.replicator._stopping
        self.replicator._stopping = Rounds(between)
        try:
            self.replicator._keep_up(peer)
        finally:
            self.replicator._stopping = stopping

    def append(self, count: int = 1) -> list[Order]:
        """Appends rows, as the pipeline does before it replicates."""
        position = self.node.view().position
        return self.ledger.append(ROWS[position : position + count])

    def replicate(self, rows: Sequence[Order]) -> None:
        self.replicator.replicate(rows, self.node.view().epoch)

    def positions(self) -> list[int]:
        return [follower.node.view().position for follower in self.followers.values()]


@contextmanager
def open_world(directory: Path) -> Iterator[World]:
    with ExitStack() as stack:
        parts = stack.enter_context(open_parts(directory / "leader", ROWS[:5]))
        followers = {
            replica_id: stack.enter_context(
                running_replica(directory / str(replica_id), replica_id=replica_id)
            )
            for replica_id in (2, 3)
        }
        peers = stack.enter_context(peer_of(*followers.values()))
        lead(parts.node, EPOCH)
        world = World(parts, followers, peers)
        yield world
        for replicator in world.replicators:
            replicator.stop()
