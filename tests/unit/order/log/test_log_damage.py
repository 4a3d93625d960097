"""A damaged log on a real disk is noticed, and is set aside, not deleted."""

from __future__ import annotations

import random
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from common.domain import EMPTY_DIGEST
from common.errors import Damaged
from order.log.log import OrderLog, open_log
from tests.unit.order.fakes import chained, make_rows
from tests.unit.order.log.logs import ROWS, path_in, write_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return path_in(tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_log(tmp_path)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(statement)


def assert_set_aside(path: Path, why: str) -> None:
    """Opening the log gives the reason, renames the damaged file, and makes an empty log."""
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
    "no table for the cluster's id": ("DROP TABLE cluster", "no such table: cluster"),
    "another id": (
        "UPDATE cluster SET id = replace(id, 'b', 'c')",
        "the cluster's id is not the one it had",
    ),
    "a second id": (
        "INSERT INTO cluster SELECT * FROM cluster",
        "the cluster's id is not the one it had",
    ),
    "another table": ("ALTER TABLE orders RENAME COLUMN version TO generation", "no such column"),
    "a later schema": (
        "PRAGMA user_version = 3",
        "schema version 3, but this replica knows 1 to 2 only",
    ),
    "an earlier schema": ("PRAGMA user_version = -1", "schema version -1, but"),
    "no schema version": ("PRAGMA user_version = 0", "schema version 0, but"),
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
        change(aside, "PRAGMA user_version = 2")
        with closing(OrderLog(aside)) as log:
            assert log.rows(0) == ROWS


def test_a_damaged_logs_writes_ahead_do_not_get_into_the_new_one(written: Path) -> None:
    """After a kill, the write-ahead log is still beside the damaged file."""
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
    """What opening the log gives: `damaged`, `whole`, or what is wrong with it."""
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


def test_a_flipped_bit_in_the_header_is_noticed_or_does_not_matter(
    tmp_path: Path, written: Path
) -> None:
    """The test also appends: with some headers, a log can be read but not written."""
    content = written.read_bytes()
    for flipped in range(0, 8 * 100, 3):  # some bits of every byte
        position, bit = divmod(flipped, 8)
        copy = tmp_path / f"{position} {bit}" / "orders.db"
        copy.parent.mkdir()
        copy.write_bytes(flip(content, position, bit))
        log, damage = open_log(copy)
        with closing(log):
            kept = [] if damage else ROWS
            assert "\n" not in (damage or "")
            assert log.rows(0) == kept
            log.append(make_rows(1, after=kept))


def test_a_header_that_forbids_writing_is_damage(written: Path) -> None:
    written.write_bytes(flip(written.read_bytes(), 18, 0))  # the file format version for writing
    assert_set_aside(written, "its header forbids writing")


def test_a_flipped_bit_is_noticed_or_does_not_matter(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    chance = random.Random(11)  # noqa: S311 - repeatable on purpose
    results = []
    for attempt in range(120):
        # The rows come after the first three pages, which hold the header, the root of the tree and
        # the cluster's id.
        position = chance.randrange(3 * 4096, len(content))
        copy = tmp_path / str(attempt) / "orders.db"
        copy.parent.mkdir()
        copy.write_bytes(flip(content, position, chance.randrange(8)))
        results.append(served(copy))
    assert set(results) == {"damaged", "whole"}  # "whole", because a page also has unused bytes
    assert results.count("damaged") > 60


def test_a_flipped_bit_in_the_way_to_the_rows_is_noticed(tmp_path: Path, written: Path) -> None:
    content = written.read_bytes()
    results = {}
    for position in range(2 * 4096 - 10, 2 * 4096):  # the cells in the root of the tree
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
