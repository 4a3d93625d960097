"""What a term needs of one connection to one database node, and what the two exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import psycopg

from catalog.decisions import Refusal, Registration
from catalog.stock import Stock
from common.domain import Order
from common.errors import Unavailable

# PostgreSQL refused a statement for its data. It was rolled back, and the session goes on.
DATA_ERRORS = (psycopg.DataError, psycopg.IntegrityError)


class SessionLost(Unavailable):
    """The connection broke or was late, or nobody can say whether a COMMIT took effect.

    The session is of no more use.
    """

    default_message = "the connection to the database was lost"


class OfficeRow(NamedTuple):
    """The row that says which catalog is active."""

    generation: int  # raised by each takeover
    beat: int  # random, fresh at each write, 63 bits
    holder: str  # a name for people
    released: bool  # its holder left of its own accord


class Loaded(NamedTuple):
    """What a new term begins with, read after its compare-and-set."""

    registration: Registration
    stocks: list[Stock]  # in the order of the stock file
    last_number: int
    digest: bytes
    refusals: int  # how many are recorded
    cluster_id: str


class Opened(NamedTuple):
    """A write transaction that has begun: the office's row is locked and has a new beat."""

    registration: Registration
    orders: Mapping[str, Order]  # earlier decisions of the request ids asked for
    refusals: Mapping[str, Refusal]


class Changes(NamedTuple):
    """All that a transaction writes beside the beat; it may be nothing."""

    orders: Sequence[Order] = ()
    stocks: Sequence[Stock] = ()  # those that changed, each once, as they are after the batch
    refusals: Sequence[tuple[str, Refusal]] = ()  # by request id
    now_s: float = 0.0  # the wall clock, kept with the refusals
    registration: Registration | None = None  # of a fence that was accepted


class Session(Protocol):
    """One connection for writing, and one for reading beside it, to the same node.

    Every wait has a bound. Every method raises `SessionLost`. `begin` and `commit` also raise what
    is in `DATA_ERRORS`.
    """

    @property
    def node(self) -> str:
        """`host:port`, for the log."""

    def observe(self) -> OfficeRow:
        """The office as this node shows it: a plain read."""

    def take(self, seen: OfficeRow, beat: int, holder: str) -> bool:
        """Makes a new generation, if the office's generation and beat are those that were seen.

        Returns:
            True when the COMMIT was acknowledged; False when the row is not as seen any more.
        """

    def load(self) -> Loaded:
        """The state of the catalog, its last orders checked. Call it after `take`.

        Raises:
            Damaged: what is stored contradicts itself.
        """

    def begin(self, generation: int, beat: int, request_ids: Sequence[str]) -> Opened | None:
        """Begins a transaction with a new beat, in one round trip.

        Returns:
            None, and nothing is open, when the office is of another generation.
        """

    def commit(self, changes: Changes) -> None:
        """Writes and commits, in one round trip. Returns when the COMMIT was acknowledged.

        A success with a warning is a `SessionLost`: the wait for the standby was cancelled.
        """
        # Without it, what was told is lost ("a warning is a doubt": test_takeovers.py).

    def roll_back(self) -> None:
        """Does nothing if no transaction is open."""

    def delete_refusals(self, until_s: float, limit: int) -> int:
        """Deletes the oldest up to that time, inside an open transaction; returns how many."""

    def journal(self, after: int, limit: int) -> list[Order]:
        """The first orders numbered above `after`, at most `limit`. Safe beside a transaction."""

    def digest_of(self, number: int) -> bytes | None:
        """The journal's digest up to and with that order. Safe beside a transaction."""

    def release(self, generation: int, beat: int) -> None:
        """Says in the office's row that its holder left, if it is of that generation."""

    def close(self) -> None: ...
