"""How the parts of a replica are put together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from order.parts import Service


class SlowServer:
    """Its first call waits for a moment, so that a second thread can come first."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.asked = threading.Event()
        self._second = threading.Event()

    def set_serving(self, serving: bool) -> None:
        if not self.asked.is_set():
            self.asked.set()
            self._second.wait(timeout=0.5)
        self.said.append(serving)
        self._second.set()


def test_the_last_word_on_whether_it_serves_is_the_right_one() -> None:
    """Threads find out at the same moment that the log is denied, and that it fits again."""
    service = object.__new__(Service)
    identity = SimpleNamespace(matches=False)
    server = SlowServer()
    vars(service).update(
        _server=server,
        _identity=identity,
        _ready=threading.Event(),
        _saying=threading.Lock(),
    )
    service._ready.set()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(service._say_serving)
        assert server.asked.wait(timeout=10)
        identity.matches = True
        second = threads.submit(service._say_serving)
        first.result(timeout=10)
        second.result(timeout=10)
    assert server.said[-1] is True
