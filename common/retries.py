"""Bounded retries: until when, on which errors, after what pauses."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with each failure in a row, up to the longest.

    Each pause is random, so that many callers do not come back at the same moment.

    Args:
        first_s: the longest pause after the first failure.
        longest_s: no pause is longer.
        at_least: a random pause is at least this part of the full one, from 0 to 1. With 1, pauses
            are not random.
    """

    first_s: float
    longest_s: float
    at_least: float = 0.0

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row, from 1 up."""
        doublings = min(failures - 1, 64)  # a float has an end
        longest_s = min(self.first_s * 2.0**doublings, self.longest_s)
        return longest_s * random.uniform(self.at_least, 1.0)  # noqa: S311 - not a secret


def always(pause_s: float) -> Backoff:
    """The same pause after every failure."""
    return Backoff(pause_s, pause_s, at_least=1.0)


def _ignore(_error: Exception) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """Calls something again until it succeeds or a bound is reached.

    Args:
        on: the errors after which it is called again. Any other ends the retries.
        never_on: those among them that end the retries all the same.
        for_s: no attempt begins later than this after the first.
        longer_on: those among them that promise an end of the trouble. After such an error there is
            `for_s` once more.
        longest_s: but after the first attempt never more than this.
        attempts: how many there are at most. At least one of the two bounds is given.
        backoff: the pauses in between.
    """

    on: tuple[type[Exception], ...]
    never_on: tuple[type[Exception], ...] = ()
    for_s: float = math.inf
    longer_on: tuple[type[Exception], ...] = ()
    longest_s: float = 0.0
    attempts: float = math.inf
    backoff: Backoff
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if math.isinf(self.for_s) and math.isinf(self.attempts):
            raise ValueError("retries without a bound")

    def call(
        self,
        attempt: Callable[[float], Answer],
        before_retry: Callable[[Exception], None] = _ignore,
    ) -> Answer:
        """What the first successful attempt returns.

        Args:
            attempt: gets how many seconds are left; infinity without `for_s`.
            before_retry: gets each error that another attempt follows, before the pause. It may
                raise, which ends the retries.

        Raises:
            Exception: the error of the last attempt.
        """
        began_at = self.clock()
        give_up_at = began_at + self.for_s
        failures = 0
        while True:
            try:
                return attempt(give_up_at - self.clock())
            except self.on as error:
                failures += 1
                if isinstance(error, self.longer_on):
                    longer = min(self.clock() + self.for_s, began_at + self.longest_s)
                    give_up_at = max(give_up_at, longer)
                pause_s = self.backoff.pause_s(failures)
                is_last = failures >= self.attempts or self.clock() + pause_s >= give_up_at
                if is_last or isinstance(error, self.never_on):
                    raise
                before_retry(error)
            self.sleep(pause_s)
