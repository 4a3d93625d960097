"""Replication: one loop for each follower keeps its log up with the leader's. No trade waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.domain import Order
from common.errors import BourseError
from common.on_change import OnChange
from common.replicas import ReplicaPeer
from common.wire import order_to_item
from order.leadership.node import Node
from order.leadership.replica import ReplicaView, Role
from order.log.log import OrderLog
from order.loops import Loops
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_MOST_ROWS = 1_000
# From the answer to one message to the next message. Rows that come meanwhile travel together. Each
# message costs leader and follower as much as a trade does, and nobody waits for it.
_BETWEEN_S = 0.1
# A follower is in sync if it has all that was in the leader's log so long ago.
_IN_SYNC_S = 1.0


class Replicator:
    """Sends the rows of a leader's log to its followers.

    A trade does not wait for that: it is durable in the catalog's journal, and a new leader pulls
    from there what its log lacks.
    """

    def __init__(self, node: Node, followers: Sequence[Follower]) -> None:
        self._node = node
        self._followers = followers

    def start(self, loops: Loops) -> None:
        for follower in self._followers:
            loops.start(f"follower-{follower.replica_id}", follower.run, follower.wake)

    def wake(self) -> None:
        """There are new rows in the log."""
        for follower in self._followers:
            follower.wake()

    def in_sync(self) -> list[int]:
        """The ids of the followers in sync; empty while this replica does not lead."""
        view = self._node.view()
        if view.role is not Role.LEADER:
            return []
        return sorted(one.replica_id for one in self._followers if one.is_in_sync(view.epoch))


@dataclass(frozen=True, slots=True)
class _End:
    """Where a log ended at a moment, in an epoch of this leader."""

    epoch: int
    number: int
    at_s: float


class Follower:
    """One follower, as its leader sees it, and the loop that sends it rows.

    A follower that was slow, paused, wiped or has just started is nothing special: its log ends at
    a lower number.

    Args:
        timeout_s: of each message.
        idle_s: how often it is asked where its log ends while there is nothing to send.
    """

    def __init__(
        self,
        peer: ReplicaPeer,
        node: Node,
        log: OrderLog,
        *,
        timeout_s: float,
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replica_id = peer.replica_id
        self._peer = peer
        self._node = node
        self._log = log
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._clock = clock
        self._said: _End | None = None  # its own log, when it last answered
        self._is_ready = True  # if not, it takes the rows by itself, or its log is denied
        self._goal: _End | None = None  # an end of our log that it is to reach next
        self._reached: _End | None = None  # the last goal that it reached
        self._failing = OnChange(logger)
        self._awake = threading.Event()

    def wake(self) -> None:
        self._awake.set()

    def is_in_sync(self, epoch: int) -> bool:
        # Without it, a silent one is called in sync ("in sync by time": test_failure_table.py).
        reached = self._reached
        return (
            reached is not None
            and reached.epoch == epoch
            and self._clock() - reached.at_s <= _IN_SYNC_S
        )

    def run(self, stopping: threading.Event) -> None:
        """For as long as the service runs, whoever leads."""
        while not stopping.is_set():
            self._awake.clear()
            view = self._node.view()
            if view.role is not Role.LEADER:
                self._awake.wait(self._idle_s)
            elif not self._send_guarded(view):
                stopping.wait(self._idle_s)
            elif not stopping.wait(_BETWEEN_S) and not self._has_more():
                self._awake.wait(self._idle_s)

    def _send_guarded(self, view: ReplicaView) -> bool:
        """Whether it was sent something and answered."""
        try:
            self.send(view)
        except BourseError as error:
            self._said = self._reached = None
            self._failing.trouble("%s is not kept in sync: %s", self._peer, error.message)
        except Exception:
            logger.exception("unexpected error while replicating to %s", self._peer)
        else:
            if self._reached:  # one with a full disk answers too, but takes no row
                self._failing.over("%s can be kept in sync again", self._peer)
            return True
        return False

    def send(self, view: ReplicaView) -> None:
        """Sends what it lacks, at most 1,000 rows; nothing, if it is not known what it lacks.

        Raises:
            BourseError: it did not answer, or took nothing.
        """
        if self._goal is None or self._goal.epoch != view.epoch:
            self._goal = _End(view.epoch, view.position, self._clock())
        rows = self._rows(view.epoch)
        batch = batch_of(rows, view, self._log.cluster_id)
        answer = self._peer.call("SyncOrderBatch", batch, self._timeout_s)
        self._said = _End(view.epoch, answer.last_number, self._clock())
        self._is_ready = not answer.catching_up
        if answer.catching_up:
            self._reached = self._goal = None  # the catalog may deny its log, however long it is
        elif answer.last_number >= self._goal.number:
            self._reached, self._goal = self._goal, None
        elif self._reached is not None and answer.last_number < self._reached.number:
            self._reached = None  # its volume was lost

    def _rows(self, epoch: int) -> list[Order]:
        if self._said is None or self._said.epoch != epoch or not self._is_ready:
            return []
        return self._log.rows(self._said.number, _MOST_ROWS)

    def _has_more(self) -> bool:
        view = self._node.view()
        return self._said is not None and self._is_ready and view.position > self._said.number


def batch_of(rows: Sequence[Order], leader: ReplicaView, cluster_id: str) -> bourse_pb2.OrderBatch:
    """Rows as a leader sends them."""
    return bourse_pb2.OrderBatch(
        rows=map(order_to_item, rows),
        leader_id=leader.replica_id,
        epoch=leader.epoch,
        cluster_id=cluster_id,
    )
