"""The catalog as a replica sees it: batches, the fence, the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from common.domain import Order, Trade
from common.errors import (
    BourseError,
    Busy,
    Contradiction,
    Damaged,
    Internal,
    KeyReused,
    damage_elsewhere,
)
from common.pulls import Rows, pull
from common.rpc_client import Remote
from common.wire import order_from_item, trade_to_request
from order.trading.queue import TradeAnswer
from proto import bourse_pb2


@dataclass(frozen=True, slots=True)
class Result:
    """What the catalog says of one trade of a batch."""

    outcome: TradeAnswer | BourseError
    row: Order | None  # when done


class Decided(NamedTuple):
    """What the catalog says of a batch."""

    results: Sequence[Result]  # one for each trade, in order
    cluster_id: str = ""  # of the rows in them; empty if that is not known


@dataclass(frozen=True, slots=True)
class FenceAnswer:
    accepted: bool
    epoch: int  # the registered pair
    leader_id: int


class CatalogClient:
    """Calls to the catalog. Every method raises the BourseError that came back.

    Args:
        catalog: one, or several of which one is active.
        pull_timeout_s: for each 1,000 rows.
    """

    def __init__(
        self,
        catalog: Remote,
        pull_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._updates = catalog.conversation("Updates", "UpdateBatch")
        self._pull_timeout_s = pull_timeout_s
        self._clock = clock
        self._registered_by = ""  # the cluster of the catalog that registered this process

    def update_batch(self, epoch: int, trades: Sequence[Trade], timeout_s: float) -> Decided:
        """Has a batch decided. For one thread at a time.

        Raises:
            StaleEpoch: the epoch is not the registered one; this copy decided nothing.
            Contradiction: another catalog registered the epoch; this copy decided nothing.
            BourseError: anything else leaves the batch in doubt.
        """
        request = bourse_pb2.UpdateBatchRequest(
            epoch=epoch, trades=map(trade_to_request, trades), cluster_id=self._registered_by
        )
        try:
            answer = self._updates.ask(request, timeout_s)
        except Contradiction:
            raise
        except Damaged as error:
            raise damage_elsewhere(error) from error
        if len(answer.results) != len(trades):
            raise Internal(f"{len(answer.results)} results for {len(trades)} trades")
        now = self._clock()
        return Decided([_result(message, now) for message in answer.results], answer.cluster_id)

    def fence(
        self,
        epoch: int,
        leader_id: int,
        timeout_s: float,
        last_number: int = 0,
        digest: bytes = b"",
        *,
        cluster_id: str = "",
    ) -> FenceAnswer:
        """Asks to have an epoch registered for this process.

        Raises:
            Contradiction: a log of that cluster that ends so is not a beginning of the catalog's
                journal.
            BourseError: anything else leaves it unknown whether it was registered.
        """
        request = bourse_pb2.FenceRequest(
            epoch=epoch,
            leader_id=leader_id,
            last_number=last_number,
            digest=digest,
            cluster_id=cluster_id,
        )
        answer = self._catalog.call("Fence", request, timeout_s)
        if answer.accepted:
            self._registered_by = answer.cluster_id
        return FenceAnswer(answer.accepted, answer.epoch, answer.leader_id)

    def compare(
        self, replica_id: int, last_number: int, digest: bytes, cluster_id: str, timeout_s: float
    ) -> str:
        """The catalog's cluster id, if that replica's log is a beginning of its journal.

        Raises:
            Contradiction: it is not.
            BourseError
        """
        request = bourse_pb2.CompareRequest(
            replica_id=replica_id, last_number=last_number, digest=digest, cluster_id=cluster_id
        )
        answer: bourse_pb2.CompareResponse = self._catalog.call("Compare", request, timeout_s)
        return answer.cluster_id

    def journal(self, after: int) -> Iterator[Rows]:
        """The rows above `after`, in order, in chunks. Each chunk has the timeout to itself."""
        return pull(self._catalog, "Journal", after, self._pull_timeout_s)


def _result(message: bourse_pb2.UpdateResponse, now: float) -> Result:
    if message.failure == bourse_pb2.UpdateResponse.MISMATCH:
        return Result(KeyReused(), None)
    if message.failure == bourse_pb2.UpdateResponse.FULL:
        return Result(Busy("no more refusals can be recorded"), None)
    if message.failure != bourse_pb2.UpdateResponse.NONE:
        return Result(Internal(), None)
    row = order_from_item(message.row) if message.HasField("row") else None
    answer = TradeAnswer(
        status=message.status,
        number=message.transaction_number,
        version=row.version if row else 0,
        lease_ms=message.lease_ms,
        decided_at_s=now,
        replayed=message.replayed,
    )
    return Result(answer, row)
