"""What the parts say on their inner network, asked from inside a container."""

from __future__ import annotations

import json
from typing import Any

from stack.parts import ORDER_SERVICES
from stack.waiting import wait_for
from tests.e2e.stack import Stack

_SCRIPT = """
import grpc, json
from google.protobuf.json_format import MessageToDict
from proto import bourse_pb2, bourse_pb2_grpc
said = {}
for name in ("order-1", "order-2", "order-3"):
    stub = bourse_pb2_grpc.OrderServiceStub(grpc.insecure_channel(name + ":50051"))
    try:
        answer = stub.Status(bourse_pb2.Empty(), timeout=2)
    except grpc.RpcError:
        continue
    said[name] = MessageToDict(answer, preserving_proto_field_name=True)
print(json.dumps(said))
"""


def statuses(stack: Stack) -> dict[str, dict[str, Any]]:
    """The status of each replica that answers, by service."""
    answer: dict[str, dict[str, Any]] = json.loads(
        stack.execute("catalog", "python", "-c", _SCRIPT)
    )
    return answer


def leader(stack: Stack) -> str:
    """The service that leads the newest epoch; waits until one does."""

    def newest() -> str | None:
        leading = {
            name: int(status["epoch"])
            for name, status in statuses(stack).items()
            if status.get("role") == "leader"
        }
        return max(leading, key=lambda name: leading[name], default=None)

    name = wait_for(newest, 20, lambda: statuses(stack))
    assert name is not None
    return name


def digests(stack: Stack) -> tuple[str, str]:
    """The (last number, digest) that all three replicas share; waits until they do."""

    def shared() -> tuple[str, str] | None:
        said = [
            (str(status.get("last_number", "0")), str(status.get("digest", "")))
            for status in statuses(stack).values()
        ]
        return said[0] if len(said) == len(ORDER_SERVICES) and len(set(said)) == 1 else None

    found = wait_for(shared, 30, lambda: statuses(stack))
    assert found is not None
    return found
