"""Waiting: until something is so, bounded in time; and until every thread has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from stack.parts import StackError

# How often the one that waits for threads looks how far they are.
_WATCH_INTERVAL_S = 0.1

# Between two questions of the one that waits for something.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05

_Value = TypeVar("_Value")


class NotInTime(StackError):
    """It did not happen in time; the message has the last state seen."""


def wait_for(
    condition: Callable[[], _Value],
    timeout_s: float,
    describe: str | Callable[[], object],
) -> _Value:
    """Asks again and again until `condition` returns something true, and returns that.

    It asks often at first, for what takes milliseconds, and then less and less often.

    Args:
        describe: what is waited for, or a function that tells the last state seen.

    Raises:
        NotInTime: it was not so within `timeout_s`.
    """
    give_up_at, pause_s = time.monotonic() + timeout_s, _SHORTEST_PAUSE_S
    while not (value := condition()):
        if time.monotonic() > give_up_at:
            state = describe() if callable(describe) else describe
            raise NotInTime(f"not within {timeout_s:g} s: {state}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return value


def in_parallel(tasks: Iterable[Callable[[], None]], watch: Callable[[], None]) -> None:
    """Runs each task in a thread of its own, calling `watch` meanwhile and at the end.

    If some raise, the exception of the first that did is raised when all have ended.
    """
    crashes: list[Exception] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - a thread has no caller; raised again below
            crashes.append(error)

    # Daemons, so that an interrupt need not wait for them.
    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_WATCH_INTERVAL_S)
            watch()
    watch()
    if crashes:
        raise crashes[0]
