"""Trades and orders, the same for all services: their limits, and the hash chain of orders."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from operator import attrgetter

BUY = "BUY"
SELL = "SELL"

# h₀ of the hash chain: the digest of an empty log.
EMPTY_DIGEST = bytes(32)

# Values travel through Redis scripts, whose numbers are doubles.
MAX_VOLUME = 2**53 - 1
MAX_QUANTITY = 1_000_000_000
MAX_NAME_LENGTH = 64
MAX_REQUEST_ID_LENGTH = 255
MAX_ORDER_NUMBER = 2**63 - 1
MAX_EPOCH = 2**62  # far below the largest int64, so there is always a next epoch

# Of one `TradeBatch`.
MAX_TRADES_PER_CALL = 64

_REQUEST_ID = re.compile(f"[!-~]{{1,{MAX_REQUEST_ID_LENGTH}}}")

# For how long the catalog lets a stock be cached: its lease (Gray and Cheriton, "Leases", 1989).
# A constant of the protocol, not a setting: catalog and cache must agree.
LEASE_MS = 5_000

# How long a cached value lives, on Redis's clock: shorter than the lease, because clocks differ in
# rate, by 1 % either way at most. Where Redis's is slow, the value lives 4,850 / 0.99 = 4,899 ms.
# Where those that time the lease are fast, it ends after 5,000 / 1.01 = 4,950 ms.
ENTRY_MS = 4_850

# Where the leader publishes which stocks changed, as JSON: [["stock1", 7], …], newest versions.
INVALIDATION_CHANNEL = "bourse:invalidations"


# The fields of a row that its digest covers, in the order in which it frames them.
FRAMED_FIELDS = ("number", "request_id", "name", "type", "quantity", "version", "epoch")
_framed_fields = attrgetter(*FRAMED_FIELDS)
# A whole order as every database keeps it, in the order of these columns.
ORDER_FIELDS = (*FRAMED_FIELDS, "digest")
ORDER_COLUMNS = ", ".join(ORDER_FIELDS)
order_values = attrgetter(*ORDER_FIELDS)


@dataclass(frozen=True, slots=True)
class Order:
    """One executed trade: a row of the journal. It never changes once committed."""

    number: int
    request_id: str
    name: str
    type: str
    quantity: int
    version: int  # of the stock, after this trade
    epoch: int  # of the leader that had it committed
    digest: bytes = b""  # of the log up to and with this row

    def __str__(self) -> str:
        return f"#{self.number} {self.type} {self.quantity} {self.name} (v{self.version})"


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade that somebody asks for. Nothing in it has been checked.

    The request id is its idempotency key: the catalog decides each id once, for ever.
    """

    request_id: str
    name: str
    type: str
    quantity: int

    def is_well_formed(self) -> bool:
        return (
            is_valid_request_id(self.request_id)
            and is_valid_name(self.name)
            and self.type in (BUY, SELL)
            and is_valid_quantity(self.quantity)
        )

    def __str__(self) -> str:
        return f"{self.type} {self.quantity} {self.name}"


def next_digest(previous: bytes, order: Order) -> bytes:
    """hₙ = SHA-256(hₙ₋₁ ‖ the fields of row n, each prefixed by its length in bytes)."""
    texts = map(str, _framed_fields(order))
    frame = "".join([f"{len(text.encode())}:{text}," for text in texts])
    return hashlib.sha256(previous + frame.encode()).digest()


# The same frame of a stored row, as an SQL expression over the columns of those names.
FRAME_SQL = "CAST(printf('{}', {}) AS BLOB)".format(
    "%d:%s," * len(FRAMED_FIELDS),
    ", ".join(f"length(CAST({field} AS BLOB)), {field}" for field in FRAMED_FIELDS),
)


def is_valid_name(name: object) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= MAX_NAME_LENGTH and name.isprintable()


def is_valid_quantity(quantity: object) -> bool:
    return type(quantity) is int and 1 <= quantity <= MAX_QUANTITY


def is_valid_request_id(request_id: object) -> bool:
    """1 to 255 visible ASCII characters."""
    return isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id) is not None
