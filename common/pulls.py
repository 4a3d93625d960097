"""Pulls rows of a log or of the journal from the part that has them."""

from __future__ import annotations

from collections.abc import Iterator

from common.domain import Order
from common.errors import Damaged, damage_elsewhere
from common.rpc_client import Peer
from common.wire import orders_from_items
from proto import bourse_pb2

# Rows of one call. Each call has its own deadline, so a long pull needs no long deadline.
CHUNK = 1_000


def pull(peer: Peer, method: str, after: int, timeout_s: float) -> Iterator[list[Order]]:
    """The rows above `after`, in order, in chunks, until a call returns fewer than it asked for. A
    leader that trades always has new rows, so this does not wait for the very last one.

    Args:
        method: a stream of `OrderBatch`.
        timeout_s: for each chunk.

    Raises:
        BourseError: the error of a call; never Damaged.
    """
    while rows := read_rows(peer, method, after, CHUNK, timeout_s):
        yield rows
        if len(rows) < CHUNK:
            return
        after = rows[-1].number


def read_rows(peer: Peer, method: str, after: int, limit: int, timeout_s: float) -> list[Order]:
    """At most `limit` rows above `after`. Raises as `pull`."""
    request = bourse_pb2.SyncRequest(last_number=after, limit=limit)
    try:
        batches = peer.stream(method, request, timeout_s)
        return [order for batch in batches for order in orders_from_items(batch.rows)]
    except Damaged as error:
        raise damage_elsewhere(error) from error
