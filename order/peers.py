"""The other replicas, as this one sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.records import Order, order_from_item, order_to_item
from common.replicas import PendingAnswer, ReplicaPeer
from proto import bourse_pb2

_CHUNK = 1_000


def send_rows(
    peer: ReplicaPeer, rows: Sequence[Order], leader_id: int, epoch: int, timeout_s: float
) -> PendingAnswer:
    """Starts sending rows to a replica's log; the answer says where that log ends then."""
    batch = bourse_pb2.OrderBatch(
        rows=[order_to_item(row) for row in rows], leader_id=leader_id, epoch=epoch
    )
    return peer.start("SyncOrderBatch", batch, timeout_s)


def pull_rows(peer: ReplicaPeer, after: int, timeout_s: float) -> Iterator[list[Order]]:
    """The rows of a replica's log above `after`, in order, in chunks.

    Raises:
        BourseError: what the call ended with.
    """
    chunk: list[Order] = []
    for item in peer.stream("SyncOrderDB", bourse_pb2.SyncRequest(last_number=after), timeout_s):
        chunk.append(order_from_item(item))
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
