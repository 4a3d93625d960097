"""Whether this process can start as many threads as its workers will need.

gunicorn starts a thread when no idle one is left for a request. If a limit forbids that (a
container's `pids_limit`, `ulimit -u`), the worker dies under load, and no message names the limit.
No single file has the limit on every system, so the threads are started to find out.
"""

from __future__ import annotations

import threading

from frontend.settings import FrontendSettings

# A worker's threads that serve no request: gRPC's, the subscriber's, the trades'.
_OTHER_THREADS = 24


def too_few_threads(settings: FrontendSettings) -> str | None:
    """What is wrong with the settings, if the limit leaves too few threads."""
    needed = settings.web_concurrency * (settings.web_threads + _OTHER_THREADS)
    possible = _startable(needed)
    if possible == needed:
        return None
    return (
        f"setting WEB_THREADS={settings.web_threads}: {settings.web_concurrency} workers need "
        f"{needed} threads, but only {possible} can be started here: lower it, or raise the "
        "limit (FRONTEND_PIDS with compose)"
    )


def _startable(wanted: int) -> int:
    """How many threads can run at the same time, `wanted` at most."""
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=done.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:  # "can't start new thread"
        pass
    finally:
        done.set()
        for thread in started:
            thread.join()
    return len(started)
