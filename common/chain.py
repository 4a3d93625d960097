"""The hash chain of a whole table of rows, verified fast; and seals of what is in no chain."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import NamedTuple

from common.domain import EMPTY_DIGEST, FRAME_SQL, ORDER_COLUMNS, Order, next_digest
from common.errors import Damaged
from common.sqlite import open_to_read

_CHUNK = 2_000
_READERS = 2
# No valid row has this character, so it separates the frames.
_SEPARATOR = b"\0"


class _Chunk(NamedTuple):
    frames: bytes | None  # None: there is no row in this range
    digests: bytes
    shortest_digest: int
    last_number: int

    def continues(self, number: int, digest: bytes) -> bytes | None:
        """The last row's digest, if these are the rows that follow that number and digest."""
        sha256 = hashlib.sha256
        after = []
        for frame in (self.frames or b"").split(_SEPARATOR):
            digest = sha256(digest + frame).digest()
            after.append(digest)
        is_whole = (
            self.last_number == number + len(after)
            and self.shortest_digest == len(digest)
            and self.digests == b"".join(after)
        )
        return digest if is_whole else None


def seal(*values: str | int) -> bytes:
    """The digest of values that are in no chain, kept beside them."""
    return hashlib.sha256(repr(values).encode()).digest()


def read_cluster_id(connection: sqlite3.Connection) -> str:
    """The id in the table `cluster` of a database; empty if it has none.

    Raises:
        Damaged: it is not the id that was written.
    """
    found = connection.execute("SELECT seal, id FROM cluster").fetchall()
    if not found:
        return ""
    # Another cluster's log is kept as it is, but a damaged one is rebuilt.
    if [kept == seal(cluster_id) for kept, cluster_id in found] != [True]:
        raise Damaged("the cluster's id is not the one it had")
    return str(found[0][1])


def _nothing() -> None:
    pass


def verify_chain(path: Path, table: str, check: Callable[[], None] = _nothing) -> tuple[int, bytes]:
    """Verifies that the rows of a table are numbered from 1 and that each continues the chain.

    SQLite frames the rows, in threads of its own, and Python hashes them. If something seems wrong,
    the rows are checked again one by one. Only that decides.

    Args:
        table: has a column for each field of an `Order`; `number` is its primary key.
        check: called again and again. If it raises, the verifying ends.

    Returns:
        The last row's number and digest.

    Raises:
        Damaged: a row is missing, or does not continue the chain; the message says which.
        sqlite3.Error: the table cannot be read.
    """
    number, digest = 0, EMPTY_DIGEST
    for chunk in _chunks(path, table):
        check()
        after = chunk.continues(number, digest)
        if after is None:
            return _verify_each_row(path, table, check)
        number, digest = chunk.last_number, after
    with closing(open_to_read(path)) as connection:
        first_and_last = connection.execute(
            f"SELECT ifnull(min(number), 1), ifnull(max(number), 0) FROM {table}"  # noqa: S608 - ours
        ).fetchone()
    if first_and_last != (1, number):
        return _verify_each_row(path, table, check)
    return number, digest


def _chunks(path: Path, table: str) -> Iterator[_Chunk]:
    """The rows from number 1 on, up to the first range that has none. Some are read ahead.

    SQLite concatenates the rows in the order in which it reads them, but does not promise that.
    Another order would only make it check the rows again, one by one.
    """
    sql = (
        f"SELECT CAST(group_concat({FRAME_SQL}, char(0)) AS BLOB),"  # noqa: S608 - constants
        " CAST(group_concat(digest, '') AS BLOB), min(length(digest)), max(number)"
        f" FROM {table} WHERE number > ? AND number <= ?"
    )

    def read(connection: sqlite3.Connection, after: int) -> _Chunk:
        return _Chunk(*connection.execute(sql, (after, after + _CHUNK)).fetchone())

    with ExitStack() as stack:
        connections = [stack.enter_context(closing(open_to_read(path))) for _ in range(_READERS)]
        pool = stack.enter_context(ThreadPoolExecutor(_READERS, thread_name_prefix="frames"))
        starts = count(0, _CHUNK)
        ahead = deque((one, pool.submit(read, one, next(starts))) for one in connections)
        while True:
            connection, reading = ahead.popleft()
            chunk = reading.result()
            if chunk.frames is None:
                return
            ahead.append((connection, pool.submit(read, connection, next(starts))))
            yield chunk


def _verify_each_row(path: Path, table: str, check: Callable[[], None]) -> tuple[int, bytes]:
    number, digest = 0, EMPTY_DIGEST
    with closing(open_to_read(path)) as connection:
        for values in connection.execute(f"SELECT {ORDER_COLUMNS} FROM {table} ORDER BY number"):  # noqa: S608 - ours
            check()
            row = Order(*values)
            digest = next_digest(digest, row)
            number += 1
            if row.number != number or row.digest != digest:
                raise Damaged(f"row {row.number} does not follow row {number - 1}")
    return number, digest
