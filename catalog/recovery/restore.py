"""`python -m catalog restore`: makes a lost catalog again, from the initial stocks and order logs.

Every acknowledged order is in the log of the replica that led, and says all that it changed.
No log has the recorded refusals or the registered epochs.
"""

from __future__ import annotations

import argparse
import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from catalog.decisions import Registration
from catalog.recovery.order_logs import OrderLog, Unusable, copy_log, longest
from catalog.settings import CatalogSettings
from catalog.sqlite import schema
from catalog.sqlite.files import CannotOpen, Directory
from catalog.sqlite.verification import verify
from catalog.stock import DONE, Stock
from catalog.stock_file import MalformedStockFile, read_stocks
from common.domain import Order
from common.errors import BourseError, Damaged, OutcomeUnknown
from common.sqlite import open_to_build

# An epoch that somebody still holds must not be given out again: two leaders could commit under it.
# Epochs above the last order's may have been registered, for leaders that had no order: the margin
# is above those. An earlier restoring chose an epoch above that margin, too: the random part, from
# so large a range, is not the same twice.
_EPOCH_MARGIN = 1_000_000
_EPOCH_CHANCE = 2**40

_CHUNK = 10_000
_CACHE_KIB = 65_536
_PROGRESS_ORDERS = 100_000

_NOT_RESTORED = (
    "Not restored, because no log has them: refusals (a refused trade that is sent again under its "
    "key is decided anew), and orders that none of these logs has."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--log",
        dest="logs",
        action="append",
        type=Path,
        required=True,
        metavar="PATH",
        help="the orders.db of a replica that does not run; give every one there is",
    )
    parser.add_argument(
        "--expect-digest",
        type=bytes.fromhex,
        metavar="HEX",
        help="refuse to restore anything whose last digest is not this one",
    )


def run(settings: CatalogSettings, logs: Sequence[Path], expected_digest: bytes | None) -> int:
    """Restores and says so; the process's exit code."""
    try:
        log = restore(settings, logs, expected_digest, _say)
    except OutcomeUnknown as error:
        _say(f"it may have been restored: {error.message}")
        return 1
    except (Unusable, CannotOpen, MalformedStockFile, BourseError, OSError, sqlite3.Error) as error:
        _say(f"nothing was restored: {error}")
        return 1
    _say(_NOT_RESTORED)
    _say("The replicas must agree: compare with the last number and digest of their Status.")
    print(f"last number {log.last_number}, digest {log.digest.hex()}")
    return 0


def _say(message: str) -> None:
    print(f"restore: {message}", file=sys.stderr, flush=True)


def restore(
    settings: CatalogSettings,
    paths: Sequence[Path],
    expected_digest: bytes | None,
    say: Callable[[str], None],
) -> OrderLog:
    """Makes the catalog that the longest of the logs tells of, in one go: all of it or nothing.

    Raises:
        Unusable: there is a catalog, or the logs or the stocks do not fit.
        CannotOpen: a catalog has the directory open, or leftovers of one are in it.
        MalformedStockFile, Damaged, Unavailable, OSError, sqlite3.Error

    Returns:
        The longest log, which the catalog now goes on from.
    """
    stocks = read_stocks(settings.stocks_file)
    with closing(Directory(settings.data_dir)) as home, home.workplace() as work:
        if not settings.database_url:
            home.check_is_vacant()
        log = longest(_usable(paths, work, say))
        if expected_digest not in (None, log.digest):
            raise Unusable(f"{log} is the longest log, and its digest is not the expected one")
        say(f"restoring from {log}")
        told = _Told(stocks, log, settings.stocks_file, say)
        if settings.database_url:
            _write_to_postgres(settings, told)
        else:
            with home.new_database() as draft:
                _build(draft, told)
                _check(told, *verify(draft)[1:3])
    return log


def _usable(paths: Iterable[Path], work: Path, say: Callable[[str], None]) -> list[OrderLog]:
    logs = []
    for index, path in enumerate(paths):
        say(f"verifying {path}")
        try:
            logs.append(copy_log(path, work / str(index)))
        except Damaged as error:
            say(f"leaving out {path}, which is damaged (or its replica runs): {error}")
    if not logs:
        raise Unusable("none of the logs is whole")
    return logs


@dataclass(frozen=True)
class _Told:
    """What there is to restore from, and the way to say how far it got."""

    stocks: Sequence[Stock]  # as they were before the first trade, until `replay`
    log: OrderLog
    stocks_file: Path
    say: Callable[[str], None]

    def replay(self, add: Callable[[list[Order]], object]) -> Registration:
        """Does to the stocks what the log tells of.

        Args:
            add: is given the orders, some at a time.

        Returns:
            The fence to go on from: nobody can hold an epoch above it.

        Raises:
            Unusable: the log does not follow from the stocks.
        """
        books = {stock.name: stock for stock in self.stocks}
        last_epoch = 0
        for orders in _chunks(self.log.orders()):
            for order in orders:
                _replay(books, order, self.stocks_file)
            add(orders)
            last_epoch = orders[-1].epoch
            if orders[-1].number % _PROGRESS_ORDERS == 0:
                self.say(f"replayed {orders[-1].number} of {self.log.last_number} orders")
        return Registration(last_epoch + _EPOCH_MARGIN + secrets.randbelow(_EPOCH_CHANCE), 0)


def _build(path: Path, told: _Told) -> None:
    with closing(open_to_build(path, _CACHE_KIB)) as connection:
        connection.execute("BEGIN")
        schema.create(connection, told.stocks, Registration(0, 0), told.log.cluster_id)
        registration = told.replay(partial(schema.insert_orders, connection))
        for stock in told.stocks:
            schema.save_stock(connection, stock)
        schema.save_registration(connection, registration)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def _write_to_postgres(settings: CatalogSettings, told: _Told) -> None:
    # psycopg takes a part of the time in which a catalog starts, so it is loaded only where needed.
    from catalog.postgres import commands, migrations  # noqa: PLC0415 - see above

    try:
        with migrations.changing(commands.address_of(settings)) as connection:
            migrations.create(connection, told.stocks, Registration(0, 0), told.log.cluster_id)
            registration = told.replay(partial(migrations.add_orders, connection))
            migrations.save(connection, told.stocks, registration)
            loaded = migrations.load(connection)
            _check(told, loaded.last_number, loaded.digest)
    except migrations.CannotChange as error:
        raise Unusable(str(error)) from error
    except migrations.InDoubt as error:
        raise OutcomeUnknown(f"look whether the database is empty still: {error}") from error


def _check(told: _Told, last_number: int, digest: bytes) -> None:
    if (last_number, digest) != (told.log.last_number, told.log.digest):
        raise Damaged(f"what was written ends with order {last_number}")


def _chunks(orders: Iterator[Order]) -> Iterator[list[Order]]:
    while chunk := list(islice(orders, _CHUNK)):
        yield chunk


def _replay(books: dict[str, Stock], order: Order, stocks_file: Path) -> None:
    """Does what the order says; raises Unusable if it could not have been done."""
    stock = books.get(order.name)
    if stock is None:
        why = "there is no such stock"
    elif stock.trade(order.quantity, order.type) != DONE:
        why = f"not possible with {stock}"
    elif stock.version != order.version:
        why = f"it would give version {stock.version}"
    else:
        return
    raise Unusable(
        f"order {order} does not follow from the stocks in {stocks_file}: {why}. "
        "Was the lost catalog filled from another file? STOCKS_FILE names it"
    )
