"""Makes the tables, and brings those of an earlier version to this one: `schema/` has the steps."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from catalog.decisions import Registration
from catalog.postgres.address import Address, first_line
from catalog.postgres.audit import LOADING, loaded
from catalog.postgres.bounded import Bounded
from catalog.postgres.session import Loaded, SessionLost
from catalog.postgres.statements import SAVE_REGISTRATION, VERSION, sealed
from catalog.stock import Stock
from common.chain import seal
from common.domain import ORDER_COLUMNS, Order, order_values

SCHEMA = Path(__file__).with_name("schema")

# For one statement. A step can rewrite a large table.
_STATEMENT_S = 3600.0
# Of the COMMIT, for a standby to confirm it.
_COMMIT_S = 60.0
# For a lock: an active catalog has it for milliseconds.
_LOCK_S = 10

_SESSION: Mapping[str, str] = {
    "synchronous_commit": "on",
    "client_min_messages": "warning",
    "lock_timeout": f"{_LOCK_S}s",
    "idle_in_transaction_session_timeout": "10min",  # what is written is made by this process
}

_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY relname
"""
_HAS_OFFICE = "SELECT to_regclass('office') IS NOT NULL"
# Not released: who was active may answer lookups until the time of its last beat is over.
_FENCE_OFF = """
UPDATE office
SET generation = generation + 1, beat = %s, holder = 'migrate', released = false,
    schema_version = %s
"""


class CannotChange(Exception):
    """Why the database was left as it was."""


class InDoubt(Exception):
    """The COMMIT was not confirmed: the database is as it was, or wholly changed."""


@contextmanager
def changing(address: Address) -> Iterator[Bounded]:
    """A transaction on a node that takes writes: all of it, or nothing.

    Raises:
        CannotChange: nothing was changed.
        InDoubt
    """
    try:
        connection = address.connect_any(_SESSION, _STATEMENT_S)
    except SessionLost as error:
        raise CannotChange(error.message) from error
    warnings: list[str] = []
    try:
        connection.execute("BEGIN")
        yield connection
    except psycopg.Error as error:
        connection.close()
        raise CannotChange(first_line(error)) from error
    except BaseException:
        connection.close()
        raise
    connection.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
    connection.allow(_COMMIT_S)
    try:
        ended = connection.execute("COMMIT").statusmessage
    except psycopg.Error as error:
        raise InDoubt(first_line(error)) from error
    finally:
        connection.close()
    if warnings or ended != "COMMIT":
        raise InDoubt("; ".join(warnings) or f"the server answered {ended}")


def create(
    connection: Bounded,
    stocks: Sequence[Stock],
    registration: Registration,
    cluster_id: str = "",
) -> None:
    """Makes the tables in an empty database, in an open transaction.

    Args:
        stocks: as they were before the first trade.
        cluster_id: the one that order logs have already; empty for a new one.

    Raises:
        CannotChange: the database is not empty.
    """
    found = [name for (name,) in connection.execute(_TABLES).fetchall()]
    if found:
        raise CannotChange(f"the database is not empty, it has: {', '.join(found)}")
    for _, path in steps():
        connection.execute(_statements(path), prepare=False)
    cluster_id = cluster_id or str(uuid.uuid4())
    connection.execute(
        "INSERT INTO office VALUES (1, 0, %s, '', true, %s, %s, %s, %s, %s, %s)",
        (_beat(), *sealed(registration), VERSION, cluster_id, seal(cluster_id)),
    )
    _add_stocks(connection, stocks)


def _add_stocks(connection: Bounded, stocks: Sequence[Stock]) -> None:
    with connection.cursor().copy("COPY stocks FROM STDIN") as copy:
        for place, stock in enumerate(stocks, start=1):
            cents = int(stock.price * 100)
            first = (stock.name, cents, stock.volume)
            copy.write_row((place, *first, stock.version, stock.volume, seal(*first)))


def add_orders(connection: Bounded, orders: Iterable[Order]) -> None:
    """Adds rows to the journal, in an open transaction."""
    connection.allow(_STATEMENT_S)
    with connection.cursor().copy(f"COPY journal ({ORDER_COLUMNS}) FROM STDIN") as copy:
        for order in orders:
            copy.write_row(order_values(order))


def save(connection: Bounded, stocks: Iterable[Stock], registration: Registration) -> None:
    """Writes volumes and versions, and the fence, in an open transaction."""
    connection.allow(_STATEMENT_S)
    sql = "UPDATE stocks SET volume = %s, version = %s WHERE name = %s"
    after = [(stock.volume, stock.version, stock.name) for stock in stocks]
    connection.cursor().executemany(sql, after)
    connection.execute(SAVE_REGISTRATION, sealed(registration))


def load(connection: Bounded) -> Loaded:
    """What an open transaction sees, audited.

    Raises:
        Damaged: it contradicts itself.
    """
    connection.allow(_STATEMENT_S)
    return loaded(*[connection.execute(sql, values or None).fetchall() for sql, values in LOADING])


def migrate(connection: Bounded, folder: Path = SCHEMA) -> tuple[int, int]:
    """From an earlier version to this one, in an open transaction. No catalog is active after it.

    Returns:
        The versions before and after; they are one if there was nothing to do, and then nothing
        was done.

    Raises:
        CannotChange: there is no catalog in the database, or one of a later version.
    """
    if connection.execute(_HAS_OFFICE).fetchone() != (True,):
        raise CannotChange("this database has no catalog: `python -m catalog init` makes one")
    # Whoever is active waits, and finds the generation raised.
    ((before,),) = connection.execute("SELECT schema_version FROM office FOR UPDATE").fetchall()
    after = steps(folder)[-1][0]
    if before > after:
        raise CannotChange(f"it has schema version {before}, but this catalog knows {after} only")
    if before == after:
        return before, after
    for version, path in steps(folder):
        if version > before:
            connection.execute(_statements(path), prepare=False)
    # A catalog of the old version that is active finds another generation, and stops.
    connection.execute(_FENCE_OFF, (_beat(), after))
    return before, after


def steps(folder: Path = SCHEMA) -> list[tuple[int, Path]]:
    """The files with the version that each leads to, in their order."""
    return [(int(path.name.partition("_")[0]), path) for path in sorted(folder.glob("*.sql"))]


def _statements(path: Path) -> str:
    return path.read_text("utf-8")


def _beat() -> int:
    return secrets.randbits(63)
