"""A connection of psycopg on which no wait is endless."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen

Result = TypeVar("Result")

_WAKE_EVERY_S = 0.1


class _Pipeline(psycopg.Pipeline):
    """One that is sent as a whole, with the Sync as the last of it.

    psycopg's sends each statement at once. A process that is paused in between leaves the server
    with half of it. There no timeout of the server counts, and it keeps its locks for as long as
    the connection is open.

    After the Sync, psycopg's sends a Flush. A server that reads one while it is idle in a
    transaction stops counting the time that it is.
    """

    _has_sync = False

    def _enqueue_sync(self) -> None:
        super()._enqueue_sync()
        self._has_sync = True

    def _communicate_gen(self) -> PQGen[None]:
        # Without it, a paused catalog keeps the row ("sent as one": test_commits.py).
        if self._has_sync:
            while self.command_queue:
                self.command_queue.popleft()()  # libpq gathers them
            yield from super()._communicate_gen()

    def _exit_gen(self) -> PQGen[None]:
        # Without it, a paused catalog keeps the row ("no flush": test_commits.py).
        return self._end()

    def _end(self) -> PQGen[None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            yield from self._fetch_gen(flush=False)


class Bounded(psycopg.Connection[tuple[Any, ...]]):
    """Waits for the server until the time that `allow` sets, and not at all before it was called.

    The server's own timeouts would not do: it may be gone, and none of them bounds how long a
    COMMIT waits for a standby. What ends a wait early closes the connection, because nobody knows
    then what the server did.
    """

    _until_s = 0.0

    def allow(self, wait_s: float) -> None:
        """What follows, all of it together, may wait so long from now on.

        A later wait raises `psycopg.OperationalError`.
        """
        self._until_s = time.monotonic() + wait_s

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """What is executed inside is sent together; the end waits for the answers."""
        pipeline = self._pipeline = _Pipeline(self)
        try:
            with pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    def wait(
        self,
        gen: PQGen[Result],
        interval: float = _WAKE_EVERY_S,
        timeout: float | None = None,
    ) -> Result:
        """In place of psycopg's, which has no end; and which, interrupted by a signal, asks the
        server to cancel, and could take a COMMIT for done whose wait for a standby that ended."""
        left_s = max(0.0, self._until_s - time.monotonic())
        if timeout is not None:
            left_s = min(left_s, timeout)
        try:
            # Without it, a paused node holds all up ("bounded wait": test_commits.py).
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=left_s)
        except psycopg.OperationalError as error:
            if time.monotonic() >= self._until_s:
                self.close()
                raise psycopg.OperationalError("the server did not answer in time") from error
            raise
        except psycopg.Error:
            raise
        except BaseException:
            self.close()
            raise
