"""`python -m common.health [host:port [service]]`: exits 0 when the server there says SERVING.

Without a service, it speaks of the process. Of several catalogs, all are alive, and only the active
one serves `bourse.v1.CatalogService`.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.rpc_client import open_channel

_TIMEOUT_S = 2.0


def is_serving(address: str, timeout_s: float = _TIMEOUT_S, service: str = "") -> bool:
    """True when the server at `address` answers SERVING in time, for itself or for a service."""
    # With the options of every channel. Without them it could ask a proxy instead of the service.
    with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    service = sys.argv[2] if len(sys.argv) > 2 else ""
    sys.exit(0 if is_serving(address, service=service) else 1)
