"""`python -m stack.fill`: writes the data of many trades, without trading.

It writes a catalog and order logs that agree, where `make local` expects them, to try the service
with long logs. The same arguments write the same rows.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from catalog.decisions import Registration
from catalog.sqlite import schema
from catalog.sqlite.database import Database
from catalog.sqlite.files import CannotOpen
from catalog.stock import DONE, Stock
from common.domain import BUY, EMPTY_DIGEST, MAX_VOLUME, SELL, Order, next_digest
from common.errors import BourseError
from common.sqlite import open_to_build, open_to_read
from order.log.log import OrderLog
from stack.local import lock
from stack.numbers import whole
from stack.parts import ORDER_IDS, ROOT, StackError

_REPORT_EVERY = 100_000
_MAX_QUANTITY = 100
_MOST = MAX_VOLUME
_CACHE_KIB = 512 * 1024

# A row as the tables have it: the fields of an Order.
Values = tuple[int, str, str, str, int, int, int, bytes]


class CannotFill(StackError):
    """Why nothing was written, for the person who asked for it."""


class Contents(NamedTuple):
    """What to write."""

    orders: int
    stocks: int
    volume: int  # of each stock, before the first trade
    epochs: int  # leaders there were
    seed: int
    behind: Mapping[int, int]  # replica → rows that its log lacks

    @property
    def leader(self) -> Registration:
        """The last one; the replica with the highest id, as an election prefers it."""
        return Registration(self.epoch_of(self.orders), ORDER_IDS[-1])

    def epoch_of(self, number: int) -> int:
        return 1 + (number - 1) * self.epochs // max(1, self.orders)


def report(message: str) -> None:
    print(f"fill: {message}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the trades


def trade_all(contents: Contents, stocks: Sequence[Stock]) -> Iterator[Values]:
    """The rows of so many trades, which leave the stocks as they are after the last one."""
    chance = random.Random(contents.seed)  # noqa: S311 - repeatable on purpose
    digest = EMPTY_DIGEST
    for number in range(1, contents.orders + 1):
        stock = stocks[int(chance.random() * len(stocks))]
        quantity = 1 + int(chance.random() * _MAX_QUANTITY)
        kind = _trade(stock, quantity, BUY if chance.random() < 0.5 else SELL)
        fields = (
            number,
            _request_id(chance),
            stock.name,
            kind,
            quantity,
            stock.version,
            contents.epoch_of(number),
        )
        digest = next_digest(digest, Order(*fields))
        yield (*fields, digest)
        if number % _REPORT_EVERY == 0:
            report(f"{number:,} of {contents.orders:,} orders")


def _trade(stock: Stock, quantity: int, kind: str) -> str:
    """Trades that way, or sells if the volume does not permit it; returns which."""
    if stock.trade(quantity, kind) == DONE:
        return kind
    stock.trade(quantity, SELL)  # permitted: volumes are far below what a stock can hold
    return SELL


def _request_id(chance: random.Random) -> str:
    """Looks like the UUIDs that the frontend makes."""
    digits = f"{chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


# ---------------------------------------------------------------- the databases


def write_catalog(directory: Path, contents: Contents) -> Path:
    """Writes the catalog's database, and returns its path."""
    stocks_file = directory.with_name("stocks.txt")
    lines = [f"stock{number},25.78,{contents.volume}\n" for number in range(1, contents.stocks + 1)]
    stocks_file.write_text("stockname,price,currvol\n" + "".join(lines), "utf-8")
    with closing(Database(directory, stocks_file)):
        pass  # made its tables and stocks
    path = directory / "catalog.db"
    with _writing_fast(path) as connection:
        stocks = schema.all_stocks(connection)
        connection.executemany(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", trade_all(contents, stocks)
        )
        for stock in stocks:
            schema.save_stock(connection, stock)
        if contents.orders:
            schema.save_registration(connection, contents.leader)
    return path


def write_log(directory: Path, catalog: Path, last_number: int) -> None:
    """Writes a replica's log: the journal up to a number."""
    directory.mkdir()
    path = directory / "orders.db"
    OrderLog(path).close()  # made its table
    with closing(open_to_build(path, _CACHE_KIB)) as connection:
        connection.execute("ATTACH ? AS catalog", (str(catalog),))
        connection.execute(
            "INSERT INTO main.orders SELECT * FROM catalog.journal WHERE number <= ?",
            (last_number,),
        )
        if last_number > 0:
            connection.execute("INSERT INTO main.cluster SELECT id, seal FROM catalog.cluster")


@contextmanager
def _writing_fast(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction without a journal: what breaks off is thrown away as a whole."""
    with closing(open_to_build(path, _CACHE_KIB)) as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


# ---------------------------------------------------------------- the command


def fill(data: Path, contents: Contents) -> bytes:
    """Writes everything, or nothing; returns the digest of the whole journal.

    Raises:
        CannotFill: there is data already, or it cannot be written.
        StackError: the service runs on that directory.
    """
    with lock(data), tempfile.TemporaryDirectory(dir=data, prefix=".fill-") as draft:
        targets = [data / name for name in ("catalog", *(f"order-{n}" for n in ORDER_IDS))]
        for target in targets:
            if target.exists() and any(target.iterdir()):
                raise CannotFill(f"{target} holds data already; choose another directory")
        drafts = Path(draft)
        catalog = write_catalog(drafts / "catalog", contents)
        for replica_id in ORDER_IDS:
            last_number = max(0, contents.orders - contents.behind.get(replica_id, 0))
            report(f"order-{replica_id}: {last_number:,} rows")
            write_log(drafts / f"order-{replica_id}", catalog, last_number)
        with closing(open_to_read(catalog)) as connection:
            _, digest = schema.last_position(connection)
        for target in targets:
            (drafts / target.name).replace(target)
        return digest


def parse_arguments(arguments: Sequence[str]) -> tuple[Path, Contents]:
    parser = argparse.ArgumentParser(
        prog="python -m stack.fill",
        description="Writes a catalog and the logs of three order replicas that agree, as if so "
        "many trades had been made. `make local` and tests run on the directory as it is.",
        epilog="Example: python -m stack.fill --orders 1000000 --data /tmp/big && "
        "python -m stack.local --data /tmp/big",
    )
    parser.add_argument("--orders", type=whole(0, _MOST), required=True, help="how many trades")
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".local", help="where to; nothing there (%(default)s)"
    )
    parser.add_argument("--stocks", type=whole(1, _MOST), default=10, help="how many (%(default)s)")
    parser.add_argument(
        "--volume",
        type=whole(0, _MOST),
        default=1_000_000,
        help="of each stock before the first trade (%(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=whole(1, _MOST),
        default=3,
        help="how many leaders there were (%(default)s)",
    )
    parser.add_argument(
        "--behind",
        type=_lag,
        action="append",
        default=[],
        metavar="ID=ROWS",
        help="rows that the log of a replica lacks, or `ID=all`; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=1, help="other trades (%(default)s)")
    options = parser.parse_args(arguments)
    behind = {
        replica_id: options.orders if rows is None else rows for replica_id, rows in options.behind
    }
    contents = Contents(
        options.orders, options.stocks, options.volume, options.epochs, options.seed, behind
    )
    if max(contents.volume, contents.orders * _MAX_QUANTITY) > MAX_VOLUME // 2:
        parser.error(f"volumes above {MAX_VOLUME} could come of this")
    for replica_id, rows in behind.items():
        if rows > contents.orders:
            parser.error(
                f"--behind: replica {replica_id} cannot lack {rows} of {contents.orders} rows"
            )
    return options.data.resolve(), contents


def _lag(text: str) -> tuple[int, int | None]:
    replica_id, _, rows = text.partition("=")
    if replica_id not in map(str, ORDER_IDS):
        raise argparse.ArgumentTypeError(f"{text!r} does not name one of the replicas 1, 2, 3")
    return int(replica_id), None if rows == "all" else whole(0, _MOST)(rows)


def main() -> None:
    data, contents = parse_arguments(sys.argv[1:])
    try:
        digest = fill(data, contents)
    except (StackError, CannotOpen, BourseError, OSError, sqlite3.Error) as error:
        report(f"nothing was written: {error}")
        raise SystemExit(1) from None
    leader = contents.leader
    orders = f"{contents.orders:,} orders of {contents.stocks} stocks"
    report(f"{data}: {orders}, digest {digest.hex()[:16]}…")
    if contents.orders:
        report(f"the last leader was replica {leader.leader_id}, of epoch {leader.epoch}")


if __name__ == "__main__":
    main()
