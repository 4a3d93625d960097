"""A catalog's database of small stocks, and a store on it that has a leader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from catalog.sqlite.database import Database
from catalog.sqlite.store import SqliteStore
from tests.support.clock import Clock
from tests.unit.catalog.support import store_on


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def database(data: Path, stocks_file: Path) -> Iterator[Database]:
    with closing(Database(data, stocks_file)) as database:
        yield database


@pytest.fixture
def store(database: Database, clock: Clock) -> SqliteStore:
    """A store that leader 2 leads in epoch 1."""
    store = store_on(database, clock)
    assert store.fence(1, 2).accepted
    return store
