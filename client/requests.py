"""The requests of the API, as values: to be shown, sent, and sent again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import quote

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
    # False where "unavailable" is the very answer asked for, as of a health check.
    awaits_recovery: bool = True

    @property
    def is_repeatable(self) -> bool:
        """Whether the server does it once however often it arrives."""
        keyed = any(name.lower() == KEY_HEADER.lower() for name in self.headers)
        return keyed or self.method in ("GET", "HEAD", "OPTIONS")

    def __str__(self) -> str:
        shown = [f"{self.method} {self.path}"]
        if self.body is not None:
            shown.append(_shortened(self.body.decode("utf-8", "replace")))
        shown += [f"{name}: {_shortened(value)}" for name, value in self.headers.items()]
        return "  ".join(shown)


def _shortened(text: str) -> str:
    more = len(text) - _SHOWN_CHARACTERS
    return f"{text[:_SHOWN_CHARACTERS]}… ({more} more)" if more > 0 else text


def hello(name: str) -> Request:
    return Request("GET", f"/hello?name={quote(name, safe='')}")


def lookup(name: str) -> Request:
    return Request("GET", f"/stocks?stockname={quote(name, safe='')}")


def trade(name: str, quantity: int, type: str, key: str | None = None) -> Request:
    """Only with a key is it safe to send more than once."""
    body = json.dumps({"name": name, "quantity": quantity, "type": type})
    headers = dict(JSON_HEADERS) if key is None else {**JSON_HEADERS, KEY_HEADER: key}
    return Request("POST", "/orders", body.encode(), headers)


def order(number: int | str) -> Request:
    return Request("GET", f"/orders?order-number={quote(str(number), safe='')}")
