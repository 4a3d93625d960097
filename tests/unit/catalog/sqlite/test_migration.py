"""A database of an earlier schema version is brought up once, or refused.

Version 1 kept no initial volumes, and neither 1 nor 2 an id of the cluster.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from pathlib import Path

import pytest

from catalog.sqlite import schema
from catalog.sqlite.database import Database
from catalog.sqlite.files import CannotOpen
from tests.unit.catalog.files import bytes_of, change, content, write_catalog
from tests.unit.catalog.support import NOW_S, buy, store_on

# As version 2 made them: all else is as it was.
VERSION_2 = """
DROP TABLE cluster;
PRAGMA user_version = 2;
"""
# As version 1 made them; the journal and the refusals are as they were.
VERSION_1 = """
DROP TABLE cluster;
CREATE TABLE old_stocks (
    name        TEXT NOT NULL PRIMARY KEY,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    volume      INTEGER NOT NULL CHECK (volume BETWEEN 0 AND 9007199254740991),
    version     INTEGER NOT NULL CHECK (version >= 0)
) STRICT;
INSERT INTO old_stocks SELECT name, price_cents, volume, version FROM stocks ORDER BY rowid;
DROP TABLE stocks;
ALTER TABLE old_stocks RENAME TO stocks;
CREATE TABLE old_fence (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    leader_id INTEGER NOT NULL CHECK (leader_id >= 0)
) STRICT;
INSERT INTO old_fence SELECT only_row, epoch, leader_id FROM fence;
DROP TABLE fence;
ALTER TABLE old_fence RENAME TO fence;
PRAGMA user_version = 1;
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Version 1, which left its lock file empty."""
    data = write_catalog(tmp_path / "data")
    change(data / "catalog.db", VERSION_1)
    (data / "catalog.lock").write_bytes(b"")
    return data


def test_everything_is_as_it_was_and_the_initial_volumes_are_known(
    data: Path, tmp_path: Path
) -> None:
    expected = content(write_catalog(tmp_path / "new" / "data"))
    assert content(data) == expected
    with closing(Database(data, tmp_path / "stocks.txt")) as database:
        with database.reading() as connection:
            assert schema.rows(connection, "PRAGMA user_version") == [(3,)]
            sql = "SELECT name, initial_volume FROM stocks ORDER BY rowid"
            assert schema.rows(connection, sql) == [
                ("stock1", 100),
                ("stock2", 50),
                ("stock10", 9007199254740981),
            ]
        store = store_on(database, lambda: NOW_S)
        assert store.fence(4, 1).accepted
        assert store.update(4, [buy("later", 1, "stock10")])[0].number == len(expected[1]) + 1


@pytest.mark.parametrize(
    ("damage", "why"),
    {
        "UPDATE stocks SET volume = 0 WHERE name = 'stock10'": "would have begun with -",
        "UPDATE stocks SET version = version + 1 WHERE name = 'stock2'": "stock2 has version",
        "DELETE FROM stocks WHERE name = 'stock2'": "no such stock",
        "UPDATE journal SET quantity = 1000 WHERE number = 5": "row 5 does not follow row 4",
        "PRAGMA user_version = 4": "schema version 4, but this catalog knows versions 1 to 3 only",
    }.items(),
)
def test_one_that_does_not_add_up_is_left_as_it_is(data: Path, damage: str, why: str) -> None:
    change(data / "catalog.db", damage)
    before = bytes_of(data)
    with pytest.raises(CannotOpen, match=why):
        Database(data, data.parent / "stocks.txt")
    assert bytes_of(data) == before


@pytest.mark.parametrize("version", [VERSION_1, VERSION_2], ids=["1", "2"])
def test_it_gets_an_id_of_its_cluster_once(tmp_path: Path, version: str) -> None:
    data = write_catalog(tmp_path / "data")
    expected = content(write_catalog(tmp_path / "new" / "data"))
    change(data / "catalog.db", version)
    ids = set()
    for _ in range(2):
        with closing(Database(data, tmp_path / "stocks.txt")) as database:
            ids.add(database.cluster_id)
    assert [str(uuid.UUID(cluster_id)) for cluster_id in ids] == [*ids]
    assert content(data) == expected


def test_a_migration_that_breaks_off_changes_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(write_catalog(data.parent / "new" / "data"))
    insert = schema._insert_stock

    def full_at_stock10(*arguments: object) -> None:
        if "stock10" in str(arguments[1]):
            raise OSError("no space left on device")
        insert(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(schema, "_insert_stock", full_at_stock10)
        with pytest.raises(CannotOpen, match="no space left"):
            Database(data, data.parent / "stocks.txt")
    assert content(data) == before
