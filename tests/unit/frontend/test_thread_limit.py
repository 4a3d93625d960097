"""A frontend that may not have the threads it needs says so at its start."""

from __future__ import annotations

import threading

import pytest

from common.settings import load_settings
from frontend import __main__ as entry
from frontend.settings import FrontendSettings
from frontend.thread_limit import too_few_threads


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Ten threads and no more; the threads that were started."""
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(started) == 10:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return started


def test_enough_threads_are_no_problem() -> None:
    assert too_few_threads(load_settings(FrontendSettings, "frontend")) is None


def test_too_few_are_told_in_one_line_before_anything_starts(
    limit: list[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WEB_THREADS", "600")
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "WEB_THREADS=600" in line
    assert "only 10 can be started" in line
    assert "FRONTEND_PIDS" in line
    assert not any(thread.is_alive() for thread in limit)
