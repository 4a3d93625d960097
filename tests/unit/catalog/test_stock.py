from __future__ import annotations

from decimal import Decimal

import pytest

from catalog.stock import DONE, INVALID, NOT_PERMITTED, Stock
from common.domain import MAX_QUANTITY, MAX_VOLUME


@pytest.fixture
def stock() -> Stock:
    return Stock("stock1", Decimal("25.78"), volume=100, version=4)


def state(stock: Stock) -> tuple[int, int]:
    return stock.volume, stock.version


def test_buying_takes_out_of_the_volume(stock: Stock) -> None:
    assert stock.trade(30, "BUY") == DONE == 1
    assert state(stock) == (70, 5)


def test_selling_puts_back(stock: Stock) -> None:
    assert stock.trade(30, "SELL") == DONE
    assert state(stock) == (130, 5)


def test_the_last_one_can_be_bought(stock: Stock) -> None:
    assert stock.trade(100, "BUY") == DONE
    assert state(stock) == (0, 5)
    assert stock.trade(1, "BUY") == NOT_PERMITTED == 0
    assert state(stock) == (0, 5)


def test_more_than_the_volume_is_not_permitted(stock: Stock) -> None:
    assert stock.trade(101, "BUY") == NOT_PERMITTED
    assert state(stock) == (100, 4)


def test_a_sale_stops_below_two_to_the_53(stock: Stock) -> None:
    stock.volume = MAX_VOLUME - 10
    assert stock.trade(11, "SELL") == NOT_PERMITTED
    assert state(stock) == (2**53 - 11, 4)
    assert stock.trade(10, "SELL") == DONE
    assert stock.volume == 2**53 - 1


@pytest.mark.parametrize("quantity", [0, -1, MAX_QUANTITY + 1, 2**70, 1.0, True, "1", None])
def test_a_quantity_out_of_range_is_invalid(stock: Stock, quantity: object) -> None:
    for trade_type in ("BUY", "SELL"):
        assert stock.trade(quantity, trade_type) == INVALID == -1  # type: ignore[arg-type]
    assert state(stock) == (100, 4)


@pytest.mark.parametrize("trade_type", ["", "buy", "HOLD", 0])
def test_another_type_is_invalid(stock: Stock, trade_type: object) -> None:
    assert stock.trade(1, trade_type) == INVALID  # type: ignore[arg-type]
    assert state(stock) == (100, 4)


def test_prints_readably(stock: Stock) -> None:
    assert str(stock) == "stock1: 100 at 25.78 (v4)"
