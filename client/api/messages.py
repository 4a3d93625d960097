"""Requests and answers of the API, as values that can be shown, sent, compared and read."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote

STOCK_NOT_FOUND = "stock not found"
ORDER_NOT_FOUND = "order not found"
INSUFFICIENT_VOLUME = "Trading not permitted due to insufficient volume"

# The most that there can be of a stock.
MAX_VOLUME = 2**53 - 1

KEY_HEADER = "Idempotency-Key"
JSON_HEADERS = MappingProxyType({"Content-Type": "application/json"})
# What `__str__` shows at most of a body or a header.
_SHOWN_CHARACTERS = 120


class TradeType(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is counted from the base URL and holds the query, quoted."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    # False if "unavailable" is a useful answer, as for a health check.
    awaits_recovery: bool = True

    @classmethod
    def hello(cls, name: str) -> Self:
        return cls("GET", f"/hello?name={quote(name, safe='')}")

    @classmethod
    def lookup(cls, name: str) -> Self:
        return cls("GET", f"/stocks?stockname={quote(name, safe='')}")

    @classmethod
    def trade(cls, name: str, quantity: int, type: str, key: str | None = None) -> Self:
        """Only with a key is it safe to send more than once."""
        body = json.dumps({"name": name, "quantity": quantity, "type": type})
        headers = dict(JSON_HEADERS) if key is None else {**JSON_HEADERS, KEY_HEADER: key}
        return cls("POST", "/orders", body.encode(), headers)

    @classmethod
    def order(cls, number: int | str) -> Self:
        return cls("GET", f"/orders?order-number={quote(str(number), safe='')}")

    @property
    def is_repeatable(self) -> bool:
        """Whether the server executes it once, even if it arrives several times."""
        keyed = any(name.lower() == KEY_HEADER.lower() for name in self.headers)
        return keyed or self.method in ("GET", "HEAD", "OPTIONS")

    def __str__(self) -> str:
        shown = [f"{self.method} {self.path}"]
        if self.body is not None:
            shown.append(_shortened(self.body.decode("utf-8", "replace")))
        shown += [f"{name}: {_shortened(value)}" for name, value in self.headers.items()]
        return "  ".join(shown)


class Malformed(Exception):
    """The answer is not what the API promises; the message says in what."""


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
    def read(
        cls,
        status: int,
        headers: http.client.HTTPMessage,
        content: bytes,
        latency_s: float = 0.0,
        attempts: int = 1,
    ) -> Self:
        body: Any = content.decode("utf-8", "replace")
        if headers.get_content_type() == "application/json":
            body = _parsed(body)
        return cls(status, headers, body, latency_s, attempts)

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

    def quote(self) -> Quote:
        """The stock in the answer to a lookup. Raises Malformed."""
        found = _fields(self, {"name": str, "price": (int, Decimal), "quantity": int})
        price = Decimal(found["price"])
        if price < 0 or price != round(price, 2):
            raise Malformed(f"price {price} is not one with two places: {self}")
        if not 0 <= found["quantity"] <= MAX_VOLUME:
            raise Malformed(f"quantity {found['quantity']} is out of range: {self}")
        return Quote(found["name"], price, found["quantity"])

    def order(self) -> Order:
        """The order in the answer to an order lookup. Raises Malformed."""
        kinds = {"number": int, "name": str, "type": str, "quantity": int}
        return Order(**_fields(self, kinds))

    def order_number(self) -> int:
        """The number in the answer to a trade. Raises Malformed."""
        number: int = _fields(self, {"transaction_number": int})["transaction_number"]
        if number < 1:
            raise Malformed(f"order numbers start at 1: {self}")
        return number

    def __str__(self) -> str:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body, default=_plain)
        return f"{self.status} {' '.join(text.split())[:300]}"


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
        return text  # it is not JSON: it is shown unchanged, and fails its checks


def _plain(value: object) -> float:
    """For json.dumps: the only type in a parsed body that it does not know is Decimal."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} came from no JSON")


def _shortened(text: str) -> str:
    more = len(text) - _SHOWN_CHARACTERS
    return f"{text[:_SHOWN_CHARACTERS]}… ({more} more)" if more > 0 else text
