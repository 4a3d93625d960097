"""A worker that is told to stop while it starts."""

from __future__ import annotations

import signal
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from gunicorn.workers.gthread import ThreadWorker

from frontend.http.http_worker import Worker, keep_signals


@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [
        ([], True),
        ([signal.SIGCHLD], True),
        ([signal.SIGCHLD, signal.SIGTERM], False),
        ([signal.SIGINT], False),
        ([signal.SIGQUIT], False),
    ],
)
def test_a_stop_before_the_worker_has_handlers_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, sent: list[signal.Signals], goes_on: bool
) -> None:
    monkeypatch.setattr(ThreadWorker, "init_signals", lambda _worker: None)
    queue: SimpleQueue[int] = SimpleQueue()
    for number in sent:
        queue.put(number)
    worker = object.__new__(Worker)
    worker.alive = True
    keep_signals(SimpleNamespace(SIG_QUEUE=queue), worker)
    worker.init_signals()
    assert worker.alive is goes_on
