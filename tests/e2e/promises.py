"""What must hold whatever was done to the containers, judged from outside of the service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from catalog.stock_file import read_stocks
from common.domain import EMPTY_DIGEST, Order, next_digest
from stack.parts import ORDER_SERVICES, ROOT
from stack.waiting import wait_for
from tests.e2e.inside import statuses
from tests.e2e.stack import Stack

# A row has eight fields, its digest in hexadecimal.
_SCRIPT = """
import dataclasses, grpc, json
from common.wire import orders_from_items
from proto import bourse_pb2, bourse_pb2_grpc

def listed(rows):
    return [[*dataclasses.astuple(row)[:-1], row.digest.hex()] for row in rows]

catalog = bourse_pb2_grpc.CatalogServiceStub(grpc.insecure_channel("catalog:50051"))
chunks = list(catalog.Journal(bourse_pb2.SyncRequest(), timeout=20))
stocks = catalog.ListStocks(bourse_pb2.Empty(), timeout=5).stocks
logs = {}
for name in ("order-1", "order-2", "order-3"):
    order = bourse_pb2_grpc.OrderServiceStub(grpc.insecure_channel(name + ":50051"))
    items = order.SyncOrderDB(bourse_pb2.SyncRequest(), timeout=20)
    logs[name] = listed(orders_from_items(items))
print(json.dumps({
    "journal": listed(row for chunk in chunks for row in orders_from_items(chunk.rows)),
    "volumes": {stock.name: stock.volume for stock in stocks},
    "logs": logs,
}))
"""


class Records(NamedTuple):
    """What the catalog and each replica have stored."""

    journal: list[Order]
    volumes: dict[str, int]
    logs: dict[str, list[Order]]


def records(stack: Stack) -> Records:
    said = json.loads(stack.execute("catalog", "python", "-c", _SCRIPT))
    logs = {name: _orders(rows) for name, rows in said["logs"].items()}
    return Records(_orders(said["journal"]), said["volumes"], logs)


def _orders(rows: list[list[Any]]) -> list[Order]:
    return [Order(*fields, bytes.fromhex(digest)) for *fields, digest in rows]


def check_promises(stack: Stack, acknowledged: Mapping[str, int]) -> None:
    """With everything running: numbers, books, and that the replicas have it all.

    Args:
        acknowledged: request id → the order number that its 200 named.
    """
    wait_until_alike(stack)
    found = records(stack)
    assert [row.number for row in found.journal] == list(range(1, len(found.journal) + 1))
    by_request = {row.request_id: row.number for row in found.journal}
    assert len(by_request) == len(found.journal), "a request id was executed twice"
    lost = {key: n for key, n in acknowledged.items() if by_request.get(key) != n}
    assert not lost, f"acknowledged, but not so in the journal: {lost}"
    assert found.volumes == _volumes_after(found.journal)
    digest = EMPTY_DIGEST
    for row in found.journal:
        digest = next_digest(digest, row)
        assert row.digest == digest
    for name, log in found.logs.items():
        assert log == found.journal, f"the log of {name}"


def _volumes_after(journal: list[Order]) -> dict[str, int]:
    volumes = {stock.name: stock.volume for stock in read_stocks(ROOT / "catalog" / "stockDB.txt")}
    for row in journal:
        volumes[row.name] += row.quantity if row.type == "SELL" else -row.quantity
        assert volumes[row.name] >= 0
    return volumes


def wait_until_alike(stack: Stack) -> None:
    """Until every replica is at the same number with the same digest, and all are in sync."""

    def alike() -> bool:
        said = statuses(stack)
        ends = {(one.get("last_number"), one.get("digest")) for one in said.values()}
        return len(ends) == 1 and _all_in_sync(said)

    wait_for(alike, 30, lambda: statuses(stack))


def wait_until_in_sync(stack: Stack) -> None:
    """Until the leader has both others in sync; under load they are seldom seen at one number."""
    wait_for(lambda: _all_in_sync(statuses(stack)), 30, lambda: statuses(stack))


def _all_in_sync(said: Mapping[str, Mapping[str, Any]]) -> bool:
    followers = max((len(one.get("in_sync", ())) for one in said.values()), default=0)
    return len(said) == len(ORDER_SERVICES) and followers == len(said) - 1
