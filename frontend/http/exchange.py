"""What every request has, with Flask or without: an id, an age, a line in the log."""

from __future__ import annotations

import logging
import time
from http import HTTPStatus
from urllib.parse import quote
from uuid import uuid4

from common import logs
from common.errors import OutcomeUnknown, Unavailable
from frontend.http.answers import Headers
from frontend.http.request_start import is_too_old
from frontend.http.validation import Environ

logger = logging.getLogger(__name__)


class Exchange:
    """One request that is being served, in the thread that made this object."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ
        self._started_s = time.perf_counter()
        # A trade takes its own request id instead, as soon as it is known.
        logs.request_id.set(str(uuid4()))

    def refuse_if_too_old(self) -> None:
        """Raises an error if the request can no longer be answered in time.

        For a trade it says that the outcome is unknown: the edge may have sent an earlier copy to
        another frontend, which executed it.
        """
        if is_too_old(self._environ):
            if self._environ["REQUEST_METHOD"] == "POST":
                raise OutcomeUnknown
            raise Unavailable("too many requests are waiting")

    def finish(self, status: int) -> Headers:
        """Logs the request; returns the headers that every answer has."""
        method = self._environ["REQUEST_METHOD"]
        # Successful reads matter only to somebody who looks for a defect.
        is_found = method == "GET" and status == HTTPStatus.OK
        level = logging.DEBUG if is_found else logging.INFO
        if logger.isEnabledFor(level):
            elapsed_ms = (time.perf_counter() - self._started_s) * 1000
            # Quoted: the path is the client's, the line is ours.
            path = quote(self._environ["PATH_INFO"].encode("latin-1"))
            logger.log(level, "%s %s %d %.1f ms", method, path, status, elapsed_ms)
        return ("X-Request-Id", logs.request_id.get()), ("Cache-Control", "no-store")

    def close(self) -> None:
        logs.request_id.set("-")  # threads serve one request after another
