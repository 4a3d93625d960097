"""Replication: rows to the followers in sync on the trades' path, to the others off it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from common.domain import Order
from common.errors import BourseError
from common.on_change import OnChange
from common.replicas import ReplicaPeer
from common.wire import order_to_item
from order.leadership.node import Node
from order.leadership.replica import Role
from order.log.ledger import Ledger
from order.log.log import OrderLog
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_CATCH_UP_CHUNK = 500


class Replicator:
    """The in-sync set of a leader.

    A follower that does not take a batch in time leaves the set. A thread for this follower sends
    what it lacks and lets it in again. It joins while no row can be appended, so that it misses
    none. Nothing depends on followers being in sync: the catalog's journal has every row.
    """

    def __init__(
        self,
        node: Node,
        log: OrderLog,
        ledger: Ledger,
        peers: Sequence[ReplicaPeer],
        *,
        replication_timeout_s: float,
        catch_up_timeout_s: float,
        interval_s: float,
    ) -> None:
        self._node = node
        self._log = log
        self._ledger = ledger
        self._peers = tuple(peers)
        self._replication_timeout_s = replication_timeout_s
        self._catch_up_timeout_s = catch_up_timeout_s
        self._interval_s = interval_s
        self._changing = threading.Lock()
        self._epoch = 0  # that the in-sync set belongs to
        self._in_sync: dict[int, ReplicaPeer] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._senders = ThreadPoolExecutor(max(1, len(peers) - 1), "replicate")

    def in_sync(self) -> list[int]:
        """The ids of the followers in sync; empty while this replica does not lead."""
        view = self._node.view()
        with self._changing:
            is_current = view.role is Role.LEADER and view.epoch == self._epoch
            return sorted(self._in_sync) if is_current else []

    def replicate(self, rows: Sequence[Order], epoch: int) -> None:
        """Sends rows to every follower in sync at once; returns when all took them or left."""
        members = self._members(epoch)
        if not rows or not members:
            # Maybe nobody is in sync.
            # Without it, no survivor leads ("leading without followers": test_failure_table.py).
            return
        batch = batch_of(rows, self._node.view().replica_id, epoch)
        # This thread sends to one of them, which saves waking another thread.
        sending = [self._senders.submit(self._give, peer, batch) for peer in members[1:]]
        self._give(members[0], batch)
        for sent in sending:
            sent.result()

    def _give(self, peer: ReplicaPeer, batch: bourse_pb2.OrderBatch) -> None:
        try:
            last_number = send_rows(peer, batch, self._replication_timeout_s).last_number
        except BourseError as error:
            self._drop(peer, error.message)
            return
        if last_number < batch.rows[-1].number:
            self._drop(peer, f"its log ends at {last_number}")

    def start(self) -> None:
        for peer in self._peers:
            thread = threading.Thread(
                target=self._keep_up, args=(peer,), name=f"catch-up-{peer.replica_id}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._senders.shutdown()

    def _members(self, epoch: int) -> list[ReplicaPeer]:
        with self._changing:
            return list(self._in_sync.values()) if epoch == self._epoch else []

    def _drop(self, peer: ReplicaPeer, why: str) -> None:
        # Without it, batches wait for the dead ("out of the in-sync set": test_failure_table.py).
        with self._changing:
            if self._in_sync.pop(peer.replica_id, None):
                logger.warning("%s left the in-sync set: %s", peer, why)

    def _is_member(self, peer: ReplicaPeer, epoch: int) -> bool:
        with self._changing:
            return self._epoch == epoch and peer.replica_id in self._in_sync

    def _join(self, peer: ReplicaPeer, epoch: int) -> None:
        with self._changing:
            if epoch > self._epoch:
                self._epoch, self._in_sync = epoch, {}
            if epoch == self._epoch:
                self._in_sync[peer.replica_id] = peer
                logger.info("%s joined the in-sync set of epoch %d", peer, epoch)

    def _keep_up(self, peer: ReplicaPeer) -> None:
        """For as long as the service runs: lets this follower into the set, or out of it.

        A member is asked too. It can die or come back empty while nobody trades, and must not be
        called in sync then.
        """
        unreachable = OnChange(logger)
        owed = 0  # rows that a member must have by now; newer ones may be on their way
        while not self._stopping.wait(self._interval_s):
            view = self._node.view()
            if view.role is not Role.LEADER:
                continue
            try:
                self._bring_up(peer, view.replica_id, view.epoch, owed)
                unreachable.over("%s can be brought up again", peer)
            except BourseError as error:
                self._drop(peer, error.message)
                unreachable.trouble("%s cannot be brought up: %s", peer, error)
            except Exception:
                logger.exception("unexpected error while bringing up %s", peer)
            owed = view.position

    def _bring_up(self, peer: ReplicaPeer, leader_id: int, epoch: int, owed: int) -> None:
        answer = self._send(peer, (), leader_id, epoch)
        last_number = answer.last_number
        if self._is_member(peer, epoch):
            if last_number >= owed:
                return
            self._drop(peer, f"its log ends at {last_number}")
        if answer.catching_up:
            return  # it pulls the same rows itself
        while not self._stopping.is_set() and self._node.view().role is Role.LEADER:
            with self._ledger.standing_still() as position:
                if last_number >= position:
                    self._join(peer, epoch)
                    return
            rows = self._log.rows(last_number, _CATCH_UP_CHUNK)
            last_number = self._send(peer, rows, leader_id, epoch).last_number

    def _send(
        self, peer: ReplicaPeer, rows: Sequence[Order], leader_id: int, epoch: int
    ) -> bourse_pb2.SyncResponse:
        return send_rows(peer, batch_of(rows, leader_id, epoch), self._catch_up_timeout_s)


def batch_of(rows: Sequence[Order], leader_id: int, epoch: int) -> bourse_pb2.OrderBatch:
    """Rows as a leader sends them."""
    return bourse_pb2.OrderBatch(rows=map(order_to_item, rows), leader_id=leader_id, epoch=epoch)


def send_rows(
    peer: ReplicaPeer, batch: bourse_pb2.OrderBatch, timeout_s: float
) -> bourse_pb2.SyncResponse:
    """Sends rows to a replica's log; the answer says where that log ends then.

    Raises:
        BourseError: what the call ended with.
    """
    answer: bourse_pb2.SyncResponse = peer.call("SyncOrderBatch", batch, timeout_s)
    return answer
