"""Waiting until something is so, bounded in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from stack.parts import StackError

_Value = TypeVar("_Value")


class NotInTime(StackError):
    """It did not happen in time; the message has the last state seen."""


def wait_for(
    condition: Callable[[], _Value],
    timeout_s: float,
    describe: str | Callable[[], object],
    interval_s: float = 0.05,
) -> _Value:
    """Asks again and again until `condition` returns something true, and returns that.

    Args:
        describe: what is waited for, or a function that tells the last state seen.

    Raises:
        NotInTime: it was not so within `timeout_s`.
    """
    give_up_at = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > give_up_at:
            state = describe() if callable(describe) else describe
            raise NotInTime(f"not within {timeout_s:g} s: {state}")
        time.sleep(interval_s)
    return value
