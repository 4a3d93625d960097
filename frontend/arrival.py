"""How long a request waited for a thread. Its client waited too: every budget counts from then."""

from __future__ import annotations

from contextvars import ContextVar

# Of the request that this thread serves.
waited_s: ContextVar[float] = ContextVar("waited_s", default=0.0)
