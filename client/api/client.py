"""`BourseClient`: one session with the service, which outlives the connections under it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Self

from client.api.connection import BaseUrl, Connection, NoAnswer
from client.api.messages import Answer, Request

DEFAULT_URL = "http://127.0.0.1:26111"
# The service answers within 10 s. The rest is for the network.
DEFAULT_TIMEOUT_S = 15.0

# Errors of the service (503) or of a gateway in front of it, which may be over soon.
_PASSING = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


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

        `retry_after_s` is the pause that the server asked for. The client waits at least that, up
        to its bound: the jitter then only adds.
        """
        longest_s = self.first_pause_s * 2.0 ** min(attempts_made - 1, 30)
        longest_s = min(longest_s, self.longest_pause_s)
        pause_s = self.jitter(longest_s / 2, longest_s)
        if retry_after_s is not None:
            pause_s += min(retry_after_s, self.longest_retry_after_s)
        if attempts_made >= self.attempts or elapsed_s + pause_s > self.total_s:
            return None
        return pause_s


@dataclass(slots=True)
class Traffic:
    """Counts what was sent and received, with the answers after which the request was repeated."""

    answers: Counter[int] = field(default_factory=Counter)  # by status
    repeats: int = 0  # requests sent again
    reconnects: int = 0  # connections opened after the first one

    def add(self, other: Traffic) -> None:
        self.answers.update(other.answers)
        self.repeats += other.repeats
        self.reconnects += other.reconnects

    @property
    def server_errors(self) -> int:
        return sum(
            count
            for status, count in self.answers.items()
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )


class BourseClient:
    """Holds one keep-alive connection; for one thread.

    A request that is safe to repeat (a GET, a trade with a key) is sent again on a broken
    connection or a passing 5xx, as the policy bounds it. A trade without a key is sent again
    only if it certainly never left.
    """

    def __init__(
        self,
        base_url: str | BaseUrl,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises BadUrl. `timeout_s` bounds each wait for the server, not a request's repeats."""
        self.base = BaseUrl.parse(base_url) if isinstance(base_url, str) else base_url
        self._connection = Connection(self.base, timeout_s)
        self._retry = retry or RetryPolicy()
        self._sleep = sleep
        self._clock = clock
        self._answers: Counter[int] = Counter()
        self._repeats = 0

    @property
    def traffic(self) -> Traffic:
        reconnects = max(0, self._connection.times_opened - 1)
        return Traffic(self._answers.copy(), self._repeats, reconnects)

    def hello(self, name: str) -> Answer:
        return self.send(Request.hello(name))

    def lookup(self, name: str) -> Answer:
        return self.send(Request.lookup(name))

    def trade(self, name: str, quantity: int, type: str, key: str | None = None) -> Answer:
        """NoAnswer with `may_have_arrived` means that the outcome is unknown."""
        return self.send(Request.trade(name, quantity, type, key))

    def order(self, number: int) -> Answer:
        return self.send(Request.order(number))

    def connect(self) -> None:
        """Tries once to reach the server. Raises NoAnswer."""
        self._connection.open()

    def send(self, request: Request) -> Answer:
        """The final answer to the request, whatever its status.

        Raises:
            NoAnswer: none came, or none within the bounds of the policy.
        """
        started_s = self._clock()
        attempts, in_doubt = 0, False
        while True:
            attempts += 1
            outcome = self._attempt(request)
            elapsed_s = self._clock() - started_s
            in_doubt = in_doubt or isinstance(outcome, Answer) or outcome.may_have_arrived
            pause_s = None
            if _may_get_better(request, outcome) and (request.is_repeatable or not in_doubt):
                pause_s = self._retry.pause_s(attempts, elapsed_s, _retry_after_s(outcome))
            if pause_s is not None:
                self._repeats += 1
                self._sleep(pause_s)
            elif isinstance(outcome, Answer):
                return replace(outcome, latency_s=elapsed_s, attempts=attempts)
            else:
                message = f"{outcome} (attempts: {attempts}, waited {elapsed_s:.1f} s)"
                raise NoAnswer(message, may_have_arrived=in_doubt) from outcome

    def _attempt(self, request: Request) -> Answer | NoAnswer:
        try:
            answer = self._connection.exchange(request)
        except NoAnswer as error:
            return error
        self._answers[answer.status] += 1
        return answer

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _may_get_better(request: Request, outcome: Answer | NoAnswer) -> bool:
    if isinstance(outcome, NoAnswer):
        return True
    return outcome.status in _PASSING and request.awaits_recovery


def _retry_after_s(outcome: Answer | NoAnswer) -> float | None:
    if isinstance(outcome, NoAnswer):
        return None
    value = outcome.headers.get("Retry-After", "")
    # The header can also be a date. Bourse never sends one.
    return float(value) if value.isascii() and value.isdigit() else None
