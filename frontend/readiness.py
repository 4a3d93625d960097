"""Whether requests can be served. That needs only the catalog and one order replica."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common.errors import BourseError
from common.replicas import ReplicaPeer, ask_all
from proto import bourse_pb2

_PROBE_TIMEOUT_S = 1.0


class ServiceReadiness:
    """Asks the catalog and the replicas, each time anew. It does not ask Redis.

    Args:
        catalog_is_reachable: asks the catalog.
        peers: every order replica.
    """

    def __init__(
        self, catalog_is_reachable: Callable[[], bool], peers: Iterable[ReplicaPeer]
    ) -> None:
        self._catalog_is_reachable = catalog_is_reachable
        self._peers = tuple(peers)

    def reason_not_ready(self) -> str | None:
        if not self._catalog_is_reachable():
            return "the catalog does not answer"
        if not self._a_replica_is_alive():
            return "no order replica answers"
        return None

    def _a_replica_is_alive(self) -> bool:
        answers = ask_all(self._peers, "IsAlive", bourse_pb2.Empty(), _PROBE_TIMEOUT_S)
        return any(not isinstance(answer, BourseError) for _, answer in answers)
