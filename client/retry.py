"""When to try again, and how long to wait before: bounded in attempts and in time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

# Exponential backoff with "equal jitter" (M. Brooker, "Exponential Backoff and Jitter", 2015):
# never less than half the pause, so that a restarting server gets its moment.
Jitter = Callable[[float, float], float]
_uniform: Jitter = random.SystemRandom().uniform


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """No attempt starts more than `total_s` after the first one, nor do more than `attempts`."""

    attempts: int = 12
    total_s: float = 60.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    longest_retry_after_s: float = 5.0
    jitter: Jitter = _uniform

    def pause_s(
        self, attempts_made: int, elapsed_s: float, retry_after_s: float | None = None
    ) -> float | None:
        """How long to wait before the next attempt; None when there is to be none.

        `retry_after_s` is what the server asked for. It is kept to, within its bound: the
        jitter then only adds.
        """
        longest_s = self.first_pause_s * 2.0 ** min(attempts_made - 1, 30)
        longest_s = min(longest_s, self.longest_pause_s)
        pause_s = self.jitter(longest_s / 2, longest_s)
        if retry_after_s is not None:
            pause_s += min(retry_after_s, self.longest_retry_after_s)
        if attempts_made >= self.attempts or elapsed_s + pause_s > self.total_s:
            return None
        return pause_s
