"""A queue in front of a slow call: requests that come during one call share the next one.

This is group commit (DeWitt et al., 1984) at the sender's end. The slower the other side is, the
more requests share a call. A request that is alone is sent at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from common.errors import BourseError, Busy, OutcomeUnknown, Unavailable

logger = logging.getLogger(__name__)

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class NotSent(Exception):
    """No call carried the request."""

    def __init__(self, cause: BourseError) -> None:
        super().__init__(cause.message)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Request, Answer]):
    request: Request
    give_up_at: float
    answer: Future[Answer] = field(default_factory=Future)

    def not_sent(self, cause: BourseError) -> None:
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(NotSent(cause))


class BatchSender(Generic[Request, Answer]):
    """A bounded queue, and one thread that sends the requests in it, one call after the other.

    Args:
        name: the thread's name.
        send: makes one call. Takes the requests and a time limit in seconds. Returns an answer or
            an error for each request, in order. Raises BourseError if the whole call failed.
        batch_limit: most requests in one call.
        queue_limit: most requests that wait for a call.
        clock: seconds, monotonic.
        on_end: what the thread does last.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[Request], float], Sequence[Answer | BourseError]],
        *,
        batch_limit: int,
        queue_limit: int,
        clock: Callable[[], float],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._send = send
        self._on_end = on_end
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._clock = clock
        self._waiting: deque[_Waiting[Request, Answer]] = deque()
        self._is_closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, request: Request, give_up_at: float) -> Future[Answer]:
        """The answer that the request will get: an error, `NotSent`, or what `send` returns.

        A request that is cancelled in time is not sent. The others share a call, which may last
        until the latest of their `give_up_at`. A caller that gives up earlier does not end it.

        Raises:
            Busy: too many requests wait.
        """
        waiting: _Waiting[Request, Answer] = _Waiting(request, give_up_at)
        with self._changed:
            if len(self._waiting) >= self._queue_limit:
                raise Busy
            if not self._is_closed:
                self._waiting.append(waiting)
                self._changed.notify()
                return waiting.answer
        waiting.not_sent(Unavailable())
        return waiting.answer

    def dismiss(self, cause: BourseError) -> None:
        """Empties the queue: each waiting request ends with `NotSent`."""
        with self._changed:
            dismissed = list(self._waiting)
            self._waiting.clear()
        for waiting in dismissed:
            waiting.not_sent(cause)

    def close(self) -> None:
        """Takes no more requests. The thread ends after its current call; this does not wait."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self.dismiss(Unavailable())

    def _run(self) -> None:
        while not self._is_closed:
            if batch := self._next_batch():
                self._send_batch(batch)
        self._on_end()

    def _next_batch(self) -> list[_Waiting[Request, Answer]]:
        """The requests that wait, oldest first, without those that have given up."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            size = min(len(self._waiting), self._batch_limit)
            taken = [self._waiting.popleft() for _ in range(size)]
        now = self._clock()
        for late in (one for one in taken if one.give_up_at <= now):
            late.not_sent(OutcomeUnknown())
        return [
            one
            for one in taken
            if one.give_up_at > now and one.answer.set_running_or_notify_cancel()
        ]

    def _send_batch(self, batch: Sequence[_Waiting[Request, Answer]]) -> None:
        """Makes one call. Even if it fails, each request gets an answer and the thread goes on."""
        timeout_s = max(one.give_up_at for one in batch) - self._clock()
        answers: Sequence[tuple[_Waiting[Request, Answer], Answer | BourseError]]
        try:
            outcomes = self._send([one.request for one in batch], timeout_s)
            answers = list(zip(batch, outcomes, strict=True))
        except BourseError as failure:
            # Fail everyone queued behind this call: the other side is probably gone.
            self.dismiss(failure)
            answers = [(one, failure) for one in batch]
        except BaseException:
            logger.exception("unexpected error while sending %d requests", len(batch))
            answers = [(one, OutcomeUnknown()) for one in batch]
        for one, outcome in answers:
            if isinstance(outcome, BourseError):
                one.answer.set_exception(outcome)
            else:
                one.answer.set_result(outcome)
