"""Converts trades and orders to and from the messages of `proto/bourse.proto`."""

from __future__ import annotations

from collections.abc import Iterable

from common.domain import BUY, SELL, Order, Trade
from proto import bourse_pb2

# Used for every row in a message: the generated enum's own methods take three times as long.
TYPE_NUMBERS = {BUY: bourse_pb2.BUY, SELL: bourse_pb2.SELL}
TYPE_NAMES: dict[int, str] = {number: name for name, number in TYPE_NUMBERS.items()}


def trade_to_request(trade: Trade) -> bourse_pb2.TradeRequest:
    return bourse_pb2.TradeRequest(
        request_id=trade.request_id,
        name=trade.name,
        type=TYPE_NUMBERS[trade.type],
        quantity=trade.quantity,
    )


def trade_from_request(request: bourse_pb2.TradeRequest | bourse_pb2.UpdateRequest) -> Trade:
    """The trade that somebody sent. A message can carry any number as the type; with one that is
    no type, the trade is not well-formed."""
    trade_type = TYPE_NAMES.get(request.type, "")
    return Trade(request.request_id, request.name, trade_type, request.quantity)


def order_to_item(order: Order) -> bourse_pb2.OrderDBItem:
    return bourse_pb2.OrderDBItem(
        number=order.number,
        request_id=order.request_id,
        name=order.name,
        type=TYPE_NUMBERS[order.type],
        quantity=order.quantity,
        version=order.version,
        epoch=order.epoch,
        digest=order.digest,
    )


def order_from_item(item: bourse_pb2.OrderDBItem) -> Order:
    """The row a peer sent. Raises ValueError for a trade type that is neither BUY nor SELL."""
    trade_type = TYPE_NAMES.get(item.type)
    if trade_type is None:
        raise ValueError(f"{item.type} is no trade type")
    return Order(
        item.number,
        item.request_id,
        item.name,
        trade_type,
        item.quantity,
        item.version,
        item.epoch,
        item.digest,
    )


def orders_from_items(items: Iterable[bourse_pb2.OrderDBItem]) -> list[Order]:
    return [order_from_item(item) for item in items]
