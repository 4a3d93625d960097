"""Answers to requests that never reach the application, in the application's form."""

from __future__ import annotations

import logging
from http import HTTPStatus
from uuid import uuid4

from gunicorn.http.errors import (
    ConfigurationProblem,
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)

from common.errors import Internal
from frontend.http.answers import error_body

logger = logging.getLogger(__name__)

# gunicorn quotes what it refuses, and that can be all that was sent.
_MAX_MESSAGE_LENGTH = 200

_OUR_OWN_FAULTS = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)
_CLIENT_FAULTS = {
    LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


def refusal_for(error: Exception) -> bytes:
    """The answer to a request that the parser refused, or that met a defect of the server."""
    if not isinstance(error, ParseException) or isinstance(error, _OUR_OWN_FAULTS):
        logger.error("unexpected error", exc_info=error)
        return refusal(Internal.http_status, Internal.default_message)
    message = str(error)[:_MAX_MESSAGE_LENGTH]
    logger.warning("refused a malformed request: %s", message)
    return refusal(_CLIENT_FAULTS.get(type(error), HTTPStatus.BAD_REQUEST), message)


def refusal(status: HTTPStatus, message: str) -> bytes:
    """A whole answer, after which the connection closes."""
    body = error_body(status, message).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"X-Request-Id: {uuid4()}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
