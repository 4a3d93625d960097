"""Whether requests can be served: the catalog and one order replica are all it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common import rpc
from proto import bourse_pb2, bourse_pb2_grpc

_PROBE_TIMEOUT_S = 1.0


class ServiceReadiness:
    """Asks the parts behind the frontend, each time anew. Redis is not among them.

    Args:
        catalog_is_reachable: asks the catalog.
        replicas: a stub of every order replica.
    """

    def __init__(
        self,
        catalog_is_reachable: Callable[[], bool],
        replicas: Iterable[bourse_pb2_grpc.OrderServiceStub],
    ) -> None:
        self._catalog_is_reachable = catalog_is_reachable
        self._replicas = tuple(replicas)

    def reason_not_ready(self) -> str | None:
        if not self._catalog_is_reachable():
            return "the catalog does not answer"
        if not self._a_replica_is_alive():
            return "no order replica answers"
        return None

    def _a_replica_is_alive(self) -> bool:
        # All are asked before any is waited for.
        calls = [
            replica.IsAlive.future(
                bourse_pb2.Empty(), timeout=_PROBE_TIMEOUT_S, metadata=rpc.call_metadata()
            )
            for replica in self._replicas
        ]
        return any(call.exception() is None for call in calls)
