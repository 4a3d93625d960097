"""Errors of the disk under the log are reported, and are not taken for damage."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from common.errors import Unavailable
from order.log import log as log_module
from order.log.log import OrderLog, open_log
from tests.unit.order.log.logs import ROWS, path_in, write_log

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return path_in(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_log(tmp_path)


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    ],
)
def test_trouble_with_the_disk_is_not_taken_for_damage(
    monkeypatch: pytest.MonkeyPatch, written: Path, code: int
) -> None:
    def fail(_connection: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("the disk says no")
        error.sqlite_errorcode = code
        raise error

    before = written.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(log_module, "_create_or_check", fail)
        with pytest.raises(Unavailable, match=r"orders\.db: the disk says no"):
            open_log(written)
    assert written.read_bytes() == before
    assert list(written.parent.glob("*damaged*")) == []
    with closing(OrderLog(written)) as log:
        assert log.rows(0) == ROWS


def test_a_log_that_another_process_holds_is_not_damaged(
    monkeypatch: pytest.MonkeyPatch, written: Path
) -> None:
    connect = log_module._connect

    def without_patience(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    monkeypatch.setattr(log_module, "_connect", without_patience)
    with closing(sqlite3.connect(written, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            open_log(written)
    assert list(written.parent.glob("*damaged*")) == []


def test_an_sqlite_too_old_is_not_taken_for_damage(
    monkeypatch: pytest.MonkeyPatch, written: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
        with pytest.raises(Unavailable, match=r"orders\.db: SQLite .* is too old: 3\.37\.0"):
            open_log(written)
    assert list(written.parent.glob("*damaged*")) == []
    with closing(OrderLog(written)) as log:
        assert log.rows(0) == ROWS


def test_a_file_that_cannot_be_opened_is_trouble_with_the_disk(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Unavailable, match=r"orders\.db: unable to open"):
        open_log(path)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Runs the block as another user: root could write every file."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("directory_mode", [0o777, 0o555])
def test_a_file_that_may_not_be_written_is_trouble_with_the_disk(directory_mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        written = write_log(Path(name))
        written.chmod(0o444)
        written.parent.chmod(directory_mode)
        why = r"orders\.db: (attempt to write a readonly|unable to open)"
        with bound_by_permissions(), pytest.raises(Unavailable, match=why):
            open_log(written)
        written.parent.chmod(0o755)
        assert list(written.parent.glob("*damaged*")) == []


class UnreadableDisk:
    """Replaces the connection to SQLite. Every read fails."""

    def execute(self, *_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error


def test_a_disk_that_cannot_be_read_for_now_is_not_taken_for_damage(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(OrderLog(written)) as log:
        with monkeypatch.context() as patched:
            patched.setattr(log, "_reader", UnreadableDisk())
            with pytest.raises(Unavailable, match="disk I/O error"):
                log.row(60)
        assert log.row(60) == ROWS[59]


def test_a_log_that_was_closed_is_not_damaged(written: Path) -> None:
    """A read during the stop of the service must not count as damage."""
    log = OrderLog(written)
    log.close()
    with pytest.raises(Unavailable):
        log.rows(0)
