"""The Flask application: which route serves which request."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response, g, request

from frontend.http.answers import Answer, error_answer
from frontend.http.exchange import Exchange
from frontend.http.fast_path import FastPath
from frontend.http.routes import Route, Routes
from frontend.model import Parts


def create_app(parts: Parts) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # `//orders` is another path, not a redirect
    routes = Routes(parts).table()
    for (method, path), route in routes.items():
        app.add_url_rule(path, f"{method} {path}", _view(route), methods=[method])
    app.register_error_handler(Exception, lambda error: _response(error_answer(error)))
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_close)
    # Flask's way to put something in front of it.
    app.wsgi_app = FastPath(app.wsgi_app, routes)  # type: ignore[method-assign]
    return app


def _view(route: Route) -> Callable[[], Response]:
    return lambda: _response(route(request.environ))


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, content_type=answer.content_type)
    response.headers.extend(answer.headers)
    return response


def _begin() -> None:
    g.exchange = Exchange(request.environ)
    g.exchange.refuse_if_too_old()


def _finish(response: Response) -> Response:
    response.headers.extend(g.exchange.finish(response.status_code))
    return response


def _close(_error: BaseException | None) -> None:
    g.exchange.close()
