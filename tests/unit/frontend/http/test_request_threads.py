"""What the poller and the threads of a worker hand each other: nothing is lost on the way."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from frontend.http.request_threads import CallQueue, RequestThreads

PATIENCE_S = 20.0


@pytest.fixture
def calls() -> Iterator[CallQueue]:
    calls = CallQueue()
    calls.init()
    yield calls
    calls.close()


def wakes(calls: CallQueue, timeout_s: float = 0.0) -> bool:
    return bool(select.select([calls], [], [], timeout_s)[0])


def test_one_wake_is_for_all_that_came_before_it(calls: CallQueue) -> None:
    made: list[int] = []
    for number in range(100):
        calls.defer(made.append, number)
    assert wakes(calls)
    calls.run_callbacks(None)
    assert made == list(range(100))
    assert not wakes(calls)


def test_a_call_that_is_made_by_a_call_wakes_again(calls: CallQueue) -> None:
    made: list[str] = []
    calls.defer(lambda: calls.defer(made.append, "second"))
    calls.run_callbacks(None)
    assert made == []
    assert wakes(calls)
    calls.run_callbacks(None)
    assert made == ["second"]
    assert not wakes(calls)


def test_no_call_is_lost_among_many_threads(calls: CallQueue) -> None:
    made: list[tuple[int, int]] = []

    def defer_all(thread: int) -> None:
        for number in range(2_000):
            calls.defer(made.append, (thread, number))

    with ThreadPoolExecutor(8) as executor:
        deferring = [executor.submit(defer_all, thread) for thread in range(8)]
        while len(made) < 8 * 2_000:
            assert wakes(calls, PATIENCE_S), f"{len(made)} calls, and no wake for the rest"
            calls.run_callbacks(None)
        for one in deferring:
            one.result()
    for thread in range(8):
        assert [number for of, number in made if of == thread] == list(range(2_000))


def test_who_comes_when_it_is_closed_does_no_harm() -> None:
    calls = CallQueue()
    calls.init()
    calls.close()
    calls.defer(lambda: None)


class Served:
    """What the threads were given, and what they said of it."""

    def __init__(self, count: int) -> None:
        self.said: list[tuple[Any, bool]] = []
        self._changing = threading.Condition()
        self.threads = RequestThreads(count, self.serve, self.served)

    def serve(self, connection: Any) -> bool:
        if isinstance(connection, BaseException):
            raise connection
        return bool(connection() if callable(connection) else connection)

    def served(self, connection: Any, keeps_alive: bool) -> None:
        with self._changing:
            self.said.append((connection, keeps_alive))
            self._changing.notify()

    def wait_for(self, count: int) -> None:
        with self._changing:
            assert self._changing.wait_for(lambda: len(self.said) >= count, PATIENCE_S)


def test_each_connection_is_served_once_and_said_to_be() -> None:
    served = Served(4)
    for number in range(200):
        served.threads.submit(number)  # type: ignore[arg-type]
    served.wait_for(200)
    served.threads.shutdown()
    assert sorted(served.said) == [(number, bool(number)) for number in range(200)]


@pytest.mark.parametrize("defect", [ZeroDivisionError(), SystemExit(1)])
def test_a_defect_closes_the_connection_and_costs_no_thread(
    defect: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(1)
    served.threads.submit(defect)  # type: ignore[arg-type]
    served.threads.submit(7)  # type: ignore[arg-type]
    served.wait_for(2)
    served.threads.shutdown()
    assert served.said == [(defect, False), (7, True)]
    assert "a defect while serving a request" in caplog.text


def test_as_many_are_served_at_once_as_there_are_threads() -> None:
    served = Served(3)
    all_are_here = threading.Barrier(3)
    for _ in range(3):
        served.threads.submit(lambda: all_are_here.wait(PATIENCE_S) or True)  # type: ignore[arg-type,return-value]
    served.wait_for(3)
    served.threads.shutdown()


def test_shutting_down_ends_the_threads_once_they_have_served() -> None:
    before = threading.active_count()
    served = Served(3)
    for number in range(50):
        served.threads.submit(number)  # type: ignore[arg-type]
    served.threads.shutdown(wait=False)
    served.wait_for(50)
    for thread in threading.enumerate():
        if thread.name.startswith("request-"):
            thread.join(PATIENCE_S)
    assert threading.active_count() <= before
