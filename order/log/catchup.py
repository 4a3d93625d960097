"""Catching up at start: find the leader, pull what this log lacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from common.domain import Order
from common.errors import BourseError, Damaged
from common.pulls import Rows, pull
from common.replicas import ReplicaPeer, ask_all
from order.leadership.node import Node
from order.leadership.replica import Gap
from order.log.ledger import AppendFailed, Ledger
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_ROUNDS = 2


def catch_up(
    node: Node,
    ledger: Ledger,
    peers: Sequence[ReplicaPeer],
    *,
    peer_timeout_s: float,
    pull_timeout_s: float,
    publish: Callable[[Sequence[Order]], None],
    is_stopping: Callable[[], bool],
) -> None:
    """Pulls the rows that the leader has and this log lacks.

    Without a leader, or when the pull breaks off, the replica starts with the log that it has. The
    next leader sends it the rest.

    Raises:
        Damaged: the leader's log contradicts this one.
    """
    leader = _find_leader(node, peers, peer_timeout_s)
    if leader is None:
        logger.info("no leader found, starting with the log up to %d", node.view().position)
        return

    def rows_above(after: int) -> Iterator[Rows]:
        return _until_stopped(pull(leader, "SyncOrderDBBatch", after, pull_timeout_s), is_stopping)

    try:
        ledger.pull(rows_above, publish)
    except Damaged:
        raise
    except (BourseError, AppendFailed, Gap) as error:
        logger.warning("catching up from %s broke off: %s", leader, error)
    else:
        logger.info("caught up with %s, last number %d", leader, node.view().position)


def _until_stopped(chunks: Iterator[Rows], is_stopping: Callable[[], bool]) -> Iterator[Rows]:
    while not is_stopping() and (rows := next(chunks, None)):
        yield rows


def _find_leader(node: Node, peers: Sequence[ReplicaPeer], timeout_s: float) -> ReplicaPeer | None:
    for _ in range(_ROUNDS):
        leaders = [
            (answer.epoch, peer)
            for peer, answer in ask_all(peers, "GetLeader", bourse_pb2.Empty(), timeout_s)
            if not isinstance(answer, BourseError) and answer.leader_id == peer.replica_id
        ]
        if leaders:
            epoch, leader = max(leaders, key=lambda found: found[0])
            node.step(
                lambda replica: replica.hear_of(leader.replica_id, epoch),  # noqa: B023 - called at once
                "found at start",
            )
            return leader
    return None
