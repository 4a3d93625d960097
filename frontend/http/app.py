"""The Flask application: routes, errors, and what every request and answer has."""

from __future__ import annotations

import logging
import time
from http.client import OK
from urllib.parse import quote
from uuid import uuid4

from flask import Flask, Response, g, request

from common import logs
from common.errors import Unavailable
from frontend.http.answers import COMMON_HEADERS, REQUEST_ID_HEADER, register_error_answers
from frontend.http.done import DoneFirst, decided
from frontend.http.hits import HitsFirst
from frontend.http.request_start import is_too_old
from frontend.http.routes import Parts, create_routes

logger = logging.getLogger(__name__)


def create_app(parts: Parts) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # `//orders` is another path, not a redirect
    app.register_blueprint(create_routes(parts))
    register_error_answers(app)
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_forget)
    # Flask's way to put something in front of it.
    done_first = DoneFirst(app.wsgi_app, parts.trades)
    app.wsgi_app = HitsFirst(done_first, parts.quotes)  # type: ignore[method-assign]
    return app


def _begin() -> None:
    was_decided = decided(request.environ)
    g.started_s = was_decided.started_s if was_decided else time.perf_counter()
    # A trade takes its own request id instead, as soon as it is known.
    logs.request_id.set(was_decided.request_id if was_decided else str(uuid4()))
    if is_too_old(request.environ):
        raise Unavailable("too many requests are waiting")


def _finish(answer: Response) -> Response:
    answer.headers[REQUEST_ID_HEADER] = logs.request_id.get()
    answer.headers.update(COMMON_HEADERS)
    # What was only read, and found, is of interest to nobody but who looks for a defect.
    level = logging.DEBUG if request.method == "GET" and answer.status_code == OK else logging.INFO
    if logger.isEnabledFor(level):
        elapsed_ms = (time.perf_counter() - g.started_s) * 1000
        # Quoted: the path is the client's, the line is ours.
        path = quote(request.path)
        logger.log(level, "%s %s %d %.1f ms", request.method, path, answer.status_code, elapsed_ms)
    return answer


def _forget(_error: BaseException | None) -> None:
    logs.request_id.set("-")  # threads serve one request after another
