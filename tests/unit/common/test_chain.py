"""The fast verification of a stored chain: says what the row by row one would say."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import chain
from common.chain import verify_chain
from common.domain import (
    EMPTY_DIGEST,
    FRAME_SQL,
    MAX_EPOCH,
    MAX_NAME_LENGTH,
    MAX_ORDER_NUMBER,
    MAX_QUANTITY,
    MAX_REQUEST_ID_LENGTH,
    ORDER_COLUMNS,
    ORDER_FIELDS,
    Order,
    next_digest,
)
from common.errors import Damaged
from tests.unit.order.fakes import chained, make_rows

CHUNK = 10
ROWS = make_rows(35)  # three chunks and a part of one

valid_rows = st.builds(
    Order,
    number=st.integers(1, MAX_ORDER_NUMBER),
    request_id=st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E),
        min_size=1,
        max_size=MAX_REQUEST_ID_LENGTH,
    ),
    name=st.text(
        st.characters(codec="utf-8").filter(str.isprintable), min_size=1, max_size=MAX_NAME_LENGTH
    ),
    type=st.sampled_from(("BUY", "SELL")),
    quantity=st.integers(1, MAX_QUANTITY),
    version=st.integers(1, MAX_ORDER_NUMBER),
    epoch=st.integers(1, MAX_EPOCH),
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_CHUNK", CHUNK)


@pytest.fixture(scope="module")
def memory() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE rows ({ORDER_COLUMNS})")
        yield connection


@given(row=valid_rows, previous=st.binary(min_size=32, max_size=32))
def test_sqlite_frames_a_row_as_the_digest_does(
    memory: sqlite3.Connection, row: Order, previous: bytes
) -> None:
    memory.execute("DELETE FROM rows")
    memory.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(row))
    ((frame,),) = memory.execute(f"SELECT {FRAME_SQL} FROM rows").fetchall()  # noqa: S608 - a constant
    assert chain.hashlib.sha256(previous + frame).digest() == next_digest(previous, row)


def write(path: Path, rows: Sequence[Order]) -> Path:
    types = ("INTEGER PRIMARY KEY", "TEXT", "TEXT", "TEXT", "INTEGER", "INTEGER", "INTEGER", "BLOB")
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(ORDER_FIELDS, types, strict=True))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE rows ({columns}) STRICT")
        values = [astuple(row) for row in rows]
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    return path


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.db", ROWS)


def change(path: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, parameters)


def never(*_arguments: object) -> tuple[int, bytes]:
    raise AssertionError("looked at again, row by row")


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, len(ROWS)])
def test_a_whole_chain_is_verified_without_looking_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(chain, "_verify_each_row", never)
    path = write(tmp_path / "rows.db", ROWS[:count])
    assert verify_chain(path, "rows") == (count, ROWS[count - 1].digest if count else EMPTY_DIGEST)


@pytest.mark.parametrize("looks_twice", [False, True])
def test_verifying_can_be_ended(
    written: Path, monkeypatch: pytest.MonkeyPatch, looks_twice: bool
) -> None:
    if looks_twice:
        monkeypatch.setattr(chain._Chunk, "continues", lambda *_: None)
    checks = iter(range(2))
    with pytest.raises(StopIteration):
        verify_chain(written, "rows", lambda: next(checks) and None)


def test_a_frame_in_another_order_costs_a_second_look_only(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain._Chunk, "continues", lambda *_: None)
    assert verify_chain(written, "rows") == (len(ROWS), ROWS[-1].digest)


CHANGES = {
    "request_id": "request_id || 'x'",
    "name": "name || 'ü'",
    "type": "'SELL'",
    "quantity": "quantity + 1",
    "version": "version - 1",
    "epoch": "epoch + 1",
    "digest": "zeroblob(32)",
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("number", [1, CHUNK, CHUNK + 1, 17, len(ROWS)])
def test_a_changed_field_of_any_row_is_found_and_named(
    written: Path, field: str, number: int
) -> None:
    statement = f"UPDATE rows SET {field} = {CHANGES[field]} WHERE number = ?"  # noqa: S608
    change(written, statement, number)
    with pytest.raises(Damaged, match=f"row {number} does not follow row {number - 1}"):
        verify_chain(written, "rows")


@pytest.mark.parametrize("number", [1, CHUNK, CHUNK + 1, 17, len(ROWS) - 1])
def test_a_missing_row_is_found_and_named(written: Path, number: int) -> None:
    change(written, "DELETE FROM rows WHERE number = ?", number)
    with pytest.raises(Damaged, match=f"row {number + 1} does not follow row {number - 1}"):
        verify_chain(written, "rows")


@pytest.mark.parametrize(("first", "last"), [(1, CHUNK), (11, 30), (5, 25), (1, len(ROWS) - 1)])
def test_many_missing_rows_are_found(written: Path, first: int, last: int) -> None:
    change(written, "DELETE FROM rows WHERE number BETWEEN ? AND ?", first, last)
    with pytest.raises(Damaged, match=f"row {last + 1} does not follow row {first - 1}"):
        verify_chain(written, "rows")


@pytest.mark.parametrize(("number", "other"), [(3, 4), (CHUNK, CHUNK + 1), (1, len(ROWS))])
def test_swapped_rows_are_found(written: Path, number: int, other: int) -> None:
    for old, new in ((number, 1000), (other, number), (1000, other)):
        change(written, "UPDATE rows SET number = ? WHERE number = ?", new, old)
    with pytest.raises(Damaged, match=f"row {number} "):
        verify_chain(written, "rows")


@pytest.mark.parametrize("number", [-5, 0, 36, 37, 41, 1_000_000, MAX_ORDER_NUMBER])
def test_a_row_that_does_not_belong_is_found(written: Path, number: int) -> None:
    (row,) = chained([Order(number, "forged", "stock1", "SELL", 1, 1, 1)], b"x" * 32)
    change(written, "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *astuple(row))
    with pytest.raises(Damaged, match=f"row {number} "):
        verify_chain(written, "rows")


@pytest.mark.parametrize("number", [2, CHUNK, len(ROWS)])
def test_a_chain_that_is_whole_but_leaves_a_number_out_is_found(
    tmp_path: Path, number: int
) -> None:
    rows = chained([*ROWS[: number - 1], *make_rows(3, after=[ROWS[number - 1]])])
    with pytest.raises(Damaged, match=f"row {number + 1} does not follow row {number - 1}"):
        verify_chain(write(tmp_path / "rows.db", rows), "rows")


def test_the_last_row_under_another_number_is_found(written: Path) -> None:
    change(written, "UPDATE rows SET number = 36 WHERE number = 35")
    with pytest.raises(Damaged, match="row 36 does not follow row 34"):
        verify_chain(written, "rows")


def test_a_byte_that_moved_to_the_next_digest_is_found(written: Path) -> None:
    first, second = ROWS[4].digest, ROWS[5].digest
    change(written, "UPDATE rows SET digest = ? WHERE number = 5", first[:-1])
    change(written, "UPDATE rows SET digest = ? WHERE number = 6", first[-1:] + second)
    with pytest.raises(Damaged, match="row 5 "):
        verify_chain(written, "rows")


@pytest.mark.parametrize("text", ["stock1\0", "\0", "a\0b", ""])
def test_text_that_no_row_can_hold_is_found(written: Path, text: str) -> None:
    change(written, "UPDATE rows SET name = ? WHERE number = 5", text)
    with pytest.raises(Damaged, match="row 5 "):
        verify_chain(written, "rows")


@settings(max_examples=50)  # each writes a database
@given(number=st.integers(1, len(ROWS)), row=valid_rows)
def test_a_row_replaced_by_any_other_is_found(
    tmp_path_factory: pytest.TempPathFactory, number: int, row: Order
) -> None:
    rows = list(ROWS)
    forged = astuple(row)[1:-1]
    rows[number - 1] = Order(number, *forged, digest=ROWS[number - 1].digest)
    path = write(tmp_path_factory.mktemp("forged") / "rows.db", rows)
    if rows != ROWS:
        with pytest.raises(Damaged, match=f"row {number} "):
            verify_chain(path, "rows")
