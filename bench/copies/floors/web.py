"""The floors: gunicorn with the frontend's settings, and an application that does almost nothing.

`web.py hello` answers at once; `web.py hop HOST:PORT` makes one empty gRPC call for each request,
over a channel that each worker keeps. Runs by itself in the frontend's image.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Never

import grpc
from flask import Flask, request

from common.settings import load_settings
from frontend.http.server import HttpServer
from frontend.settings import FrontendSettings
from proto import bourse_pb2

_TIMEOUT_S = 5.0


class Floor(HttpServer):
    """Its application is made in each worker, after the fork, as the frontend's is."""

    def __init__(self, settings: FrontendSettings, peer: str | None) -> None:
        self._peer = peer
        super().__init__(settings, _no_parts)

    def load(self) -> Flask:
        return hello() if self._peer is None else hop(self._peer)


def hello() -> Flask:
    app = Flask(__name__, static_folder=None)

    @app.get("/hello")
    def greet() -> tuple[str, dict[str, str]]:
        return f"Hello, {request.args['name']}!", {"Content-Type": "text/plain"}

    @app.get("/healthz")
    @app.get("/readyz")
    def ready() -> str:
        return "ready"

    return app


def hop(peer: str) -> Flask:
    app = Flask(__name__, static_folder=None)
    nothing = grpc.insecure_channel(peer).unary_unary(
        "/bourse.Floor/Nothing",
        request_serializer=bourse_pb2.Empty.SerializeToString,
        response_deserializer=bourse_pb2.Empty.FromString,
    )

    @app.get("/hello")
    @app.get("/healthz")
    @app.get("/readyz")
    def greet() -> tuple[str, dict[str, str]]:
        nothing(bourse_pb2.Empty(), timeout=_TIMEOUT_S)
        return f"Hello, {request.args.get('name')}!", {"Content-Type": "text/plain"}

    return app


def _no_parts(_settings: FrontendSettings, _resources: ExitStack) -> Never:
    raise AssertionError("a floor has no parts")


def main() -> None:
    settings = load_settings(FrontendSettings, "floor")
    Floor(settings, sys.argv[2] if sys.argv[1] == "hop" else None).run()


if __name__ == "__main__":
    main()
