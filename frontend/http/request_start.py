"""How old a request is: the edge writes into a header, once, when the request came in.

Every time budget counts from there, so a request that the edge sends again has only what is left.
The header has a wall clock's time, so the clocks of edge and frontend must agree: they are
containers of one machine. Without an edge there is no header, and each request counts as new.
"""

from __future__ import annotations

import re
import time

from frontend.http.validation import Environ

# A request that is older when a thread takes it could not be answered within 10 s any more.
LONGEST_WAIT_S = 5.0

_STAMP = re.compile(r"t=([0-9]{1,15})")


def elapsed_s(environ: Environ, now: float | None = None) -> float:
    """How many seconds of the request's time are gone; 0 where no header tells.

    Args:
        environ: the request's, with `X-Request-Start: t=<milliseconds since the epoch>`.
        now: seconds since the epoch; the wall clock's, if None.
    """
    header = environ.get("HTTP_X_REQUEST_START")
    stamp = _STAMP.fullmatch(header) if header else None
    if stamp is None:
        return 0.0
    return max(0.0, (time.time() if now is None else now) - int(stamp[1]) / 1000)


def is_too_old(environ: Environ) -> bool:
    return elapsed_s(environ) > LONGEST_WAIT_S
