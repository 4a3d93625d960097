"""How long a request waited for a thread. Its client waited too: every budget counts from then."""

from __future__ import annotations

from contextvars import ContextVar

# Of the request that this thread serves.
waited_s: ContextVar[float] = ContextVar("waited_s", default=0.0)

# A request that waited longer for a thread could no longer be answered within 10 s.
_LONGEST_WAIT_S = 5.0


def came_too_late() -> bool:
    """Whether the request of this thread waited for it so long that it is refused."""
    return waited_s.get() > _LONGEST_WAIT_S
