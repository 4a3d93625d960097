"""Whether this replica's log and the catalog's journal belong together.

A log gets committed orders only, so it is the beginning of the journal, or all of it. It has the
catalog's cluster id, too. If that is not so, one of the two was lost, swapped or put back from a
backup. Each looks whole by itself, and nobody here can tell which one is wrong. So this replica
serves nothing and leads nothing until they fit again, and nothing is discarded on that ground.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from common.errors import BourseError, Contradiction, Unavailable
from order.leadership.node import Node
from order.log.ledger import Ledger

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_COMPARE_TIMEOUT_S = 0.25


class Journal(Protocol):
    """The catalog, as far as comparing needs it."""

    def compare(
        self, replica_id: int, last_number: int, digest: bytes, cluster_id: str, timeout_s: float
    ) -> str: ...


class LogIdentity:
    """Compares log and journal at the start, and every second from then on.

    Args:
        on_change: called with False when log and journal turn out not to belong together, and
            with True when they do again.
    """

    def __init__(
        self, node: Node, ledger: Ledger, journal: Journal, on_change: Callable[[bool], None]
    ) -> None:
        self._node = node
        self._ledger = ledger
        self._journal = journal
        self._on_change = on_change
        self._changing = threading.Lock()
        self._denial: Contradiction | None = None
        self._has_looked = False

    @property
    def matches(self) -> bool:
        """False while the catalog denies this log."""
        return self._denial is None

    def check_orders(self) -> None:
        """Raises if the orders of this log must not be served.

        Raises:
            Unavailable: the log was not compared yet.
            Contradiction: the catalog denies it.
        """
        if not self._has_looked:
            raise Unavailable("this log was not compared with the catalog yet")
        if denial := self._denial:
            raise Contradiction(denial.message)

    def run(self, stopping: threading.Event) -> None:
        while not stopping.wait(_INTERVAL_S):
            try:
                self.look()
            except Exception:
                logger.exception("unexpected error while comparing log and journal")

    def look(self) -> None:
        """Compares once. If the catalog cannot be reached, nothing changes."""
        try:
            self._compare()
        except Contradiction as denial:
            self.contradicted(denial)
        except BourseError as error:
            logger.debug("cannot compare the log with the catalog's journal: %s", error)
        else:
            self._confirmed()
        self._has_looked = True

    def contradicted(self, denial: Contradiction) -> None:
        """The catalog, or what came from it, contradicts this log."""
        with self._changing:
            is_news, self._denial = self.matches, denial
        if is_news:
            logger.critical(
                "this log and the catalog do not belong together, so this replica serves no "
                "orders and does not lead: %s. Nothing was changed. Bring back the right one: "
                "OPERATIONS.md, Damage and loss",
                denial,
            )
            self._on_change(False)

    def _compare(self) -> None:
        view, cluster_id = self._node.view(), self._ledger.cluster_id
        if view.position == 0:  # an empty log contradicts nothing
            return
        confirmed_by = self._journal.compare(
            view.replica_id, view.position, view.digest, cluster_id, _COMPARE_TIMEOUT_S
        )
        self._ledger.join_cluster(confirmed_by)

    def _confirmed(self) -> None:
        with self._changing:
            is_news, self._denial = not self.matches, None
        if is_news:
            logger.warning("this log and the catalog belong together again")
            self._on_change(True)
