"""What goes on is logged once, not each time that it is met."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from common.on_change import OnChange

logger = logging.getLogger(__name__)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO)
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_trouble_is_logged_when_it_begins_and_when_it_is_over(lines: Any) -> None:
    said = OnChange(logger)
    said.over("Redis is back")
    for attempt in range(3):
        said.trouble("Redis is away: attempt %d", attempt)
        assert said.is_present
    for _ in range(3):
        said.over("Redis is back")
        assert not said.is_present
    said.trouble("Redis is away: attempt %d", 9)
    assert lines() == [
        ("WARNING", "Redis is away: attempt 0"),
        ("INFO", "Redis is back"),
        ("WARNING", "Redis is away: attempt 9"),
    ]


def test_another_cause_is_logged(lines: Any) -> None:
    said = OnChange(logger)
    for cause in ("refused", "refused", "full", "full", "refused"):
        said.trouble("not written: %s", cause, cause=cause, level=logging.ERROR)
    assert lines() == [
        ("ERROR", f"not written: {cause}") for cause in ("refused", "full", "refused")
    ]
