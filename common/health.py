"""`python -m common.health [host:port]`: exits 0 when the gRPC service there says SERVING."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.rpc_client import open_channel

_TIMEOUT_S = 2.0


def is_serving(address: str, timeout_s: float = _TIMEOUT_S) -> bool:
    """True when the service at `address` answers SERVING in time."""
    # With the options of every channel. Without them it could ask a proxy instead of the service.
    with open_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_serving(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051") else 1)
