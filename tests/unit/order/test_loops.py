"""The loops of a replica: they end together, and one that hangs does not hold up the end."""

from __future__ import annotations

import threading

from order.loops import Loop, Loops

PATIENCE_S = 10.0


def until(event: threading.Event) -> Loop:
    def loop(_stopping: threading.Event) -> None:
        event.wait()

    return loop


def test_all_end_when_they_are_stopped() -> None:
    loops, ended = Loops(), threading.Semaphore(0)

    def loop(stopping: threading.Event) -> None:
        stopping.wait()
        ended.release()

    for name in ("one", "two"):
        loops.start(name, loop)
    assert not ended.acquire(timeout=0.01)
    assert loops.stop(PATIENCE_S)
    assert ended.acquire(blocking=False)
    assert ended.acquire(blocking=False)


def test_one_that_waits_for_something_else_is_woken() -> None:
    loops, awake = Loops(), threading.Event()
    loops.start("waits", until(awake), awake.set)
    assert loops.stop(PATIENCE_S)


def test_one_that_hangs_is_told_of_and_not_waited_for() -> None:
    loops, disk = Loops(), threading.Event()
    loops.start("hangs", until(disk))
    try:
        assert not loops.stop(0.05)
    finally:
        disk.set()
    assert loops.stop(PATIENCE_S)
