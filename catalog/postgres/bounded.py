"""A connection of psycopg on which no wait is endless."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import psycopg
from psycopg import waiting
from psycopg.abc import PQGen

Result = TypeVar("Result")

_WAKE_EVERY_S = 0.1


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
            # Without it, a paused node holds all up ("bounded wait": test_postgres_session.py).
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
