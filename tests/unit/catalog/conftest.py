"""A catalog of small stocks on each database there is, and a store of it that has a leader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from catalog.store import Store
from tests.support.clock import Clock
from tests.support.postgres import PostgresServer, running_server
from tests.unit.catalog.engines import Engine, PostgresEngine, SqliteEngine
from tests.unit.catalog.support import NOW_S, write_stocks

MakeEngine = Callable[[Path], Engine]


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW_S)


@pytest.fixture
def stocks_file(tmp_path: Path) -> Path:
    return write_stocks(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture(
    scope="session", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """Makes catalogs, each from the `stocks.txt` of a directory."""
    if request.param == "sqlite":
        return SqliteEngine
    server = request.getfixturevalue("postgres")
    return lambda directory: PostgresEngine(server, directory)


@pytest.fixture
def engine(make_engine: MakeEngine, stocks_file: Path) -> Iterator[Engine]:
    with closing(make_engine(stocks_file.parent)) as engine:
        yield engine


@pytest.fixture
def store(engine: Engine, clock: Clock) -> Store:
    """A store that leader 2 leads in epoch 1."""
    store = engine.start(clock)
    assert store.fence(1, 2).accepted
    return store
