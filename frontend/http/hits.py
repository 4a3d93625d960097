"""Cached quotes, answered in front of the application: a hit is over before Flask would have begun.

Only a hit ends here. Everything else goes on to the application, with what the cache said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from common.errors import InvalidRequest
from frontend.http.answers import COMMON_HEADERS, REQUEST_ID_HEADER, quote_body
from frontend.http.request_start import is_too_old
from frontend.http.validation import name_parameter
from frontend.model import CacheResult, NotCached, Quote, Quotes

logger = logging.getLogger(__name__)

Environment = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

STOCK_PATH = "/stocks"
STOCK_PARAMETER = "stockname"

_MISSED = "bourse.missed"


class HitsFirst:
    """A WSGI application around another one.

    Args:
        application: answers whatever is no hit.
    """

    def __init__(self, application: Application, quotes: Quotes) -> None:
        self._application = application
        self._quotes = quotes

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == STOCK_PATH and environ["REQUEST_METHOD"] == "GET":
            quote = self._cached(environ)
            if quote is not None:
                return _answer(quote, start_response)
        return self._application(environ, start_response)

    def _cached(self, environ: Environment) -> Quote | None:
        if is_too_old(environ):
            return None
        try:
            name = name_parameter(environ["QUERY_STRING"].encode("latin-1"), STOCK_PARAMETER)
        except InvalidRequest:
            return None
        try:
            found = self._quotes.cached(name)
        except Exception:
            # The application, which asks again, has an answer to defects too.
            logger.exception("unexpected error in front of the application")
            return None
        if isinstance(found, Quote):
            return found
        environ[_MISSED] = found
        return None


def missed(environ: Environment) -> NotCached | None:
    """What the cache said of the stock this request asks for, unless it was not asked."""
    found: NotCached | None = environ.get(_MISSED)
    return found


def _answer(quote: Quote, start_response: StartResponse) -> Iterable[bytes]:
    body = quote_body(quote).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("X-Cache", CacheResult.HIT.value),
        (REQUEST_ID_HEADER, str(uuid4())),
        *COMMON_HEADERS.items(),
    ]
    logger.debug("GET %s 200, a hit", STOCK_PATH)
    start_response("200 OK", headers)
    return (body,)
