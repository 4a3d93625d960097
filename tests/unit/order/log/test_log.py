"""The log on a real disk: it keeps its rows, and an append is complete or not done at all."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from common.domain import EMPTY_DIGEST, Order
from order.log.log import OrderLog, open_log, set_aside
from tests.unit.order.fakes import CLUSTER, chained, make_rows, refusing_rows
from tests.unit.order.log.logs import ROWS, path_in, write_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return path_in(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_log(tmp_path)


# ------------------------------------------------------------ what it keeps


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    log, damage = open_log(tmp_path / "made" / "for it" / "orders.db")
    with closing(log):
        assert damage is None
        assert (log.last_number, log.digest) == (0, EMPTY_DIGEST)
        assert log.row(1) is None
        assert log.rows(0) == []
        assert list(log.chunks(0)) == []


def test_rows_come_back_as_they_were(path: Path) -> None:
    odd = chained(
        Order(number, "k" * 255, name, kind, 10**9, 2**53, 2**62)
        for number, (name, kind) in enumerate(
            [('a "b", c', "BUY"), ("Ünïcode 株", "SELL"), ("'; DROP TABLE orders --", "BUY")], 1
        )
    )
    with closing(OrderLog(path)) as log:
        log.append(odd)
        assert log.rows(0) == odd
    with closing(OrderLog(path)) as log:
        assert log.rows(0) == odd


def test_it_goes_on_where_it_ended(written: Path) -> None:
    more = make_rows(3, after=ROWS, epoch=2)
    log, damage = open_log(written)
    with closing(log):
        assert damage is None
        assert (log.last_number, log.digest) == (len(ROWS), ROWS[-1].digest)
        log.append(more)
        assert (log.last_number, log.digest) == (more[-1].number, more[-1].digest)
    with closing(OrderLog(written)) as log:
        assert log.rows(0, 1000) == ROWS + more


def test_closing_leaves_one_file(written: Path) -> None:
    assert [file.name for file in written.parent.iterdir()] == ["orders.db"]


def test_what_a_killed_process_wrote_is_there(tmp_path: Path, path: Path) -> None:
    """Copies the files of an open log, as a killed process leaves them."""
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:100])
        log.append(ROWS[100:])
        copy = tmp_path / "copy"
        copy.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", copy / f"orders.db{suffix}")
    with closing(OrderLog(copy / "orders.db")) as log:
        assert log.rows(0) == ROWS


def test_a_tail_that_a_power_cut_took_is_a_shorter_log(tmp_path: Path, path: Path) -> None:
    with closing(OrderLog(path)) as log:
        for row in ROWS[:40]:
            log.append([row])
        database = path.read_bytes()
        ahead = Path(f"{path}-wal").read_bytes()
    lengths = set()
    for cut in range(0, len(ahead), 10_000):
        copy = tmp_path / f"cut at {cut}" / "orders.db"
        copy.parent.mkdir()
        copy.write_bytes(database)
        Path(f"{copy}-wal").write_bytes(ahead[:cut])
        log, damage = open_log(copy)
        with closing(log):
            assert damage is None
            assert log.rows(0) == ROWS[: log.last_number]
            lengths.add(log.last_number)
    assert len(lengths) > 5


# ------------------------------------------------------------ reading


def test_one_row(written: Path) -> None:
    with closing(OrderLog(written)) as log:
        assert [log.row(number) for number in (1, 77, 130)] == [ROWS[0], ROWS[76], ROWS[129]]
        assert [log.row(number) for number in (131, 2**63 - 1, 0, -1, -(2**62))] == [None] * 5


def test_rows_above_a_number(written: Path) -> None:
    with closing(OrderLog(written)) as log:
        assert log.rows(127) == ROWS[127:]
        assert log.rows(2, 3) == ROWS[2:5]
        assert log.rows(130) == []
        assert log.rows(2**63 - 1) == []


def test_chunks_are_bounded_and_miss_nothing(path: Path) -> None:
    rows = make_rows(2_300)
    with closing(OrderLog(path)) as log:
        log.append(rows)
        chunks = list(log.chunks(100))
    assert [len(chunk) for chunk in chunks] == [1000, 1000, 200]
    assert [row for chunk in chunks for row in chunk] == rows[100:]


def test_chunks_see_what_is_appended_meanwhile(path: Path) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:2])
        chunks = log.chunks(0)
        assert next(chunks) == ROWS[:2]
        log.append(ROWS[2:4])
        assert next(chunks) == ROWS[2:4]
        assert list(chunks) == []


def test_reading_does_not_wait_for_an_append(written: Path) -> None:
    with closing(OrderLog(written)) as log:
        log._writer.execute("BEGIN IMMEDIATE")
        log._writer.execute("DELETE FROM orders")
        assert log.row(130) == ROWS[129]
        log._writer.execute("ROLLBACK")


# ------------------------------------------------------------ appending: all or none


def assert_unchanged(log: OrderLog, path: Path, rows: list[Order]) -> None:
    assert (log.last_number, log.digest) == (rows[-1].number, rows[-1].digest)
    assert log.rows(0) == rows
    with closing(sqlite3.connect(path)) as connection:  # reads what is on the disk
        assert connection.execute("SELECT max(number) FROM orders").fetchone() == (len(rows),)


def test_a_full_disk_takes_all_rows_or_none(path: Path) -> None:
    many = make_rows(500, after=ROWS)
    with closing(OrderLog(path)) as log:
        log.append(ROWS)
        (pages,) = log._writer.execute("PRAGMA page_count").fetchone()
        log._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            log.append(many)
        assert_unchanged(log, path, ROWS)
        log._writer.execute("PRAGMA max_page_count = 1000000")
        log.append(many)
        assert log.rows(0) == ROWS + many


def test_a_row_that_is_there_refuses_those_before_it(path: Path) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:3])
        with pytest.raises(sqlite3.IntegrityError):
            log.append([ROWS[3], ROWS[4], ROWS[2]])
        assert_unchanged(log, path, ROWS[:3])
        log.append(ROWS[3:])
        assert log.rows(0) == ROWS


def test_a_commit_that_fails_leaves_nothing_open(path: Path) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:3])
        with refusing_rows(log), pytest.raises(sqlite3.OperationalError):
            log.append(ROWS[3:])
        assert not log._writer.in_transaction
        assert_unchanged(log, path, ROWS[:3])


def test_it_keeps_the_id_that_it_took_over_first(path: Path) -> None:
    with closing(OrderLog(path)) as log:
        assert log.cluster_id == ""
        log.append(ROWS[:2], CLUSTER)
        log.append(ROWS[2:3], CLUSTER)
        assert log.cluster_id == CLUSTER
    with closing(OrderLog(path)) as log:
        assert (log.cluster_id, log.last_number) == (CLUSTER, 3)


# As version 1 made it.
VERSION_1 = """
CREATE TABLE orders (
    number INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""


def write_version_1(path: Path, rows: list[Order]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(VERSION_1)
        values = [tuple(getattr(row, one.name) for one in fields(row)) for row in rows]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


@pytest.mark.parametrize("count", [0, 100])
def test_a_log_of_the_version_before_is_kept_and_has_no_id_yet(path: Path, count: int) -> None:
    write_version_1(path, ROWS[:count])
    for _ in range(2):
        log, damage = open_log(path)
        with closing(log):
            assert damage is None
            assert (log.rows(0), log.cluster_id) == (ROWS[:count], "")
            assert log._writer.execute("PRAGMA user_version").fetchone() == (2,)
    with closing(OrderLog(path)) as log:
        log.append(ROWS[count:], CLUSTER)
        assert log.cluster_id == CLUSTER


def test_a_damaged_log_of_the_version_before_is_set_aside_as_it_was(path: Path) -> None:
    write_version_1(path, [ROWS[0], *ROWS[2:]])
    log, damage = open_log(path)
    with closing(log):
        assert "row 3 does not follow row 1" in str(damage)
        assert log.rows(0) == []
    (aside,) = path.parent.glob("orders.db.damaged-*[0-9]")
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]


def test_a_log_is_never_set_aside_without_its_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the process dies between the two renames, no file may be lost."""
    path = tmp_path / "orders.db"
    for part in (path, path.with_name("orders.db-wal")):
        part.write_bytes(part.name.encode())

    def dies(self: Path, target: Path) -> None:
        self.rename(target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        set_aside(path)
    assert path.exists()
    assert b"orders.db-wal" in {part.read_bytes() for part in tmp_path.iterdir()}
