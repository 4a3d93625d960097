"""The text file that a first start fills the catalog from: `stockname,price,currvol` lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from catalog.stock import Stock
from common.domain import MAX_NAME_LENGTH, MAX_VOLUME, is_valid_name

_HEADER = ["stockname", "price", "currvol"]
_PRICE = re.compile(r"(?P<units>[0-9]+)(?:\.(?P<places>[0-9]+))?")
_VOLUME = re.compile(r"-?[0-9]+")

# Prices travel as doubles, which tell two places apart only up to some size.
_MAX_PRICE = Decimal(1_000_000_000)


class MalformedStockFile(Exception):
    """The message names the file, the line and what is wrong with it."""


def read_stocks(path: Path) -> list[Stock]:
    """The stocks of the file, in its order.

    Raises:
        MalformedStockFile: the file cannot be read, or one of its lines is wrong.
    """
    lines = _numbered_lines(path)
    for number, fields in lines[:1]:
        with _in_line(path, number):
            _check_header(fields)
    line_of: dict[str, int] = {}
    stocks = []
    for number, fields in lines[1:]:
        with _in_line(path, number):
            stock = _parse(fields)
            if stock.name in line_of:
                raise ValueError(f"{stock.name!r} is already in line {line_of[stock.name]}")
        line_of[stock.name] = number
        stocks.append(stock)
    if not stocks:
        raise MalformedStockFile(f"{path}: there is no stock in it")
    return stocks


def _numbered_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The fields of each line that is not blank, with the line's number from 1."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise MalformedStockFile(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MalformedStockFile(f"{path}: not UTF-8 at byte {error.start}") from error
    return [
        (number, [field.strip() for field in line.split(",")])
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


@contextmanager
def _in_line(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise MalformedStockFile(f"{path}, line {number}: {error}") from None


def _check_header(fields: list[str]) -> None:
    if fields != _HEADER:
        raise ValueError(f"the header is {','.join(fields)!r}, not {','.join(_HEADER)!r}")


def _parse(fields: list[str]) -> Stock:
    if len(fields) != len(_HEADER):
        raise ValueError(f"{len(fields)} fields instead of {len(_HEADER)}")
    name, price, volume = fields
    if not is_valid_name(name):
        raise ValueError(f"name {name!r} is not 1 to {MAX_NAME_LENGTH} printable characters")
    return Stock(name, _parse_price(price), _parse_volume(volume))


def _parse_price(text: str) -> Decimal:
    match = _PRICE.fullmatch(text)
    if match is None:
        raise ValueError(f"price {text!r} is not a number")
    if len(match["places"] or "") > 2:
        raise ValueError(f"price {text!r} has more than two places")
    price = Decimal(text)
    if not 0 < price <= _MAX_PRICE:
        raise ValueError(f"price {text!r} is not above 0 and at most {_MAX_PRICE}")
    return price.quantize(Decimal("0.01"))


def _parse_volume(text: str) -> int:
    if _VOLUME.fullmatch(text) is None:
        raise ValueError(f"volume {text!r} is not a whole number")
    if len(text) > len(str(MAX_VOLUME)) or not 0 <= int(text) <= MAX_VOLUME:
        raise ValueError(f"volume {text!r} is not 0 to {MAX_VOLUME}")
    return int(text)
