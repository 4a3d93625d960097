"""The shape of a line of the log, and what can be in it."""

from __future__ import annotations

import io
import json
import logging
import logging.config
import re
import threading
from collections.abc import Iterator

import pytest

from common import logs
from common.settings import LogFormat, LogLevel, ServiceSettings


@pytest.fixture(autouse=True)
def _keep_the_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(log_format: LogFormat, level: LogLevel = LogLevel.INFO) -> io.StringIO:
    """Sets up logging as a service does, with a buffer for stderr."""
    config = logs.logging_config("test", ServiceSettings(log_format=log_format, log_level=level))
    output = io.StringIO()
    config["handlers"]["stderr"]["stream"] = output
    logging.config.dictConfig(config)
    return output


logger = logging.getLogger("a.module")


def test_a_line_of_text() -> None:
    output = configured(LogFormat.TEXT)
    logger.info("order %d executed", 3)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} test MainThread:\d+ INFO \[-\] order 3 executed\n",
        output.getvalue(),
    )


def test_a_line_of_json() -> None:
    output = configured(LogFormat.JSON)
    logger.warning("order %d executed", 3)
    (line,) = output.getvalue().splitlines()
    record = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", record.pop("asctime"))
    assert record == {
        "service": "test",
        "threadName": "MainThread",
        "thread": threading.get_ident(),
        "levelname": "WARNING",
        "request_id": "-",
        "message": "order 3 executed",
    }


@pytest.mark.parametrize("log_format", LogFormat)
def test_the_request_id_of_the_thread_is_in_its_lines(log_format: LogFormat) -> None:
    output = configured(log_format)

    def serve() -> None:
        logs.request_id.set("key-1")
        logger.info("serving")

    thread = threading.Thread(target=serve, name="server")
    thread.start()
    thread.join()
    logger.info("not serving")
    serving, not_serving = output.getvalue().splitlines()
    assert "key-1" in serving
    assert "server" in serving
    assert "key-1" not in not_serving


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize("end_of_line", ["\n", "\r", "\r\n"])
def test_a_message_cannot_forge_a_line(log_format: LogFormat, end_of_line: str) -> None:
    output = configured(log_format)
    logger.info("unknown stock %s", f"x{end_of_line}2026-01-01T00:00:00.000 test FORGED")
    text = output.getvalue()
    assert text.count("\n") == 1
    assert "\r" not in text
    assert "FORGED" in text


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_traceback_is_logged(log_format: LogFormat) -> None:
    output = configured(log_format)
    try:
        raise RuntimeError("a defect")
    except RuntimeError:
        logger.exception("unexpected error")
    assert "Traceback" in output.getvalue()
    assert "RuntimeError: a defect" in output.getvalue()


def test_a_traceback_cannot_forge_a_line() -> None:
    output = configured(LogFormat.TEXT)
    try:
        raise RuntimeError("x\n2026-01-01T00:00:00.000 test FORGED")
    except RuntimeError:
        logger.exception("unexpected error")
    assert not any(line.startswith("2026-01-01") for line in output.getvalue().splitlines())


def test_lines_below_the_level_are_left_out() -> None:
    output = configured(LogFormat.TEXT, LogLevel.WARNING)
    logger.info("left out")
    logger.warning("kept")
    assert "left out" not in output.getvalue()
    assert "kept" in output.getvalue()
