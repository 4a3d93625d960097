"""Write transactions, and what the errors of SQLite mean to a caller."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import Damaged, Unavailable

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
    """Tells a failing disk and a damaged file from defects, which stay what they are."""
    try:
        yield
    except sqlite3.OperationalError as error:
        logger.error("storage failure: %s", error)
        raise Unavailable(f"storage failure: {error}") from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:
            raise  # a broken constraint or a misuse
        logger.critical("the database is damaged: %s", error)
        raise Damaged(f"the catalog's database is damaged: {error}") from error
