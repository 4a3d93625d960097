"""The other replicas, as this one sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.domain import Order
from common.pulls import pull
from common.replicas import ReplicaPeer
from common.wire import order_to_item
from proto import bourse_pb2


def batch_of(rows: Sequence[Order], leader_id: int, epoch: int) -> bourse_pb2.OrderBatch:
    """Rows as a leader sends them."""
    return bourse_pb2.OrderBatch(
        rows=[order_to_item(row) for row in rows], leader_id=leader_id, epoch=epoch
    )


def send_rows(
    peer: ReplicaPeer, batch: bourse_pb2.OrderBatch, timeout_s: float
) -> bourse_pb2.SyncResponse:
    """Sends rows to a replica's log; the answer says where that log ends then.

    Raises:
        BourseError: what the call ended with.
    """
    answer: bourse_pb2.SyncResponse = peer.call("SyncOrderBatch", batch, timeout_s)
    return answer


def pull_rows(peer: ReplicaPeer, after: int, timeout_s: float) -> Iterator[list[Order]]:
    """The rows of a replica's log above `after`: see `common.pulls.pull`."""
    return pull(peer, "SyncOrderDBBatch", after, timeout_s)
