"""Answers, and what is to be found in them."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from client.connection import Response

STOCK_NOT_FOUND = "stock not found"
ORDER_NOT_FOUND = "order not found"
INSUFFICIENT_VOLUME = "Trading not permitted due to insufficient volume"

# A stock's volume stays below it.
_VOLUME_LIMIT = 2**53


class Malformed(Exception):
    """The answer is not what the API promises; the message says in what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The final answer to a request.

    `body` is what the JSON stands for, numbers with a point as Decimal; the text if it is no
    JSON. `latency_s` is all the time that the caller waited, repeats and pauses included.
    """

    status: int
    headers: http.client.HTTPMessage
    body: Any
    latency_s: float
    attempts: int

    @classmethod
    def read(cls, response: Response, latency_s: float, attempts: int) -> Answer:
        body: Any = response.body.decode("utf-8", "replace")
        if response.headers.get_content_type() == "application/json":
            body = _parsed(body)
        return cls(response.status, response.headers, body, latency_s, attempts)

    @property
    def data(self) -> Any:
        """What stands under `data`, or None."""
        return self.body.get("data") if isinstance(self.body, dict) else None

    @property
    def error_message(self) -> str | None:
        """The message of the API's error, or None."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        return message if isinstance(message, str) else None

    def __str__(self) -> str:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body, default=_plain)
        return f"{self.status} {' '.join(text.split())[:300]}"


@dataclass(frozen=True, slots=True)
class Quote:
    name: str
    price: Decimal
    quantity: int


@dataclass(frozen=True, slots=True)
class Order:
    number: int
    name: str
    type: str
    quantity: int

    def __str__(self) -> str:
        return f"order {self.number}: {self.type} {self.quantity} {self.name}"


def quote(answer: Answer) -> Quote:
    """The stock in the answer to a lookup. Raises Malformed."""
    found = _fields(answer, {"name": str, "price": (int, Decimal), "quantity": int})
    price = Decimal(found["price"])
    if price < 0 or price != round(price, 2):
        raise Malformed(f"price {price} is not one with two places: {answer}")
    if not 0 <= found["quantity"] < _VOLUME_LIMIT:
        raise Malformed(f"quantity {found['quantity']} is out of range: {answer}")
    return Quote(found["name"], price, found["quantity"])


def order(answer: Answer) -> Order:
    """The order in the answer to an order lookup. Raises Malformed."""
    kinds = {"number": int, "name": str, "type": str, "quantity": int}
    return Order(**_fields(answer, kinds))


def order_number(answer: Answer) -> int:
    """The number in the answer to a trade. Raises Malformed."""
    number: int = _fields(answer, {"transaction_number": int})["transaction_number"]
    if number < 1:
        raise Malformed(f"order numbers start at 1: {answer}")
    return number


def _fields(answer: Answer, kinds: dict[str, Any]) -> dict[str, Any]:
    data = answer.data
    if not isinstance(data, dict) or data.keys() != kinds.keys():
        raise Malformed(f"`data` should hold exactly {', '.join(kinds)}: {answer}")
    for name, kind in kinds.items():
        # Python's bool is an int, JSON's is not.
        if not isinstance(data[name], kind) or isinstance(data[name], bool):
            raise Malformed(f"{name} has the wrong type: {answer}")
    return data


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return text  # what is no JSON after all is shown as it came, and fails its checks


def _plain(value: object) -> float:
    """For json.dumps: the only type in a parsed body that it does not know is Decimal."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} came from no JSON")
