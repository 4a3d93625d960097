"""Write transactions, and what the errors of SQLite mean to a caller."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import Damaged
from common.sqlite import meaning

logger = logging.getLogger(__name__)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: committed, and on disk, when the block is over; else rolled back.

    Raises:
        Unavailable: the storage failed. If it was the COMMIT that failed, whether it is on the
            disk may be known only after a restart.
        Damaged: the database contradicts itself.
    """
    # Without it, half a batch can stay ("one transaction": test_failure_table.py).
    # Without it, an answered trade can be lost ("commit before answer": test_failure_table.py).
    with translated_errors():
        _roll_back(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise


def _roll_back(connection: sqlite3.Connection) -> None:
    # After a full disk or a failed write SQLite has rolled back by itself.
    # If ROLLBACK fails, the next transaction begins by trying it again.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises Unavailable for a failing disk and Damaged for a damaged file; defects stay."""
    try:
        yield
    except sqlite3.Error as error:
        kind = meaning(error)
        if kind is None:
            raise
        what, level = "storage failure", logging.ERROR
        if kind is Damaged:
            what, level = "the catalog's database is damaged", logging.CRITICAL
        logger.log(level, "%s: %s", what, error)
        raise kind(f"{what}: {error}") from error
