"""Reads of orders: from any replica's log, or from the catalog's journal if no log has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from common.errors import BourseError, Contradiction, Unavailable
from common.replicas import ReplicaPeer
from frontend.model import OrderView
from proto import bourse_pb2

logger = logging.getLogger(__name__)


class Journal(Protocol):
    def journal_row(self, number: int) -> OrderView | None:
        """Raises Unavailable if the catalog does not answer."""


class OrderReads:
    """Looks up orders.

    An order never changes, so a replica that has it is right. Logs can lag behind, so only the
    journal can say that an order does not exist. A replica serves none while its log and the
    catalog contradict each other. If that is all that the replicas say, the journal is not believed
    either: it may be the catalog that is wrong.

    The replica that answered last is asked first. A silent one costs each reader one timeout.
    """

    def __init__(
        self, peers: Sequence[ReplicaPeer], journal: Journal, replica_timeout_s: float
    ) -> None:
        self._peers = tuple(peers)
        self._journal = journal
        self._replica_timeout_s = replica_timeout_s
        self._preferred = 0

    def order(self, number: int) -> OrderView | None:
        """The order, or None if there is no such order.

        Raises:
            Unavailable: no replica that answers has it, and the catalog does not answer, or
                contradicts the logs.
        """
        asked, order = self._ask_replicas(self._in_turn(), until_answered=True, number=number)
        if order is not None:
            return order
        try:
            return self._journal.journal_row(number)
        except Unavailable:
            others = [peer for peer in self._in_turn() if peer not in asked]
            _, order = self._ask_replicas(others, until_answered=False, number=number)
            if order is None:
                raise
            return order

    def _in_turn(self) -> list[ReplicaPeer]:
        first = self._preferred
        return [*self._peers[first:], *self._peers[:first]]

    def _ask_replicas(
        self, peers: Sequence[ReplicaPeer], *, until_answered: bool, number: int
    ) -> tuple[list[ReplicaPeer], OrderView | None]:
        """Asks one after the other until one has the order, or only until one answers."""
        asked: list[ReplicaPeer] = []
        is_contradicted = False
        request = bourse_pb2.OrderLookupRequest(number=number)
        for peer in peers:
            asked.append(peer)
            try:
                answer = peer.call("OrderLookup", request, self._replica_timeout_s)
            except BourseError as error:
                logger.info("%s cannot be read: %s", peer, error.message)
                is_contradicted |= isinstance(error, Contradiction)
                continue
            self._preferred = self._peers.index(peer)
            if answer.status == 1:
                trade_type = bourse_pb2.TradeType.Name(answer.type)
                return asked, OrderView(answer.number, answer.name, trade_type, answer.quantity)
            if until_answered:
                return asked, None
        if is_contradicted:
            raise Unavailable("the catalog and the order logs contradict each other")
        return asked, None
