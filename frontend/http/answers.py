"""Answers in JSON, errors among them: `{"error":{"code":…,"message":"…"}}`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from common.errors import BourseError, Internal, Unavailable
from frontend.model import Quote

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1

REQUEST_ID_HEADER = "X-Request-Id"
COMMON_HEADERS = {"Cache-Control": "no-store"}

_encode = json.JSONEncoder(separators=(",", ":")).encode


def data_answer(data: Mapping[str, object]) -> Response:
    return Response(data_body(data), mimetype="application/json")


def data_body(data: Mapping[str, object]) -> str:
    return _json({"data": data})


def quote_answer(quote: Quote) -> Response:
    return Response(quote_body(quote), mimetype="application/json")


@lru_cache(256)  # as with what is decoded: the same few again and again
def quote_body(quote: Quote) -> str:
    # Two places fit a double: the nearest one prints as the price.
    price = float(quote.price)
    return data_body({"name": quote.name, "price": price, "quantity": quote.quantity})


def error_answer(error: BourseError) -> Response:
    """The answer that the error table gives for an error."""
    answer = Response(error_body(error.http_status, error.message), status=error.http_status)
    answer.mimetype = "application/json"
    if error.http_status == Unavailable.http_status:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer


def error_body(code: int, message: str) -> str:
    return _json({"error": {"code": int(code), "message": message}})


def register_error_answers(app: Flask) -> None:
    """Gives every error that leaves a route its JSON answer."""
    app.register_error_handler(BourseError, _foreseen_error_answer)
    app.register_error_handler(HTTPException, _http_error_answer)
    app.register_error_handler(Exception, _unexpected_error_answer)


def _foreseen_error_answer(error: BourseError) -> Response:
    if error.http_status != Internal.http_status:
        return error_answer(error)
    # A defect behind us. What it says is for the log, not for the caller.
    logger.error("%s: %s", type(error).__name__, error.message)
    return error_answer(Internal())


def _http_error_answer(error: HTTPException) -> Response:
    """Flask's and Werkzeug's own errors; their headers (`Allow`) stay."""
    code = error.code or Internal.http_status
    is_generic = error.description is type(error).description  # prose for browsers
    message = error.name if is_generic else str(error.description)
    answer = Response(error_body(code, message), status=code)
    for name, value in error.get_headers():
        answer.headers[name] = value
    answer.mimetype = "application/json"
    return answer


def _unexpected_error_answer(error: Exception) -> Response:
    logger.error("unexpected error", exc_info=error)
    return error_answer(Internal())


def _json(value: object) -> str:
    # The newline keeps the next prompt of a shell on its own line.
    return _encode(value) + "\n"
