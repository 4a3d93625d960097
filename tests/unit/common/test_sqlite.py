"""How a database is opened, and how SQLite's errors and a full disk are told."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import Damaged, Unavailable
from common.sqlite import TooOld, explain, meaning, open_to_build, open_to_read, open_to_write

ERROR = OSError("disk I/O error")
SYNCHRONOUS = {"FULL": 2, "NORMAL": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "what? 50% #1.db"  # a URI would take each of these for its own


def one(connection: sqlite3.Connection, sql: str) -> object:
    ((value,),) = connection.execute(sql).fetchall()
    return value


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_a_database_to_write_has_a_write_ahead_log(path: Path, synchronous: str) -> None:
    with closing(open_to_write(path, synchronous)) as connection:
        assert one(connection, "PRAGMA journal_mode") == "wal"
        assert one(connection, "PRAGMA synchronous") == SYNCHRONOUS[synchronous]
        assert one(connection, "PRAGMA busy_timeout") == 1_000
        connection.execute("CREATE TABLE things (name TEXT) STRICT")
        assert not connection.in_transaction
    assert path.exists()


def test_where_no_write_ahead_log_can_be_the_disk_is_to_blame() -> None:
    with pytest.raises((Unavailable, sqlite3.OperationalError)):
        open_to_write(Path("/proc/no.db"), "FULL")


def test_a_reader_changes_nothing_and_moves_no_write_ahead_log(path: Path) -> None:
    with closing(open_to_write(path, "FULL")) as writer:
        writer.execute("CREATE TABLE things (name TEXT) STRICT")
        killed = path.with_name("killed.db")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{killed}{suffix}")
    ahead = Path(f"{killed}-wal")
    before = killed.read_bytes(), ahead.read_bytes()
    with closing(open_to_read(killed)) as reader:
        assert one(reader, "SELECT count(*) FROM things") == 0
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("INSERT INTO things VALUES ('x')")
    assert (killed.read_bytes(), ahead.read_bytes()) == before


def test_a_reader_makes_no_database(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        open_to_read(path)
    assert not path.exists()


def test_what_is_built_is_there(path: Path) -> None:
    with closing(open_to_build(path, cache_kib=1_024)) as connection:
        assert one(connection, "PRAGMA journal_mode") == "off"
        assert one(connection, "PRAGMA synchronous") == 0
        connection.execute("CREATE TABLE things (name TEXT) STRICT")
    with closing(open_to_read(path)) as reader:
        assert one(reader, "SELECT count(*) FROM things") == 0


@pytest.fixture
def old_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.9")


@pytest.mark.usefixtures("old_sqlite")
def test_an_sqlite_too_old_names_itself_and_what_is_needed(path: Path) -> None:
    said = r"^SQLite 3\.36\.9 is too old: 3\.37\.0 or newer is needed"
    with pytest.raises(TooOld, match=said):
        open_to_write(path, "FULL")
    with pytest.raises(TooOld, match=said):
        open_to_read(path)
    with pytest.raises(TooOld, match=said):
        open_to_build(path, 1)
    assert not path.exists()


def test_the_first_version_with_strict_tables_is_enough(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 0))
    open_to_write(path, "FULL").close()


# ---------------------------------------------------------------- errors


def failed(kind: type[sqlite3.Error], code: int) -> sqlite3.Error:
    error = kind("something")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_BUSY_SNAPSHOT,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    ],
)
def test_trouble_says_nothing_of_the_data(code: int) -> None:
    assert meaning(failed(sqlite3.OperationalError, code)) is Unavailable


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CORRUPT_INDEX])
def test_what_sqlite_calls_malformed_is_damage(code: int) -> None:
    assert meaning(failed(sqlite3.DatabaseError, code)) is Damaged


def test_what_is_no_database_is_damage(path: Path) -> None:
    path.write_bytes(b"something else altogether" * 100)
    with closing(open_to_read(path)) as reader, pytest.raises(sqlite3.Error) as raised:
        reader.execute("SELECT * FROM sqlite_master")
    assert meaning(raised.value) is Damaged


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM missing", "SELECT CAST(x'ff' AS TEXT)"], ids=["table", "text"]
)
def test_what_a_file_should_hold_and_does_not_is_damage(path: Path, statement: str) -> None:
    with (
        closing(open_to_write(path, "FULL")) as connection,
        pytest.raises(sqlite3.OperationalError) as raised,
    ):
        connection.execute(statement).fetchall()
    assert meaning(raised.value) is Damaged


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("INSERT INTO things VALUES (NULL)", ()),
        ("INSERT INTO things VALUES (?)", ()),
    ],
)
def test_a_broken_constraint_and_a_misuse_are_defects(
    path: Path, statement: str, parameters: tuple[object, ...]
) -> None:
    with closing(open_to_write(path, "FULL")) as connection:
        connection.execute("CREATE TABLE things (name TEXT NOT NULL) STRICT")
        with pytest.raises(sqlite3.Error) as raised:
            connection.execute(statement, parameters)
    assert meaning(raised.value) is None


# ---------------------------------------------------------------- a full disk


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=5 << 10))
    said = explain(ERROR, tmp_path / "orders.db")
    assert said == "disk I/O error; the disk is full, 5 KiB are left"


def test_a_disk_with_room_is_not_mentioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1 << 20))
    assert explain(ERROR, tmp_path / "orders.db") == "disk I/O error"


def test_a_disk_that_cannot_be_asked_is_not_mentioned(tmp_path: Path) -> None:
    assert explain(ERROR, tmp_path / "missing" / "orders.db") == "disk I/O error"
