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
        Unavailable: the storage failed. A failed COMMIT is told as this too: whether it is on
            disk may only be known after a restart.
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
    # A full disk or a failed write makes SQLite roll back by itself: then there is nothing to do.
    # A ROLLBACK that fails leaves its transaction to the next one, which begins with it.
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
        what = "the catalog's database is damaged" if kind is Damaged else "storage failure"
        logger.error("%s: %s", what, error)
        raise kind(f"{what}: {error}") from error
