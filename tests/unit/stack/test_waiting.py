"""Waiting: bounded, told why when in vain; and threads whose failures are not lost."""

from __future__ import annotations

import threading

import pytest

from stack.waiting import NotInTime, in_parallel, wait_for


def test_what_becomes_true_is_returned() -> None:
    values = iter([0, "", "here"])
    assert wait_for(lambda: next(values), 10, "something") == "here"


def test_what_does_not_is_told_with_the_last_state() -> None:
    with pytest.raises(NotInTime, match="not within 0 s: still nothing"):
        wait_for(lambda: None, 0, lambda: "still nothing")


def test_tasks_run_side_by_side_and_are_watched_to_the_end() -> None:
    met = threading.Barrier(2, timeout=10)
    watched: list[int] = []
    in_parallel([met.wait, met.wait], lambda: watched.append(met.n_waiting))  # type: ignore[list-item]
    assert watched[-1] == 0


def test_what_a_thread_raises_is_raised() -> None:
    def crash() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        in_parallel([crash, lambda: None], watch=lambda: None)
