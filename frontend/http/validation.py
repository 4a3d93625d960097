"""Checks everything that clients send, before it is used. Every input may be hostile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Never
from urllib.parse import parse_qsl

from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType
from werkzeug.http import parse_options_header
from werkzeug.wsgi import get_content_length, get_input_stream

from common.domain import (
    BUY,
    MAX_NAME_LENGTH,
    MAX_ORDER_NUMBER,
    MAX_QUANTITY,
    MAX_REQUEST_ID_LENGTH,
    SELL,
    Trade,
    is_valid_name,
    is_valid_quantity,
    is_valid_request_id,
)
from common.errors import InvalidRequest

MAX_BODY_BYTES = 16 * 1024

Environ = dict[str, Any]  # a WSGI request

_JSON = "application/json"

_NAME_RULE = f"must be 1 to {MAX_NAME_LENGTH} printable characters"
_MALFORMED_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_INTEGER = re.compile("(-?)([0-9]+)")

# The fields of a trade, all required: the check and what to say when it fails.
_TRADE_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "name": (is_valid_name, _NAME_RULE),
    "quantity": (is_valid_quantity, f"must be an integer from 1 to {MAX_QUANTITY}"),
    "type": (lambda value: value in (BUY, SELL), f"must be {BUY} or {SELL}"),
}


def name_parameter(environ: Environ, parameter: str) -> str:
    """The parameter as a name of a user or a stock."""
    value = _parameter(environ, parameter)
    if not is_valid_name(value):
        raise InvalidRequest(f"query parameter {parameter}: {_NAME_RULE}")
    return value


def order_number_parameter(environ: Environ, parameter: str) -> int | None:
    """The parameter as an order number; None for an integer that cannot be one.

    An integer may have any number of digits. It is converted only if it is short, because
    `int` refuses thousands of digits.
    """
    integer = _INTEGER.fullmatch(_parameter(environ, parameter))
    if integer is None:
        raise InvalidRequest(f"query parameter {parameter}: must be an integer")
    sign, digits = integer[1], integer[2].lstrip("0")
    if sign or not digits or len(digits) > len(str(MAX_ORDER_NUMBER)):
        return None
    number = int(digits)
    return number if number <= MAX_ORDER_NUMBER else None


def _parameter(environ: Environ, parameter: str) -> str:
    text: str = environ["QUERY_STRING"]
    try:
        text.encode("ascii")
        if _MALFORMED_ESCAPE.search(text):
            raise ValueError("malformed percent-encoding")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError:
        raise InvalidRequest("the query string is malformed") from None
    values = [value for name, value in pairs if name == parameter]
    if len(values) != 1:
        fault = "repeated" if values else "missing"
        raise InvalidRequest(f"query parameter {parameter}: {fault}")
    return values[0]


def idempotency_key(header: str | None) -> str | None:
    """The key in an `Idempotency-Key` header, bare or in double quotes; None without one."""
    if header is None:
        return None
    key = header
    if header.startswith('"') or header.endswith('"'):
        key = header[1:-1]
        if len(header) < 2 or header != f'"{key}"' or '"' in key:
            raise InvalidRequest("Idempotency-Key: unbalanced quotes")
    if not is_valid_request_id(key):
        raise InvalidRequest(
            f"Idempotency-Key: must be 1 to {MAX_REQUEST_ID_LENGTH} visible ASCII characters"
        )
    return key


def read_json_body(environ: Environ) -> bytes:
    """The whole body of a request that says it is JSON.

    Raises:
        UnsupportedMediaType: the request says that it is something else.
        RequestEntityTooLarge: the body is longer than MAX_BODY_BYTES, with or without a length.
        InvalidRequest: the body ends early, or its chunks are malformed.
    """
    if parse_options_header(environ.get("CONTENT_TYPE"))[0].lower() != _JSON:
        raise UnsupportedMediaType(f"Content-Type must be {_JSON}")
    declared = get_content_length(environ)
    if declared is not None and declared > MAX_BODY_BYTES:
        raise _too_large()
    try:
        # Reading one byte more than allowed shows that a body is too long. Werkzeug's own limit
        # would cut a chunked body off without an error.
        body = get_input_stream(environ).read(MAX_BODY_BYTES + 1)
    except Exception as error:
        raise InvalidRequest("the body is incomplete or malformed") from error
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    if declared is not None and len(body) < declared:
        raise InvalidRequest("the body is incomplete")
    return body


def _too_large() -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"the body must be at most {MAX_BODY_BYTES} bytes")


def parse_trade(body: bytes, request_id: str) -> Trade:
    """The trade in a JSON body. Raises InvalidRequest naming the field that is wrong."""
    fields = _json_object(body)
    for field in fields:
        if field not in _TRADE_FIELDS:
            raise InvalidRequest(f"field {_shortened(field)}: unknown")
    for field, (is_valid, rule) in _TRADE_FIELDS.items():
        if field not in fields:
            raise InvalidRequest(f"field {field}: missing")
        if not is_valid(fields[field]):
            raise InvalidRequest(f"field {field}: {rule}")
    return Trade(request_id, fields["name"], fields["type"], fields["quantity"])


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        # Not JSON, not UTF-8, a number of too many digits, or nested too deep.
        raise InvalidRequest("the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise InvalidRequest(f"field {_shortened(name)}: repeated")
        fields[name] = value
    return fields


def _refuse_constant(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _shortened(field: str) -> str:
    return repr(field[:MAX_NAME_LENGTH])
