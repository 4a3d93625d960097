"""A leader, and followers that really serve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.domain import Order
from common.replicas import ReplicaPeer
from order.leadership.node import Node
from order.log.replication import Follower, Replicator
from order.loops import Loops
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.unit.order.fakes import TIMEOUT_S, Parts, lead, make_rows, open_parts
from tests.unit.order.replicas import RunningReplica, peer_of, running_replica

EPOCH = 3
ROWS = make_rows(10)


@dataclass
class World:
    """Replica 1 leads epoch 3 with five rows; replicas 2 and 3 follow it, with none."""

    parts: Parts
    followers: dict[int, RunningReplica]
    peers: list[ReplicaPeer]
    asked: dict[int, list[list[int]]] = field(default_factory=dict)  # what each was sent
    clock: Clock = field(default_factory=Clock)
    loops: Loops = field(default_factory=Loops)

    def __post_init__(self) -> None:
        self.replicator = self.replicator_with(self.clock)
        for replica_id, follower in self.followers.items():
            self.asked[replica_id] = []
            follower.servicer.on_rows = self.asked[replica_id].append

    @property
    def node(self) -> Node:
        return self.parts.node

    def replicator_with(self, clock: Callable[[], float]) -> Replicator:
        return Replicator(
            self.node,
            [
                Follower(
                    peer,
                    self.node,
                    self.parts.log,
                    timeout_s=TIMEOUT_S,
                    idle_s=0.01,
                    clock=clock,
                )
                for peer in self.peers
            ],
        )

    def loop(self, replica_id: int) -> Follower:
        (found,) = (one for one in self.replicator._followers if one.replica_id == replica_id)
        return found

    def send(self, *replica_ids: int) -> None:
        """One message of the loop to each of them."""
        for replica_id in replica_ids:
            self.loop(replica_id).send(self.node.view())

    def settle(self) -> None:
        """Both followers have everything."""
        self.send(2, 3, 2, 3)
        assert self.positions() == [self.node.view().position] * 2
        for sent in self.asked.values():
            sent.clear()

    def wait_in_sync(self, *replica_ids: int) -> None:
        wait_for(
            lambda: self.replicator.in_sync() == list(replica_ids),
            TIMEOUT_S,
            self.replicator.in_sync,
        )

    def append(self, count: int = 1) -> list[Order]:
        """What the pipeline does before it wakes the loops."""
        position = self.node.view().position
        return self.parts.ledger.append(ROWS[position : position + count])

    def elect_again(self) -> None:
        epoch = self.node.view().epoch
        self.node.step(lambda replica: replica.step_down(epoch))
        lead(self.node, epoch + 2)

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
        world.loops.stop(TIMEOUT_S)
