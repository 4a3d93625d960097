"""The order logs that a catalog is restored from: copied, verified and compared with each other."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from common.chain import read_cluster_id, verify_chain
from common.domain import ORDER_COLUMNS, Order
from common.errors import Damaged
from common.sqlite import open_to_read


class Unusable(Exception):
    """Why the catalog cannot be restored from what was given."""


@dataclass(frozen=True)
class OrderLog:
    """A copy of a replica's log whose chain is whole."""

    origin: Path
    path: Path
    last_number: int
    digest: bytes
    cluster_id: str  # empty if it has none: an empty log, or one that an earlier version wrote

    def orders(self) -> Iterator[Order]:
        with closing(open_to_read(self.path)) as connection:
            rows = connection.execute(f"SELECT {ORDER_COLUMNS} FROM orders ORDER BY number")  # noqa: S608 - constants
            for row in rows:
                yield Order(*row)

    def digest_of(self, number: int) -> bytes | None:
        with closing(open_to_read(self.path)) as connection:
            sql = "SELECT digest FROM orders WHERE number = ?"
            found = connection.execute(sql, (number,)).fetchone()
        return found[0] if found else None

    def __str__(self) -> str:
        return f"{self.origin} (last number {self.last_number}, digest {self.digest.hex()})"


def copy_log(origin: Path, to: Path) -> OrderLog:
    """Copies a log with its write-ahead log, and verifies the copy.

    The write-ahead log holds the last rows of a killed replica. Nothing is written beside the log.

    Raises:
        Damaged: it is no order log, or its chain is broken.
        OSError: it cannot be copied.
    """
    to.mkdir()
    path = to / "orders.db"
    shutil.copyfile(origin, path)
    ahead = origin.with_name(origin.name + "-wal")
    if ahead.exists():
        shutil.copyfile(ahead, path.with_name(path.name + "-wal"))
    try:
        return OrderLog(origin, path, *verify_chain(path, "orders"), _cluster_id(path))
    except sqlite3.Error as error:
        raise Damaged(str(error)) from error


def _cluster_id(path: Path) -> str:
    with closing(open_to_read(path)) as connection:
        sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'cluster'"
        ((has_table,),) = connection.execute(sql).fetchall()
        return read_cluster_id(connection) if has_table else ""


def longest(logs: Sequence[OrderLog]) -> OrderLog:
    """The longest log, of which every other one must be a beginning.

    If it has no id of a cluster, it gets the one that others have.

    Raises:
        Unusable: two of them contradict each other.
    """
    chosen = max(logs, key=lambda log: log.last_number)
    for log in logs:
        if log.last_number and chosen.digest_of(log.last_number) != log.digest:
            raise Unusable(
                f"these logs are not of one service, their orders up to {log.last_number} "
                f"differ: {log}, {chosen}"
            )
    return replace(chosen, cluster_id=_cluster_of(logs))


def _cluster_of(logs: Sequence[OrderLog]) -> str:
    """The id of the cluster that they are of; empty if none of them has one.

    Raises:
        Unusable: two of them are of different clusters.
    """
    named = [log for log in logs if log.cluster_id]
    for log in named:
        if log.cluster_id != named[0].cluster_id:
            raise Unusable(
                "these logs are not of one service: "
                f"{named[0].origin} is of cluster {named[0].cluster_id}, "
                f"{log.origin} of cluster {log.cluster_id}"
            )
    return named[0].cluster_id if named else ""
