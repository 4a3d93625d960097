"""Pulling the rows of a log or of the journal from the part that has them."""

from __future__ import annotations

from collections.abc import Iterator

from common.domain import Order
from common.errors import Damaged, damage_elsewhere
from common.rpc_client import Peer
from common.wire import orders_from_items
from proto import bourse_pb2

# Rows of one call: few enough that a pull moves on visibly, and each has a deadline to itself.
CHUNK = 1_000


def pull(peer: Peer, method: str, after: int, timeout_s: float) -> Iterator[list[Order]]:
    """The rows above `after`, in order, in chunks, up to where they end when that is reached:
    of a leader that trades there would always be one more.

    Args:
        method: a stream of `OrderBatch`.
        timeout_s: for each chunk.

    Raises:
        BourseError: what a call ended with; never Damaged.
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
