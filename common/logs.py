"""Logging: timestamp, service, thread name and id, level, request id, message."""

from __future__ import annotations

import contextvars
import logging
import sys
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from common.settings import LogFormat, ServiceSettings

# The request being served by this thread: the same id in the log of every service it passes.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")

_TEXT = (
    "%(asctime)s.%(msecs)03d %(service)s %(threadName)s:%(thread)d %(levelname)s "
    "[%(request_id)s] %(message)s"
)
_JSON = "%(asctime)s %(service)s %(threadName)s %(thread)d %(levelname)s %(request_id)s %(message)s"


class _Context(logging.Filter):
    """Puts the service's name and the request's id on every record."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def filter(self, record: logging.LogRecord) -> bool:
        record.service = self._service
        if not hasattr(record, "request_id"):
            record.request_id = request_id.get()
        return True


# Control characters, and what Unicode counts as ends of lines.
_UNSAFE = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_UNSAFE |= {0x2028: "\\u2028", 0x2029: "\\u2029"}


class _OneLine(logging.Formatter):
    """Keeps a message on its line, so that no input can forge a line of the log.

    A traceback has lines of its own; none of them begins like a line of the log.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        return line if line.isprintable() else line.translate(_UNSAFE)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).splitlines()
        return "\n".join("  | " + line.translate(_UNSAFE) for line in lines)


def logging_config(service: str, settings: ServiceSettings) -> dict[str, Any]:
    """The `logging.config.dictConfig` of a service; gunicorn takes it too."""
    text = {"()": _OneLine, "fmt": _TEXT, "datefmt": "%Y-%m-%dT%H:%M:%S"}
    json = {"()": JsonFormatter, "fmt": _JSON, "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"context": {"()": _Context, "service": service}},
        "formatters": {"line": json if settings.log_format is LogFormat.JSON else text},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": sys.stderr,
                "formatter": "line",
                "filters": ["context"],
            }
        },
        "root": {"level": settings.log_level.value, "handlers": ["stderr"]},
    }
