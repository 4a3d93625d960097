"""The other replicas, as this one sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.domain import Order
from common.errors import BourseError
from common.replicas import ReplicaPeer
from common.wire import order_to_item, orders_from_items
from order.trading.catalog_client import CHUNK, not_here
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
    """The rows of a replica's log above `after`, in order, in chunks, up to where it ends when
    that is reached: of a leader that trades there would always be one more.

    Args:
        timeout_s: for each chunk.

    Raises:
        BourseError: what a call ended with.
    """
    while rows := _pull_chunk(peer, after, timeout_s):
        yield rows
        if len(rows) < CHUNK:
            return
        after = rows[-1].number


def _pull_chunk(peer: ReplicaPeer, after: int, timeout_s: float) -> list[Order]:
    request = bourse_pb2.SyncRequest(last_number=after, limit=CHUNK)
    try:
        chunks = peer.stream("SyncOrderDBBatch", request, timeout_s)
        return [order for chunk in chunks for order in orders_from_items(chunk.rows)]
    except BourseError as error:
        raise not_here(error) from error
