"""What the frontend's settings refuse together."""

from __future__ import annotations

from pathlib import Path

import pytest

import frontend.settings
from common.settings import load_settings
from frontend.settings import FrontendSettings


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the kernel's limit on processes and threads."""
    path = tmp_path / "pids.max"
    monkeypatch.setattr(frontend.settings, "_PIDS_LIMITS", (tmp_path / "none", path))
    return path


def test_more_threads_than_can_start_are_refused_in_one_line(
    limit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit.write_text("1024\n")
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    monkeypatch.setenv("WEB_THREADS", "600")
    with pytest.raises(SystemExit):
        load_settings(FrontendSettings, "frontend")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("frontend: setting WEB_THREADS='600': ")
    assert "1024" in line
    assert "FRONTEND_PIDS" in line
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    assert load_settings(FrontendSettings, "frontend").web_threads == 600


@pytest.mark.parametrize("found", ["max\n", None])
def test_without_a_limit_any_number_is_taken(
    limit: Path, monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    if found is not None:
        limit.write_text(found)
    monkeypatch.setenv("WEB_THREADS", "6000")
    assert load_settings(FrontendSettings, "frontend").web_threads == 6000
