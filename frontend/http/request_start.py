"""How old a request is. The edge writes the time of its arrival into a header, once.

Every time limit counts from then. So a request is answered within 10 s, however often the edge
repeats it.
The header has the wall clock's time, so edge and frontend must have the same clock: they are
containers on one machine. Without an edge there is no header, and each request counts as new.
"""

from __future__ import annotations

import re
import time

from frontend.http.validation import Environ

# If a request is older than this when a thread takes it, an answer within 10 s is not certain. The
# edge's second repeat comes after 6 s, so it is still taken.
LONGEST_WAIT_S = 7.0

_STAMP = re.compile(r"t=([0-9]{1,15})")


def elapsed_s(environ: Environ, now: float | None = None) -> float:
    """Seconds since the request arrived; 0 if it has no header.

    Args:
        environ: the WSGI environment, with `X-Request-Start: t=<milliseconds since 1970>`.
        now: seconds since 1970; None means the wall clock's time.
    """
    header = environ.get("HTTP_X_REQUEST_START")
    stamp = _STAMP.fullmatch(header) if header else None
    if stamp is None:
        return 0.0
    return max(0.0, (time.time() if now is None else now) - int(stamp[1]) / 1000)


def is_too_old(environ: Environ) -> bool:
    return elapsed_s(environ) > LONGEST_WAIT_S
