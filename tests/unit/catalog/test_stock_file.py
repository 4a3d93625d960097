from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from catalog.settings import CatalogSettings
from catalog.stock import Stock
from catalog.stock_file import MalformedStockFile, read_stocks

HEADER = "stockname,price,currvol\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stocks.txt"
    path.write_bytes(text.encode())
    return path


def test_the_file_that_comes_with_the_catalog() -> None:
    stocks = read_stocks(CatalogSettings().stocks_file)
    assert [stock.name for stock in stocks] == [f"stock{number}" for number in range(1, 11)]
    assert stocks[0].price == Decimal("25.78")
    assert all(stock.volume >= 100 and stock.version == 0 for stock in stocks)


def test_reads_in_order_with_exact_prices(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "b,0.1,0\na, 7 ,9007199254740991\n\nc,1000000000.00,5")
    assert read_stocks(path) == [
        Stock("b", Decimal("0.10"), 0),
        Stock("a", Decimal("7.00"), 2**53 - 1),
        Stock("c", Decimal("1000000000.00"), 5),
    ]


def test_takes_what_an_editor_on_windows_leaves(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + HEADER.replace("\n", "\r\n") + "a,1.50,2\r\n")
    assert read_stocks(path) == [Stock("a", Decimal("1.50"), 2)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("b,1.00", "2 fields instead of 3"),
        ("b,1.00,5,6", "4 fields instead of 3"),
        (",1.00,5", "name '' is not 1 to 64 printable characters"),
        ("n" * 65 + ",1.00,5", "is not 1 to 64 printable characters"),
        ("b\x07,1.00,5", r"name 'b\\x07' is not"),
        ("a,1.00,5", "'a' is already in line 2"),
        ("b,,5", "price '' is not a number"),
        ("b,abc,5", "price 'abc' is not a number"),
        ("b,NaN,5", "price 'NaN' is not a number"),
        ("b,1e3,5", "price '1e3' is not a number"),
        ("b,-1.00,5", "price '-1.00' is not a number"),
        ("b,٣,5", "price '٣' is not a number"),
        ("b,1.005,5", "price '1.005' has more than two places"),
        ("b,0.00,5", "price '0.00' is not above 0"),
        ("b,1000000000.01,5", "is not above 0 and at most 1000000000"),
        ("b,1.00,", "volume '' is not a whole number"),
        ("b,1.00,1.5", "volume '1.5' is not a whole number"),
        ("b,1.00,1_000", "volume '1_000' is not a whole number"),
        ("b,1.00,-1", "volume '-1' is not 0 to 9007199254740991"),
        ("b,1.00,9007199254740992", "volume '9007199254740992' is not 0 to"),
        ("b,1.00," + "9" * 5_000, "is not 0 to 9007199254740991"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = write(tmp_path, HEADER + "a,1.00,5\n\n" + line + "\nz,1.00,5\n")
    with pytest.raises(MalformedStockFile, match=complaint) as caught:
        read_stocks(path)
    assert f"{path}, line 4: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", HEADER])
def test_a_file_without_stocks_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedStockFile, match="there is no stock in it"):
        read_stocks(write(tmp_path, text))


@pytest.mark.parametrize("text", ["\na,1.00,5\n", "\na,1.00,5\nb,1.00,5\n"])
def test_a_file_without_its_header_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedStockFile, match=r"line 2: the header is 'a,1.00,5', not"):
        read_stocks(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedStockFile, match=r"gone\.txt: No such file"):
        read_stocks(tmp_path / "gone.txt")
    path = tmp_path / "binary.txt"
    path.write_bytes(HEADER.encode() + b"\xff\xfe")
    with pytest.raises(MalformedStockFile, match="not UTF-8 at byte 24"):
        read_stocks(path)
