"""`python -m catalog init` and `migrate`: what is done to the database by hand, and once."""

from __future__ import annotations

import sys

from catalog.decisions import Registration
from catalog.postgres.address import Address, NotAnAddress
from catalog.postgres.migrations import CannotChange, InDoubt, changing, create, migrate
from catalog.settings import CatalogSettings
from catalog.stock_file import MalformedStockFile, read_stocks


def run_init(settings: CatalogSettings) -> int:
    """Fills an empty database and says so; the process's exit code."""
    try:
        stocks = read_stocks(settings.stocks_file)
        with changing(address_of(settings)) as connection:
            create(connection, stocks, Registration(0, 0))
    except (CannotChange, MalformedStockFile) as error:
        return _failed("init", f"nothing was done: {error}")
    except InDoubt as error:
        return _failed("init", f"it may have been done, run it again to see: {error}")
    print(f"init: {len(stocks)} stocks from {settings.stocks_file}")
    return 0


def run_migrate(settings: CatalogSettings) -> int:
    """Brings the database to this version's schema and says so; the process's exit code."""
    try:
        with changing(address_of(settings)) as connection:
            before, after = migrate(connection)
    except CannotChange as error:
        return _failed("migrate", f"nothing was done: {error}")
    except InDoubt as error:
        return _failed("migrate", f"it may have been done, run it again to see: {error}")
    if before == after:
        print(f"migrate: schema version {after} already, nothing to do")
    else:
        print(f"migrate: from schema version {before} to {after}")
    return 0


def address_of(settings: CatalogSettings) -> Address:
    """Where the database is.

    Raises:
        CannotChange: DATABASE_URL does not say it.
    """
    try:
        return Address(settings.database_url, settings.database_password_file)
    except NotAnAddress as error:
        raise CannotChange(f"DATABASE_URL: {error}") from error


def _failed(command: str, message: str) -> int:
    print(f"{command}: {message}", file=sys.stderr)
    return 1
