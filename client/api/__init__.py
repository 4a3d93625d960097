"""The importable client of Bourse; other tools import nothing else of `client`.

`BourseClient` is one session: it keeps a connection and repeats what is safe to repeat.
`Connection` sends a request exactly once. Requests and answers are values. All of it needs the
standard library only.
"""

from client.api.client import (
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    BourseClient,
    RetryPolicy,
    Traffic,
)
from client.api.connection import BadUrl, BaseUrl, Connection, NoAnswer, allow_connections
from client.api.messages import (
    INSUFFICIENT_VOLUME,
    JSON_HEADERS,
    KEY_HEADER,
    MAX_VOLUME,
    ORDER_NOT_FOUND,
    STOCK_NOT_FOUND,
    Answer,
    Malformed,
    Order,
    Quote,
    Request,
    TradeType,
)

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "DEFAULT_URL",
    "INSUFFICIENT_VOLUME",
    "JSON_HEADERS",
    "KEY_HEADER",
    "MAX_VOLUME",
    "ORDER_NOT_FOUND",
    "STOCK_NOT_FOUND",
    "Answer",
    "BadUrl",
    "BaseUrl",
    "BourseClient",
    "Connection",
    "Malformed",
    "NoAnswer",
    "Order",
    "Quote",
    "Request",
    "RetryPolicy",
    "TradeType",
    "Traffic",
    "allow_connections",
]
