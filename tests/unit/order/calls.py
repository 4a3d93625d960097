"""Requests to a replica over gRPC, and how it refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from common.domain import Order
from common.wire import order_to_item
from proto import bourse_pb2
from tests.unit.order.fakes import make_rows
from tests.unit.order.replicas import RunningReplica

ROWS = make_rows(30)
Status = grpc.StatusCode


def trade(request_id: str = "", **fields: Any) -> bourse_pb2.TradeRequest:
    return bourse_pb2.TradeRequest(
        request_id=request_id, **{"name": "stock1", "quantity": 1, **fields}
    )


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), str(caught.value.details())


def batch(*rows: Order, leader_id: int = 0, epoch: int = 0) -> bourse_pb2.OrderBatch:
    return bourse_pb2.OrderBatch(
        rows=[order_to_item(row) for row in rows], leader_id=leader_id, epoch=epoch
    )


def leader_and_epoch(replica: RunningReplica) -> tuple[int, int]:
    answer = replica.call("GetLeader")
    assert answer.replica_id == 1
    return answer.leader_id, answer.epoch


def synced(replica: RunningReplica, last_number: int = 0, limit: int = 0) -> list[bytes]:
    request = bourse_pb2.SyncRequest(last_number=last_number, limit=limit)
    return [item.SerializeToString() for item in replica.stream("SyncOrderDB", request)]
