"""The HTTP server: gunicorn, and what each of its workers is made of."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from common.logs import logging_config
from frontend.http.app import create_app
from frontend.http.connection import flush_answer, send_whole_answers
from frontend.model import Parts
from frontend.settings import FrontendSettings

# How long an idle connection stays open: longer than the edge keeps one. Without an edge, it is
# long enough for a client that keeps one connection for a whole session.
_KEEP_ALIVE_S = 90

# How many idle connections a worker keeps. Together with its other files they stay below 1,024,
# the usual limit of a process.
_IDLE_CONNECTIONS = 700

# The most that gunicorn allows. So the application itself answers long queries.
_MAX_REQUEST_LINE_BYTES = 8190

# A worker still closes its parts after its last request. The master waits for that too.
_STOP_MARGIN_S = 3

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - gunicorn makes its files unguessable

BuildParts = Callable[[FrontendSettings, ExitStack], Parts]


class HttpServer(BaseApplication):  # type: ignore[misc] # gunicorn is not typed
    """gunicorn with an application whose parts are built in each worker, after the fork.

    Args:
        settings: read and checked before the first fork.
        build_parts: makes the parts of one worker. Things that it puts on the stack are closed
            when the worker ends, the last one first.
    """

    def __init__(self, settings: FrontendSettings, build_parts: BuildParts) -> None:
        self._settings = settings
        self._build_parts = build_parts
        self._resources = ExitStack()
        super().__init__()

    def load_config(self) -> None:
        for name, value in _options(self._settings).items():
            self.cfg.set(name, value)
        self.cfg.set("on_starting", _keep_stop_signals)
        self.cfg.set("worker_exit", self._close)

    def load(self) -> Flask:
        return create_app(self._build_parts(self._settings, self._resources))

    def _close(self, _server: Any, _worker: Any) -> None:
        self._resources.close()


def _keep_stop_signals(_server: Any) -> None:
    """Makes a worker obey a stop signal from the moment of its fork.

    A new worker first has copies of the master's handlers. They only put a signal into a queue that
    the worker never reads. So a signal would be lost until gunicorn sets the worker's own handlers:
    the worker would go on, and the master would kill it later. Therefore signals are blocked until
    the worker has this handler. A worker that is stopped so early has nothing to finish.
    """
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS),
        after_in_child=_end_when_told,
    )


def _end_when_told() -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


class _ServerLogger(Logger):  # type: ignore[misc] # gunicorn is not typed
    def access(self, *_: Any) -> None:
        """The application logs each request itself."""


def _options(settings: FrontendSettings) -> dict[str, Any]:
    logging = logging_config("frontend", settings)
    # gunicorn has handlers of its own. These lines send its messages to ours instead.
    logging["loggers"] = {
        "gunicorn.error": {"level": "NOTSET", "handlers": [], "propagate": True},
    }
    return {
        "bind": settings.http_address,
        "workers": settings.web_concurrency,
        "worker_class": "gthread",
        "threads": settings.web_threads,
        "worker_connections": settings.web_threads + _IDLE_CONNECTIONS,
        "keepalive": _KEEP_ALIVE_S,
        "limit_request_line": _MAX_REQUEST_LINE_BYTES,
        "graceful_timeout": math.ceil(settings.shutdown_grace_s) + _STOP_MARGIN_S,
        "worker_tmp_dir": str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None,
        "control_socket_disable": True,
        # No proxy is trusted more than a client: gunicorn does not read its headers.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        "when_ready": send_whole_answers,
        "post_request": flush_answer,
        "logger_class": _ServerLogger,
        "logconfig_dict": logging,
    }
