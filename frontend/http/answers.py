"""Answers, errors among them: `{"error":{"code":…,"message":"…"}}`. Nothing here needs Flask."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from werkzeug.exceptions import HTTPException

from common.errors import BourseError, Internal, NotFound, Unavailable
from frontend.model import CacheResult, Quote

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1

_JSON = "application/json"
_encode = json.JSONEncoder(separators=(",", ":")).encode

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, without the headers that all answers have: length, id, `Cache-Control`."""

    status: HTTPStatus
    body: str
    headers: Headers = ()
    content_type: str = _JSON


def text_answer(text: str) -> Answer:
    return Answer(HTTPStatus.OK, text, content_type="text/plain; charset=utf-8")


def data_answer(data: Mapping[str, object], *headers: tuple[str, str]) -> Answer:
    return Answer(HTTPStatus.OK, _json({"data": data}), headers)


@lru_cache(256)  # the same few values are encoded again and again
def quote_answer(quote: Quote | None, cache_result: CacheResult) -> Answer:
    cached = ("X-Cache", cache_result.value)
    if quote is None:
        return _error(NotFound.http_status, "stock not found", cached)
    # Two places fit a double: the nearest one prints as the price.
    price = float(quote.price)
    return data_answer({"name": quote.name, "price": price, "quantity": quote.quantity}, cached)


def error_answer(error: Exception, *headers: tuple[str, str]) -> Answer:
    """The answer to any error: from the error table, from HTTP itself, or for a defect.

    A defect's message goes to the log and not to the caller.
    """
    if isinstance(error, HTTPException):
        return _http_error(error)
    if not isinstance(error, BourseError):
        logger.error("unexpected error", exc_info=error)
        error = Internal()
    elif error.http_status == Internal.http_status:
        logger.error("%s: %s", type(error).__name__, error.message)
        error = Internal()
    if error.http_status == Unavailable.http_status:
        headers = ("Retry-After", str(RETRY_AFTER_S)), *headers
    return _error(error.http_status, error.message, *headers)


def _http_error(error: HTTPException) -> Answer:
    """Flask's and Werkzeug's own errors; their headers (`Allow`) stay."""
    status = HTTPStatus(error.code or Internal.http_status)
    is_generic = error.description is type(error).description  # prose for browsers
    message = error.name if is_generic else str(error.description)
    headers = (header for header in error.get_headers() if header[0] != "Content-Type")
    return _error(status, message, *headers)


def _error(status: HTTPStatus, message: str, *headers: tuple[str, str]) -> Answer:
    body = _json({"error": {"code": status.value, "message": message}})
    return Answer(status, body, headers)


def _json(value: object) -> str:
    # The newline keeps the next prompt of a shell on its own line.
    return _encode(value) + "\n"
