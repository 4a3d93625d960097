"""Verifies that a database is whole, before anything of it is served or changed.

There can be millions of rows, so two threads share the work. One follows the journal's hash chain.
The other looks at all else: SQLite's own check, the way from each request id to its order, and
whether stocks and journal balance.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from catalog.sqlite import schema
from common.chain import read_cluster_id, seal, verify_chain
from common.domain import MAX_VOLUME
from common.errors import Damaged
from common.sqlite import meaning, open_to_read

# For the index of a million request ids, which are read in no order.
_CACHE_KIB = 65_536


class Verified(NamedTuple):
    """What a database holds that is whole."""

    schema_version: int
    last_number: int
    digest: bytes  # of the journal
    initial_volumes: dict[str, int]


class _Effect(NamedTuple):
    """What the journal did to a stock."""

    trades: int = 0
    volume: int = 0  # sold less bought


def verify(path: Path) -> Verified:
    """Reads the whole database, and changes neither it nor its write-ahead log.

    Raises:
        Damaged: something in it contradicts the rest, or SQLite cannot make sense of it.
        OtherSchema: another version of the catalog wrote it.
        Unavailable: the disk does not let it be read; nothing is said of its rows.
    """
    with _reading(path) as connection, ThreadPoolExecutor(1, "verification") as beside:
        version = schema.found_version(connection)
        initial_volumes = beside.submit(_verify_all_but_the_chain, path, version)
        last_number, digest = verify_chain(path, "journal")
        return Verified(version, last_number, digest, initial_volumes.result())


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(open_to_read(path)) as connection:
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            yield connection
    except sqlite3.Error as error:
        raise (meaning(error) or Damaged)(str(error)) from error


def _verify_all_but_the_chain(path: Path, version: int) -> dict[str, int]:
    with _reading(path) as connection:
        _check_structure(connection, version)
        _check_request_ids(connection)
        initial_volumes = _follow_stocks(connection, version)
        if schema.has_seals(version):
            _check_seals(connection, version)
    return initial_volumes


def _check_structure(connection: sqlite3.Connection, version: int) -> None:
    """Pages, rows, and the indexes of the small tables.

    `_check_request_ids` looks at the journal's index in a cheaper way. The refusals' index serves
    only to delete them.
    """
    checks = ["quick_check(1)", "integrity_check(stocks)", "integrity_check(fence)"]
    if schema.has_cluster(version):
        checks.append("integrity_check(cluster)")
    for check in checks:
        (verdict, *_) = connection.execute(f"PRAGMA {check}").fetchone()
        if verdict != "ok":
            raise Damaged(" ".join(verdict.split()))


def _check_request_ids(connection: sqlite3.Connection) -> None:
    """Every order must be found by its request id, or a repeat would execute it again."""
    index = "journal INDEXED BY sqlite_autoindex_journal_1"
    sql = (
        "SELECT number FROM journal AS orders NOT INDEXED WHERE NOT EXISTS (SELECT 1"  # noqa: S608 - a constant
        f" FROM {index} WHERE request_id = orders.request_id AND number = orders.number) LIMIT 1"
    )
    for (number,) in schema.rows(connection, sql):
        raise Damaged(f"order {number} is not found by its request id")
    sql = f"SELECT (SELECT count(*) FROM {index}) - (SELECT count(*) FROM journal NOT INDEXED)"  # noqa: S608 - a constant
    ((surplus,),) = schema.rows(connection, sql)
    if surplus:
        raise Damaged(f"{surplus} request ids belong to no order")


def _follow_stocks(connection: sqlite3.Connection, version: int) -> dict[str, int]:
    """The initial volume of each stock; its version and volume must follow from it."""
    effects = _effects(connection)
    initial_volumes = {}
    for stock in schema.all_stocks(connection):
        effect = effects.pop(stock.name, _Effect())
        if stock.version != effect.trades:
            raise Damaged(f"{stock.name} has version {stock.version} after {effect.trades} orders")
        initial = stock.volume - effect.volume
        if not (0 <= stock.volume <= MAX_VOLUME and 0 <= initial <= MAX_VOLUME):
            raise Damaged(
                f"{stock.name} has a volume of {stock.volume}, and would have begun with {initial}"
            )
        initial_volumes[stock.name] = initial
    if effects:
        raise Damaged(f"there are orders of {min(effects)!r}, but no such stock")
    if schema.has_seals(version):
        _check_initial_volumes(connection, initial_volumes)
    return initial_volumes


def _effects(connection: sqlite3.Connection) -> dict[str, _Effect]:
    sql = (
        "SELECT name, count(*), sum(CASE type WHEN 'SELL' THEN quantity ELSE -quantity END)"
        " FROM journal GROUP BY name"
    )
    return {name: _Effect(*effect) for name, *effect in schema.rows(connection, sql)}


def _check_initial_volumes(connection: sqlite3.Connection, following: dict[str, int]) -> None:
    for name, initial in schema.rows(connection, "SELECT name, initial_volume FROM stocks"):
        if initial != following[name]:
            raise Damaged(
                f"{name} began with a volume of {initial}, "
                f"but its volume and orders would have it begin with {following[name]}"
            )


def _check_seals(connection: sqlite3.Connection, version: int) -> None:
    sql = "SELECT seal, name, price_cents, initial_volume FROM stocks"
    for kept, *values in schema.rows(connection, sql):
        if kept != seal(*values):
            raise Damaged(f"name, price or initial volume of {values[0]!r} is not the one it had")
    ((kept, *values),) = schema.rows(connection, "SELECT seal, epoch, leader_id FROM fence")
    if kept != seal(*values):
        raise Damaged(f"the fence (epoch {values[0]}, leader {values[1]}) is not the one it had")
    if schema.has_cluster(version) and not read_cluster_id(connection):
        raise Damaged("the cluster's id is gone")
