"""Whether this replica's log and the catalog's journal belong together.

A log gets committed orders only, so it is the beginning of the journal, or all of it. If it is
not, one of the two was lost, swapped or put back from a backup. Each of them looks whole by itself,
so the logs of the other replicas must tell which one is wrong. The rules follow. "Other logs" are
those that have orders in them, as far as this replica has seen where they end.

- The catalog denies this log: this replica cannot lead (the fence refuses it) and is not ready,
  until the catalog takes the log for its own.
- The catalog denies a log, but its journal begins with the same order: they are of one service, and
  the catalog lost orders that this log has. No replica that knows of it leads, because order
  numbers would be used twice. That log is kept, even if the catalog confirms all others.
- Else, if more than half of all replicas have logs that the catalog confirms, the log that it
  denies is the wrong one. It is set aside and rebuilt.
- The catalog denies more of the other logs than it confirms: this replica does not lead. Its own
  log can be short or empty, and then contradicts nothing.
- Orders of a log that the catalog denies are served only if something speaks for the log: the
  catalog confirmed it earlier in this life of the process, denies another log as well, or begins
  with the same order.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from common.errors import BourseError, Contradiction
from common.replicas import ReplicaPeer, ask_all
from order.leadership.node import Node
from order.leadership.promotion import WrongCatalog
from proto import bourse_pb2

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_COMPARE_TIMEOUT_S = 0.25
_WAY_OUT = "Which of the two is wrong, and the way out: OPERATIONS.md, Damage and loss"


class Journal(Protocol):
    """The catalog, as far as comparing needs it."""

    def compare(
        self, replica_id: int, last_number: int, digest: bytes, timeout_s: float
    ) -> None: ...

    def first_digest(self, timeout_s: float) -> bytes: ...


class LogEnd(NamedTuple):
    """Where a log ended when it was looked at. Since then it can only have grown."""

    last_number: int
    digest: bytes
    first_digest: bytes  # of its first order; empty if there is none or it was not told


class Verdicts(NamedTuple):
    """What the catalog says of the other replicas' logs."""

    confirmed: int
    denied: int
    prove_loss: bool  # one that is denied begins as the journal does


class LogIdentity:
    """Compares log and journal at the start, and every second from then on.

    Args:
        first_digest: of this log's first order; empty while there is none.
        replica_count: how many replicas there are, this one included.
        on_change: called with False when log and journal turn out not to belong together, and
            with True when they do again.
        on_wrong_log: called once with the reason when it is this log that is wrong.
    """

    def __init__(
        self,
        node: Node,
        journal: Journal,
        peers: Sequence[ReplicaPeer],
        *,
        first_digest: Callable[[], bytes],
        replica_count: int,
        peer_timeout_s: float,
        on_change: Callable[[bool], None],
        on_wrong_log: Callable[[str], None],
    ) -> None:
        self._node = node
        self._journal = journal
        self._peers = tuple(peers)
        self._first_digest = first_digest
        self._replica_count = replica_count
        self._peer_timeout_s = peer_timeout_s
        self._on_change = on_change
        self._on_wrong_log = on_wrong_log
        self._changing = threading.Lock()
        self._denied_because = ""  # empty: nothing is known against this log
        self._has_looked = False
        self._speaks_for_log = False
        self._log_ends: Mapping[int, LogEnd] = {}  # of the other replicas
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="identity", daemon=True)

    @property
    def matches(self) -> bool:
        """False while the catalog denies this log."""
        return not self._denied_because

    @property
    def may_serve_orders(self) -> bool:
        return self._has_looked and (self.matches or self._speaks_for_log)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Compares once. If the catalog cannot be reached, nothing changes."""
        self._ask_peers()
        view = self._node.view()
        try:
            self._compare(view.replica_id, view.position, view.digest, _COMPARE_TIMEOUT_S)
        except Contradiction as denial:
            self.contradicted(denial)
        except BourseError as error:
            logger.debug("cannot compare the log with the catalog's journal: %s", error)
        else:
            self._confirmed(view.position)
        self._has_looked = True

    def contradicted(self, denial: Contradiction) -> None:
        """The catalog, or what came from it, contradicts this log."""
        verdicts, is_kin = self._verdicts_so_far(), self._begins_as_the_journal()
        with self._changing:
            is_news, self._denied_because = self.matches, denial.message
            self._speaks_for_log |= verdicts.denied > 0 or is_kin is True
        if is_news:
            logger.critical(
                "this log and the catalog do not belong together, so this replica does not "
                "lead: %s. %s",
                denial,
                _WAY_OUT,
            )
            self._on_change(False)
        if 2 * verdicts.confirmed > self._replica_count and is_kin is False:
            self._on_wrong_log(f"{denial}; the catalog confirms {verdicts.confirmed} other logs")

    def check_peers(self, timeout_s: float) -> None:
        """Whether this replica may lead, as far as the other replicas' logs tell.

        Args:
            timeout_s: of each question to the catalog.

        Raises:
            WrongCatalog: this is not the catalog of these logs.
            BourseError: it cannot be asked.
        """
        verdicts = self._verdicts(timeout_s)
        if verdicts.prove_loss or verdicts.denied > verdicts.confirmed:
            logger.critical(
                "nobody leads under this catalog: it contradicts the logs of %d other "
                "replicas%s. %s",
                verdicts.denied,
                ", which have orders that it lost" if verdicts.prove_loss else "",
                _WAY_OUT,
            )
            raise WrongCatalog

    def _confirmed(self, position: int) -> None:
        with self._changing:
            is_news, self._denied_because = not self.matches, ""
            self._speaks_for_log |= position > 0
        if is_news:
            logger.warning("this log and the catalog belong together again")
            self._on_change(True)

    def _ask_peers(self) -> None:
        answers = ask_all(self._peers, "Status", bourse_pb2.Empty(), self._peer_timeout_s)
        seen = {
            peer.replica_id: LogEnd(answer.last_number, answer.digest, answer.first_digest)
            for peer, answer in answers
            if not isinstance(answer, BourseError)
        }
        self._log_ends = {**self._log_ends, **seen}

    def _compare(self, replica_id: int, last_number: int, digest: bytes, timeout_s: float) -> None:
        if last_number > 0:
            self._journal.compare(replica_id, last_number, digest, timeout_s)

    def _verdicts_so_far(self) -> Verdicts:
        """None of them, if the catalog cannot be asked; the next look asks again."""
        try:
            return self._verdicts(_COMPARE_TIMEOUT_S)
        except BourseError as error:
            logger.info("cannot compare the other replicas' logs: %s", error)
            return Verdicts(0, 0, prove_loss=False)

    def _verdicts(self, timeout_s: float) -> Verdicts:
        """Raises BourseError if the catalog cannot be asked."""
        ends = {id_: end for id_, end in self._log_ends.items() if end.last_number > 0}
        denied = []
        for replica_id, end in ends.items():
            try:
                self._compare(replica_id, end.last_number, end.digest, timeout_s)
            except Contradiction:
                denied.append(end.first_digest)
        first_digest = self._journal.first_digest(timeout_s) if denied else b""
        prove_loss = first_digest != b"" and first_digest in denied
        return Verdicts(len(ends) - len(denied), len(denied), prove_loss)

    def _begins_as_the_journal(self) -> bool | None:
        """Whether this log has the journal's first order; None if the catalog cannot be asked."""
        try:
            return self._first_digest() == self._journal.first_digest(_COMPARE_TIMEOUT_S)
        except BourseError:
            return None

    def _keep_looking(self) -> None:
        while not self._stopping.wait(_INTERVAL_S):
            try:
                self.look()
            except Exception:
                logger.exception("unexpected error while comparing log and journal")
