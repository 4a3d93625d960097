"""The log on a real disk: what it keeps, what it notices, what it sets aside and what not."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import Damaged, Unavailable
from common.records import EMPTY_DIGEST, Order
from order import log as log_module
from order.log import OrderLog, open_log
from tests.unit.order_fakes import chained, make_rows, numbers, refusing_rows

ROWS = make_rows(130)  # more than a page of them


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


@pytest.fixture
def written(path: Path) -> Path:
    """A closed log that holds ROWS."""
    with closing(OrderLog(path)) as log:
        log.append(ROWS)
    return path


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(statement)


def assert_set_aside(path: Path, why: str) -> None:
    """Opening the log says why, keeps what was there under another name, and starts anew."""
    log, damage = open_log(path)
    with closing(log):
        assert damage is not None
        assert re.search(why, damage), damage
        asides = [one.name for one in path.parent.glob("orders.db.damaged-*")]
        assert damage.partition("; set aside as ")[2] in asides
        assert "\n" not in damage
        assert (log.last_number, log.digest, log.rows(0)) == (0, EMPTY_DIGEST, [])
        log.append(ROWS)
    with closing(OrderLog(path)) as rebuilt:
        assert rebuilt.rows(0) == ROWS


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
    """Its files as they lie on the disk while it runs, never closed."""
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
    with closing(sqlite3.connect(path)) as connection:  # what is on the disk
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


# ------------------------------------------------------------ damage

DAMAGES = {
    "request id": ("UPDATE orders SET request_id = 'another' WHERE number = 60", "row 60 "),
    "name": ("UPDATE orders SET name = 'stock9' WHERE number = 60", "row 60 "),
    "type": ("UPDATE orders SET type = 'SELL' WHERE number = 60", "row 60 "),
    "quantity": ("UPDATE orders SET quantity = quantity + 1 WHERE number = 60", "row 60 "),
    "version": ("UPDATE orders SET version = 0 WHERE number = 60", "row 60 "),
    "epoch": ("UPDATE orders SET epoch = 2 WHERE number = 60", "row 60 "),
    "digest": ("UPDATE orders SET digest = zeroblob(32) WHERE number = 60", "row 60 "),
    "digest of the last row": ("UPDATE orders SET digest = x'00' WHERE number = 130", "row 130 "),
    "text that is none": (
        "UPDATE orders SET name = CAST(x'ff' AS TEXT) WHERE number = 60",
        "UTF-8",
    ),
    "a middle row gone": ("DELETE FROM orders WHERE number = 60", "row 61 does not follow row 59"),
    "the first row gone": ("DELETE FROM orders WHERE number = 1", "row 2 does not follow row 0"),
    "two rows swapped": (
        "UPDATE orders SET number = 1000 WHERE number = 60;"
        "UPDATE orders SET number = 60 WHERE number = 61;"
        "UPDATE orders SET number = 61 WHERE number = 1000",
        "row 60 does not follow row 59",
    ),
    "a forged row": (
        "INSERT INTO orders VALUES (131, 'forged', 'stock1', 'SELL', 1, 131, 1, zeroblob(32))",
        "row 131 does not follow row 130",
    ),
    "a row numbered 0": (
        "INSERT INTO orders VALUES (0, 'zero', 'stock1', 'SELL', 1, 1, 1, zeroblob(32))",
        "row 0 ",
    ),
    "no table": ("DROP TABLE orders", "no such table"),
    "another table": ("ALTER TABLE orders RENAME COLUMN version TO generation", "no such column"),
    "a later schema": ("PRAGMA user_version = 2", "schema version 2 is not 1"),
    "no schema version": ("PRAGMA user_version = 0", "already exists"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed_said_and_set_aside(written: Path, damage: str) -> None:
    statement, why = DAMAGES[damage]
    change(written, statement)
    with pytest.raises(Damaged, match=why):
        OrderLog(written)
    assert_set_aside(written, why)


def test_a_log_that_ends_earlier_is_none(written: Path) -> None:
    change(written, "DELETE FROM orders WHERE number > 77")
    log, damage = open_log(written)
    with closing(log):
        assert damage is None
        assert (log.last_number, log.digest) == (77, ROWS[76].digest)


def test_rows_whose_numbers_leave_one_out_are_damage_though_their_chain_is_whole(
    path: Path,
) -> None:
    with closing(OrderLog(path)) as log:
        log.append(chained([ROWS[0], ROWS[2]]))
    assert_set_aside(path, "row 3 does not follow row 1")


@pytest.mark.parametrize("content", [b"order,name\n1,stock1\n" * 100, b"??", b"\0" * 5000])
def test_what_is_no_database_is_set_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert_set_aside(path, "file is not a database")
    (aside,) = path.parent.glob("orders.db.damaged-*")
    assert aside.read_bytes() == content


def test_nothing_of_a_damaged_log_is_thrown_away(written: Path) -> None:
    for _ in range(2):
        change(written, "PRAGMA user_version = 7")
        log, damage = open_log(written)
        with closing(log):
            log.append(ROWS)
        assert damage is not None
    asides = list(written.parent.glob("orders.db.damaged-*"))
    assert len(asides) == 2
    for aside in asides:
        change(aside, "PRAGMA user_version = 1")
        with closing(OrderLog(aside)) as log:
            assert log.rows(0) == ROWS


def test_a_damaged_logs_writes_ahead_do_not_get_into_the_new_one(written: Path) -> None:
    """Of a killed process whose file was damaged, the write-ahead log lies beside it still."""
    with closing(OrderLog(written)) as log:
        log.append(make_rows(3, after=ROWS))
        ahead = Path(f"{written}-wal").read_bytes()
    written.write_bytes(b"scribbled over" * 1000)
    Path(f"{written}-wal").write_bytes(ahead)
    assert_set_aside(written, "file is not a database")


def test_a_file_cut_off_anywhere_is_noticed(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    for length in range(2, len(content), 501):
        copy = tmp_path / f"cut at {length}" / "orders.db"
        copy.parent.mkdir()
        copy.write_bytes(content[:length])
        log, damage = open_log(copy)
        with closing(log):
            assert damage is not None, length
            assert log.rows(0) == []


def served(path: Path) -> str:
    """How a log with a flipped bit is taken: `damaged`, `whole`, or what is wrong with it."""
    log, damage = open_log(path)
    with closing(log):
        if damage is not None:
            return "damaged" if log.rows(0) == [] else "damaged, yet served"
        if log.rows(0) != ROWS:
            return "other rows are served"
        missing = [row.number for row in ROWS if log.row(row.number) != row]
        return f"rows not found: {missing}" if missing else "whole"


def flip(content: bytes, position: int, bit: int) -> bytes:
    return b"%b%c%b" % (content[:position], content[position] ^ 1 << bit, content[position + 1 :])


def test_a_flipped_bit_is_noticed_or_does_not_matter(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    chance = random.Random(11)  # noqa: S311 - repeatable on purpose
    results = []
    for attempt in range(120):
        # Behind the first two pages, which hold the header and the tree's root, lie the rows.
        position = chance.randrange(2 * 4096, len(content))
        copy = tmp_path / str(attempt) / "orders.db"
        copy.parent.mkdir()
        copy.write_bytes(flip(content, position, chance.randrange(8)))
        results.append(served(copy))
    assert set(results) == {"damaged", "whole"}  # a page has unused bytes, too
    assert results.count("damaged") > 60


def test_a_flipped_bit_in_the_way_to_the_rows_is_noticed(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    results = {}
    for position in range(2 * 4096 - 10, 2 * 4096):  # the cells of the tree's root
        for bit in range(8):
            copy = tmp_path / f"{position} {bit}" / "orders.db"
            copy.parent.mkdir()
            copy.write_bytes(flip(content, position, bit))
            results[position, bit] = served(copy)
    assert set(results.values()) <= {"damaged", "whole"}


def test_a_page_that_goes_bad_while_the_log_is_open_is_not_served(written: Path) -> None:
    with closing(OrderLog(written)) as log:
        content = written.read_bytes()
        written.write_bytes(content[: 2 * 4096] + b"\xaa" * (len(content) - 2 * 4096))
        with pytest.raises(Damaged, match=r"orders\.db: .*malformed"):
            log.row(60)
        with pytest.raises(Damaged):
            list(log.chunks(0))


# ------------------------------------------------------------ trouble with the disk is no damage


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


def test_a_file_that_cannot_be_opened_is_trouble_with_the_disk(path: Path) -> None:
    path.mkdir()
    with pytest.raises(Unavailable, match=r"orders\.db: unable to open"):
        open_log(path)


class UnreadableDisk:
    """In place of a connection."""

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
    """Who reads while the service stops must not stop it for good."""
    log = OrderLog(written)
    log.close()
    with pytest.raises(Unavailable):
        log.rows(0)


# ------------------------------------------------------------ the log as text


def saved(path: Path) -> list[list[str]]:
    with path.with_name("stockOrderDB.txt").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


HEADER = ["number", "name", "type", "quantity"]


def test_save_writes_every_row(path: Path) -> None:
    rows = make_rows(1_200)
    with closing(OrderLog(path)) as log:
        assert log.save() == 0
        assert saved(path) == [HEADER]
        log.append(rows)
        assert log.save() == 1_200
    assert saved(path) == [
        HEADER,
        *([str(row.number), row.name, row.type, str(row.quantity)] for row in rows),
    ]


@pytest.mark.parametrize("name", ["a,b", 'say "hi"', '",",', " spaced ", "株", "'", "=1+1"])
def test_save_keeps_names_as_they_are(path: Path, name: str) -> None:
    rows = chained([Order(1, "k", name, "SELL", 3, 1, 1), Order(2, "l", "stock1", "BUY", 4, 1, 1)])
    with closing(OrderLog(path)) as log:
        log.append(rows)
        log.save()
    assert saved(path) == [HEADER, ["1", name, "SELL", "3"], ["2", "stock1", "BUY", "4"]]
    text = path.with_name("stockOrderDB.txt").read_bytes()
    assert text.endswith(b"2,stock1,BUY,4\n")
    assert b"\r" not in text


def test_save_replaces_the_file_at_the_end_only(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:1])
        log.save()
        before = saved(path)
        log.append(ROWS[1:])
        seen = []

        def sync(_file: int) -> None:
            seen.append(saved(path))

        monkeypatch.setattr(os, "fsync", sync)
        log.save()
    assert seen == [before]  # all is written and synced before the old file is let go
    assert len(saved(path)) == 1 + len(ROWS)
    assert not list(path.parent.glob("*.tmp"))


def fail_to_sync(_file: int) -> None:
    raise OSError("no space left on device")


def test_a_save_that_fails_leaves_the_file_as_it_was(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS[:1])
        log.save()
        before = saved(path)
        log.append(ROWS[1:])
        monkeypatch.setattr(os, "fsync", fail_to_sync)
        with pytest.raises(OSError, match="no space left"):
            log.save()
    assert saved(path) == before


def test_a_save_that_fails_leaves_no_draft(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(os, "fsync", fail_to_sync)
    with closing(OrderLog(path)) as log:
        log.append(ROWS)
        with pytest.raises(OSError, match="no space left"):
            log.save()
    assert not list(path.parent.glob("*.tmp"))


def test_saves_at_once_do_not_write_into_one_file(path: Path) -> None:
    with closing(OrderLog(path)) as log:
        log.append(ROWS)
        in_step = threading.Barrier(4, timeout=10)
        fsync = os.fsync

        def sync(file: int) -> None:
            in_step.wait()  # all have written, none has replaced
            fsync(file)

        def save(_index: int) -> int:
            return log.save()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "fsync", sync)
            assert run_at_once(save, 4) == [len(ROWS)] * 4
    assert [int(line[0]) for line in saved(path)[1:]] == numbers(ROWS)


def run_at_once(work: Callable[[int], int], count: int) -> list[int]:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda index=index: results.append(work(index)))
        for index in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
