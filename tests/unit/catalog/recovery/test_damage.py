"""Damaged catalogs on a real disk: refused with a line that says what is wrong, and left alone."""

from __future__ import annotations

import random
import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from catalog.sqlite.database import Database
from catalog.sqlite.files import CannotOpen, DamagedCatalog
from order.log.log import OrderLog
from tests.unit.catalog.files import bytes_of, change, content, trades, write_catalog
from tests.unit.catalog.support import NOW_S, buy, store_on


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / "data")


def assert_refused(data: Path, why: str) -> None:
    before = bytes_of(data)
    with pytest.raises(DamagedCatalog, match=why) as refusal:
        Database(data, data.parent / "stocks.txt")
    message = str(refusal.value)
    assert message.startswith(f"{data / 'catalog.db'} is damaged: ")
    assert "python -m catalog restore" in message
    assert "\n" not in message
    assert bytes_of(data) == before


REORDER = (
    "UPDATE journal SET number = 1000 WHERE number = 60;"
    "UPDATE journal SET number = 60 WHERE number = 61;"
    "UPDATE journal SET number = 61 WHERE number = 1000"
)
FORGED = "VALUES (1000, 'forged', 'stock1', 'SELL', 1, 131, 1, zeroblob(32))"

DAMAGES = {
    "request id": ("UPDATE journal SET request_id = 'another' WHERE number = 60", "row 60 "),
    "name": ("UPDATE journal SET name = 'stock9' WHERE number = 60", "row 60 "),
    "type": (
        "UPDATE journal SET type = iif(type = 'BUY', 'SELL', 'BUY') WHERE number = 60",
        "row 60 ",
    ),
    "quantity": ("UPDATE journal SET quantity = quantity + 1 WHERE number = 60", "row 60 "),
    "huge quantities": ("UPDATE journal SET quantity = 9223372036854775807", "row 1 "),
    "order's version": ("UPDATE journal SET version = version + 1 WHERE number = 60", "row 60 "),
    "order's epoch": ("UPDATE journal SET epoch = 3 WHERE number = 60", "row 60 "),
    "digest": ("UPDATE journal SET digest = zeroblob(32) WHERE number = 60", "row 60 "),
    "a middle row gone": ("DELETE FROM journal WHERE number = 60", "row 61 .* follow row 59"),
    "the first row gone": ("DELETE FROM journal WHERE number = 1", "row 2 .* follow row 0"),
    "the last row gone": (
        "DELETE FROM journal WHERE number = (SELECT max(number) FROM journal)",
        "stock.* has version .* after .* orders",
    ),
    "all rows gone": ("DELETE FROM journal", "stock.* has version .* after 0 orders"),
    "two rows swapped": (REORDER, "row 60 does not follow row 59"),
    "a forged row": (f"INSERT INTO journal {FORGED}", "row 1000 "),
    "volume": ("UPDATE stocks SET volume = volume + 1 WHERE name = 'stock2'", "stock2 began with"),
    "version": ("UPDATE stocks SET version = 0 WHERE name = 'stock1'", "stock1 has version 0"),
    "initial volume": (
        "UPDATE stocks SET initial_volume = 7 WHERE name = 'stock2'",
        "stock2 began with a volume of 7",
    ),
    "volume and initial volume": (
        "UPDATE stocks SET initial_volume = initial_volume + 1, volume = volume + 1",
        "initial volume of 'stock1' is not the one it had",
    ),
    "price": ("UPDATE stocks SET price_cents = 1 WHERE name = 'stock2'", "price .* 'stock2'"),
    "a stock gone": ("DELETE FROM stocks WHERE name = 'stock2'", "orders of 'stock2', but no such"),
    "fence": ("UPDATE fence SET epoch = 1", r"the fence \(epoch 1, leader 3\) is not"),
    "a volume that cannot be": (
        "PRAGMA ignore_check_constraints = ON; UPDATE stocks SET volume = -5",
        "stock.* has a volume of -5",
    ),
    "no journal": ("DROP TABLE journal", "no catalog's database, its tables are: cluster, fence"),
    "another cluster": ("UPDATE cluster SET id = 'x'", "the cluster's id is not the one it had"),
    "no cluster": ("DELETE FROM cluster", "the cluster's id is gone"),
    "no refusals": ("DROP TABLE refusals", "no such table"),
    "text that is none": (
        "UPDATE journal SET name = CAST(x'ff' AS TEXT) WHERE number = 60",
        "row 60|UTF-8",
    ),
}


@pytest.mark.parametrize("damage", sorted(set(DAMAGES) - {"no refusals"}))
def test_what_contradicts_the_rest_is_damage(data: Path, damage: str) -> None:
    statements, why = DAMAGES[damage]
    change(data / "catalog.db", statements)
    assert_refused(data, why)


def test_an_order_that_its_request_id_does_not_find_is_damage(data: Path) -> None:
    """It would be executed again. Here the index has another id than the row, as after a flip."""
    path = data / "catalog.db"
    (request_id,) = (one.request_id for one in content(data)[1] if one.number == 60)
    raw = path.read_bytes()
    places = [at for at in range(len(raw)) if raw.startswith(request_id.encode(), at)]
    assert len(places) == 2  # the row and the index
    results = set()
    for place in places:
        path.write_bytes(raw[:place] + b"2" + raw[place + 1 :])
        with pytest.raises(DamagedCatalog) as refusal:
            Database(data, data.parent / "stocks.txt")
        results.add(re.sub("[0-9]+", "N", str(refusal.value).partition("damaged: ")[2][:30]))
    assert results == {"row N does not follow row N.", "order N is not found by its r"}


@pytest.mark.parametrize("offset", [18, 19])
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_version_in_the_header_is_damage(data: Path, offset: int, bit: int) -> None:
    path = data / "catalog.db"
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1 << bit
    path.write_bytes(raw)
    assert_refused(data, "its header has file format versions")


def test_any_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path, data: Path) -> None:
    whole = content(data)
    raw = (data / "catalog.db").read_bytes()
    chance = random.Random(5)  # noqa: S311 - repeatable on purpose
    noticed = 0
    places = [*range(100), *(chance.randrange(100, len(raw)) for _ in range(100))]
    for place in places:
        copy = tmp_path / "copy"
        shutil.copytree(data, copy)
        flipped = bytearray(raw)
        flipped[place] ^= 1 << chance.randrange(8)
        (copy / "catalog.db").write_bytes(flipped)
        before = bytes_of(copy)
        try:
            stocks, journal, registered = content(copy)
        except CannotOpen:
            noticed += 1
            assert bytes_of(copy) == before
        else:
            assert (stocks, journal) == whole[:2], place
            assert registered[0] >= whole[2][0], place
        shutil.rmtree(copy)
    assert noticed > 50


def test_a_file_cut_off_anywhere_is_noticed(data: Path) -> None:
    raw = (data / "catalog.db").read_bytes()
    for length in range(0, len(raw), 1501):
        (data / "catalog.db").write_bytes(raw[:length])
        assert_refused(data, "are left of it|malformed|not follow|no such table|orders|found|Tree")


def test_a_file_of_text_is_no_catalog(data: Path) -> None:
    (data / "catalog.db").write_text("stockname,price,currvol" * 100)
    assert_refused(data, "not a database")


def test_an_empty_file_is_not_filled_anew(data: Path) -> None:
    (data / "catalog.db").write_bytes(b"")
    assert_refused(data, "only 0 bytes are left of it")


def test_a_file_that_is_gone_is_not_made_anew(data: Path) -> None:
    (data / "catalog.db").unlink()
    assert_refused(data, "the file is gone")
    assert not (data / "catalog.db").exists()


def test_a_directory_that_was_emptied_is_a_first_start(data: Path) -> None:
    shutil.rmtree(data)
    stocks, journal, registered = content(data)
    assert ([stock.version for stock in stocks], journal, registered) == ([0, 0, 0], [], (0, 0))


def test_an_order_log_in_its_place_is_refused(data: Path) -> None:
    with closing(OrderLog(data.parent / "orders.db")) as log:
        log.append(content(data)[1])
    (data.parent / "orders.db").replace(data / "catalog.db")
    assert_refused(data, "it is no catalog's database, its tables are: cluster, orders")


# ------------------------------------------------------------ the write-ahead log of a kill


@pytest.fixture
def killed(tmp_path: Path, data: Path) -> Path:
    """As a killed process leaves it: the newest order is in the write-ahead log only."""
    copy = tmp_path / "killed"
    with closing(Database(data, tmp_path / "stocks.txt")) as database:
        store = store_on(database, lambda: NOW_S)
        store.fence(3, 1)
        assert store.update(3, [buy("newest", 1, "stock10")])[0].number > 0
        shutil.copytree(data, copy)
    return copy


def test_a_missing_write_ahead_log_is_noticed(killed: Path) -> None:
    (killed / "catalog.db-wal").unlink()
    assert_refused(killed, "catalog.db-wal, which has its newest orders, is gone")


def test_a_write_ahead_log_without_its_database_is_noticed(killed: Path) -> None:
    (killed / "catalog.db").unlink()
    (killed / "catalog.lock").unlink()
    assert_refused(killed, "only catalog.db-wal is left")


def test_a_refused_start_leaves_the_write_ahead_log_alone(killed: Path) -> None:
    whole = bytes_of(killed)
    damaged = bytearray(whole["catalog.db"])
    damaged[damaged.index(trades(1)[0].request_id.encode())] = ord("9")
    (killed / "catalog.db").write_bytes(damaged)
    for _ in range(2):
        assert_refused(killed, "row 1 does not follow row 0|order 1 is not found")
    (killed / "catalog.db").write_bytes(whole["catalog.db"])
    assert content(killed)[1][-1].request_id == "newest"
