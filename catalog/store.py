"""What the service needs of the catalog's data, whatever database holds it, and its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from catalog.decisions import Decision, Registration
from catalog.leases import Leases
from catalog.stock import Stock
from common.domain import Order, Trade
from common.errors import Contradiction, InvalidRequest

MAX_BATCH = 1_024
MAX_CHUNK = 1_000

REFUSALS_KEPT_S = 24 * 3600
# About 150 MB of them, or 1 GB with the longest names and request ids.
MAX_REFUSALS = 1_000_000


class Fencing(NamedTuple):
    """What came of an attempt to register a leader."""

    accepted: bool
    registered: Registration  # after the attempt


class Store(Protocol):
    """Stocks, journal, refusals and fence, for one term of being the active catalog.

    A term ends when another catalog takes over, and never begins again: the next one is another
    object, with leases of its own. A catalog that has its database for itself has one term for
    ever. Safe for use by several threads.

    Every method raises `NotActive` when the term is over and nothing was done; `Unavailable` when
    the storage fails (nothing is left half done, and nothing is told as done), `Busy` when it does
    not keep up, and `Damaged` when what is stored contradicts itself.
    """

    @property
    def cluster_id(self) -> str:
        """A UUID that the database got when it was made."""

    @property
    def leases(self) -> Leases:
        """Those granted in this term."""

    def check_active(self) -> None:
        """Call it when a read arrives: before a lease is granted, and before anything is read.

        Raises:
            NotActive: another catalog may be active by now, so what is read may be old.
        """

    def lookup(self, name: str) -> Stock | None: ...

    def stocks(self) -> list[Stock]:
        """All stocks, in the order of the file they came from."""

    def registered(self) -> Registration: ...

    def journal(self, after: int, limit: int = MAX_CHUNK) -> list[Order]:
        """The first orders numbered above `after`, at most `limit` and at most MAX_CHUNK."""

    def compare(self, last_number: int, digest: bytes, cluster_id: str = "") -> None:
        """Raises Contradiction if a log that ends so is not a beginning of the journal.

        Args:
            cluster_id: of the log; empty if it has none.
        """

    def fence(
        self,
        epoch: int,
        leader_id: int,
        last_number: int = 0,
        digest: bytes = b"",
        cluster_id: str = "",
    ) -> Fencing:
        """Registers a leader if `epoch` follows the registered one: a compare-and-set.

        Args:
            last_number: of the candidate's log, and its digest; 0 claims nothing.
            cluster_id: of the candidate's log; empty if it has none.

        Raises:
            Contradiction: the log is not a beginning of the journal; nothing was registered.
        """

    def update(self, epoch: int, trades: Sequence[Trade], cluster_id: str = "") -> list[Decision]:
        """Decides the trades in one transaction; one decision for each, in order.

        Args:
            cluster_id: of the catalog that registered the epoch; empty if that is not known.

        Raises:
            StaleEpoch: `epoch` is not the registered one; nothing was decided.
            Contradiction: another catalog registered it; nothing was decided.
            InvalidRequest: there are more than MAX_BATCH trades; nothing was decided.
        """


def check_size(trades: Sequence[Trade]) -> None:
    """Raises InvalidRequest if one transaction must not hold so many."""
    if len(trades) > MAX_BATCH:
        raise InvalidRequest(f"{len(trades)} trades, but a batch holds at most {MAX_BATCH}")


def check_cluster(theirs: str, ours: str) -> None:
    """Raises Contradiction if a log or an epoch belongs to another catalog than this.

    Args:
        theirs: the id of their cluster; empty if they name none.
    """
    if theirs not in ("", ours):
        raise Contradiction(f"the caller is of cluster {theirs}, this catalog of cluster {ours}")


def check_beginning(last_number: int, digest: bytes, found: bytes | None, journal_end: int) -> None:
    """Raises Contradiction unless a log is a beginning of the journal.

    A log takes only committed orders, so it cannot have one that the journal lacks.

    Args:
        last_number: of the log, above 0, and its digest.
        found: the journal's digest up to and with that order; None if it has no such order.
        journal_end: the number of the journal's last order.
    """
    if found is None:
        raise Contradiction(
            f"that log has order {last_number}, this journal ends with {journal_end}"
        )
    if found != digest:
        raise Contradiction(
            f"up to order {last_number} that log has digest {digest.hex()}, "
            f"this journal has {found.hex()}"
        )
