"""The databases that a catalog can have, for tests of what holds on each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from catalog.decisions import Registration
from catalog.leases import Leases
from catalog.postgres import migrations
from catalog.postgres.address import Address
from catalog.postgres.candidate import Candidate
from catalog.postgres.connection import connect
from catalog.settings import Durability
from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from catalog.stock_file import read_stocks
from catalog.store import Store
from tests.support.postgres import PostgresServer
from tests.unit.catalog.support import refusals_kept


class Engine(Protocol):
    """One catalog's data, filled from `stocks.txt`, and the process that serves it."""

    def start(self, clock: Callable[[], float]) -> Store:
        """Serves; whatever served before has stopped by then.

        Args:
            clock: the wall clock, in seconds.
        """

    def refusals_kept(self) -> int:
        """How many the database has."""

    def close(self) -> None: ...


class SqliteEngine:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._database: Database | None = None

    def start(self, clock: Callable[[], float]) -> Store:
        self._running.close()
        database = Database(self._directory / "data", self._directory / "stocks.txt")
        self._database = self._running.enter_context(closing(database))
        return SqliteStore(database, clock, Leases(clock))

    def refusals_kept(self) -> int:
        assert self._database is not None
        return refusals_kept(self._database)

    def close(self) -> None:
        self._running.close()


class PostgresEngine:
    """Each start takes the office from the process before, which has left it.

    A server has one of these at a time.
    """

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self._server = server
        self._database = server.emptied_database()
        self._address = Address(server.url(self._database))
        self._running = ExitStack()
        with migrations.changing(self._address) as connection:
            migrations.create(connection, read_stocks(directory / "stocks.txt"), Registration(0, 0))

    def start(self, clock: Callable[[], float]) -> Store:
        self._running.close()
        return self._running.enter_context(active_on(self._address, clock))

    def refusals_kept(self) -> int:
        with closing(self._server.admin(self._database)) as connection:
            ((count,),) = connection.execute("SELECT count(*) FROM refusals").fetchall()
        return int(count)

    def close(self) -> None:
        self._running.close()


@contextmanager
def active_on(address: Address, clock: Callable[[], float]) -> Iterator[Store]:
    """The store of a process that takes the office at once, and leaves it at the end."""
    candidate = Candidate(
        connect=lambda avoided: connect(address, Durability.SINGLE, avoided),
        holder="test",
        office_s=1.0,
        clock=lambda: 0.0,  # so the office stays valid without a beat
        wall_clock=clock,
        wait=lambda _rest_s: True,
        on_change=lambda _is_active: None,
        make_turn=threading.Lock,
    )
    try:
        candidate._do_what_is_due()
        yield candidate.current()
    finally:
        candidate._leave()
