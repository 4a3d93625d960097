"""What the nemesis sees of the stack, and how it knows that what was healed serves again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from stack.observations import Observation, in_sync
from stack.parts import CATALOGS, DATABASE_SERVICES, ORDER_SERVICES

# A healed part must serve again within this time. If it does not, the run reports it.
_RECOVERED_WITHIN_S = 60.0
# A former primary is rewound, and in the worst case copied anew.
_NODE_RECOVERED_WITHIN_S = 120.0
# The workers of the frontends reconnect within half a second, each at its own time. A part that
# they all need counts as recovered only after the service was ready for this long.
_READY_FOR_S = 1.0
# The edge gets the address of a restarted frontend from Docker's name server, and then checks it.
_KNOWN_AFTER_S = 3.0
# Patroni tells at its next loops, one a second, that a node which seemed to be well is not.
_WHOLE_FOR_S = 5.0
_ANSWERS_FOR_ITSELF = frozenset({*ORDER_SERVICES, "redis"})
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Eyes:
    """What the nemesis sees of the stack."""

    observe: Callable[[], Observation | None]
    is_ready: Callable[[], bool]  # GET /readyz through the edge, which includes the catalog
    is_running: Callable[[str], bool]  # the container runs and is not paused
    passes_its_check: Callable[[str], bool]  # the health check of the part's container
    pings: Callable[[str], bool]  # redis
    # Gives a function that sends trades to a paused leader. These trades go to no other replica.
    orphans: Callable[[str], AbstractContextManager[Callable[[], None]]]
    holders: Callable[[], Mapping[str, str]]  # each office that somebody holds, and who
    primary: Callable[[], str | None]  # the node of the database
    database_is_whole: Callable[[], bool]  # all its nodes work, and each office is held


class Recovery:
    def __init__(self, eyes: Eyes, clock: Callable[[], int]) -> None:
        self._eyes = eyes
        self._clock = clock
        self._giving_up = threading.Event()

    def give_up(self) -> None:
        """From now on nobody waits."""
        self._giving_up.set()

    def wait_for(self, hits: tuple[str, ...]) -> str:
        """The parts that have not recovered in time, in words. Empty if all have."""
        since_ns = self._clock()
        within_s = (
            _RECOVERED_WITHIN_S
            if set(hits).isdisjoint(DATABASE_SERVICES)
            else _NODE_RECOVERED_WITHIN_S
        )
        give_up_at = time.monotonic() + within_s
        served_since: dict[str, float] = {}
        waiting = set(hits)
        while waiting:
            if self._giving_up.is_set():
                return f"nobody waited for {', '.join(sorted(waiting))} to recover"
            for service in sorted(waiting):
                if not self._serves(service, since_ns):
                    served_since.pop(service, None)
                    continue
                since_s = served_since.setdefault(service, time.monotonic())
                if time.monotonic() - since_s >= _steady_s(service):
                    waiting.discard(service)
            if waiting and time.monotonic() > give_up_at:
                return f"{', '.join(sorted(waiting))} did not recover in {within_s:g} s"
            if waiting:
                time.sleep(_POLL_S)
        return ""

    def _serves(self, service: str, since_ns: int) -> bool:
        if service in ORDER_SERVICES:
            seen = self._eyes.observe()
            # An observation from before the healing may even be from before the fault.
            return seen is not None and seen.at_ns > since_ns and in_sync(seen, service)
        if not self._eyes.is_running(service):
            return False
        if service == "redis":
            return self._eyes.pings(service)
        # Through the edge another one may answer.
        is_one_of_some = service.startswith("frontend") or service in CATALOGS
        if (is_one_of_some or service in DATABASE_SERVICES) and not self._eyes.passes_its_check(
            service
        ):
            return False
        if service in DATABASE_SERVICES and not self._eyes.database_is_whole():
            return False
        return self._eyes.is_ready()


def _steady_s(service: str) -> float:
    """How long a part must serve before it counts as recovered."""
    if service in _ANSWERS_FOR_ITSELF:
        return 0.0
    if service in DATABASE_SERVICES:
        return _WHOLE_FOR_S
    return _KNOWN_AFTER_S if service.startswith("frontend") else _READY_FOR_S
