"""Pulls rows of a log or of the journal from the part that has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.domain import Order
from common.errors import Damaged, damage_elsewhere
from common.rpc_client import Remote
from common.wire import orders_from_items
from proto import bourse_pb2

# Rows of one call. Each call has its own deadline, so a long pull needs no long deadline.
CHUNK = 1_000


class Rows(NamedTuple):
    """Rows of one log or journal, in order."""

    orders: Sequence[Order]
    cluster_id: str = ""  # of the log or journal; empty if that is not known


def pull(peer: Remote, method: str, after: int, timeout_s: float) -> Iterator[Rows]:
    """The rows above `after`, in order, in chunks, until a call returns fewer than it asked for. A
    leader that trades always has new rows, so this does not wait for the very last one.

    Args:
        method: a stream of `OrderBatch`.
        timeout_s: for each chunk.

    Raises:
        BourseError: the error of a call; never Damaged.
    """
    while (rows := read_rows(peer, method, after, CHUNK, timeout_s)).orders:
        yield rows
        if len(rows.orders) < CHUNK:
            return
        after = rows.orders[-1].number


def read_rows(peer: Remote, method: str, after: int, limit: int, timeout_s: float) -> Rows:
    """At most `limit` rows above `after`. Raises as `pull`."""
    request = bourse_pb2.SyncRequest(last_number=after, limit=limit)
    try:
        batches = list(peer.stream(method, request, timeout_s))
    except Damaged as error:
        raise damage_elsewhere(error) from error
    orders = [order for batch in batches for order in orders_from_items(batch.rows)]
    return Rows(orders, batches[0].cluster_id if batches else "")
