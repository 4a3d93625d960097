"""Runs inside the stack's inner network, which this machine has no route to; speaks JSON lines.

watch SECONDS   what the replicas say, again and again
read ABOVE      the stocks, the journal's rows above that number, and where the replicas are,
                as soon as all of them are where the journal ends, or else after a while
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from common.errors import BourseError
from common.replicas import ReplicaPeer
from common.rpc_client import Peer, open_channel
from common.wire import orders_from_items
from proto import bourse_pb2, bourse_pb2_grpc

# The second one is there with compose.ha.yaml. One is active, and the only one always is.
CATALOGS = ("catalog:50051", "catalog-2:50051")
CATALOG_SERVICE = "bourse.v1.CatalogService"
REPLICAS = {"order-1": 1, "order-2": 2, "order-3": 3}
_STATUS_TIMEOUT_S = 0.3
_ACTIVE_WITHIN_S = 30.0
_CATALOG_TIMEOUT_S = 5.0
_JOURNAL_TIMEOUT_S = 120.0
_ALIKE_WITHIN_S = 30.0
# As long as the longest pause, and then some.
_ORPHANS_WITHIN_S = 40.0


class Replicas:
    def __init__(self) -> None:
        self._peers = {
            name: ReplicaPeer(replica_id, f"{name}:50051") for name, replica_id in REPLICAS.items()
        }
        self._threads = ThreadPoolExecutor(len(REPLICAS))

    def positions(self) -> dict[str, dict[str, Any]]:
        """Of those that answer, each as `stack.observations.Position` has it."""
        said = self._threads.map(self._position, REPLICAS)
        return {name: one for name, one in zip(REPLICAS, said, strict=True) if one is not None}

    def _position(self, name: str) -> dict[str, Any] | None:
        try:
            status = self._peers[name].call("Status", bourse_pb2.Empty(), _STATUS_TIMEOUT_S)
        except BourseError:  # of one that has another's address for a moment as well
            return None
        return {
            "role": status.role,
            "epoch": status.epoch,
            "leader_id": status.leader_id,
            "last_number": status.last_number,
            "digest": status.digest.hex(),
            "in_sync": list(status.in_sync),
            "ready": status.ready,
        }


def watch(interval_s: float) -> None:
    replicas = Replicas()
    while True:
        at_ns = time.monotonic_ns()
        said = replicas.positions()
        say({"at_ns": at_ns, "until_ns": time.monotonic_ns(), "replicas": said})
        time.sleep(interval_s)


def read(above: int) -> None:
    replicas = Replicas()
    catalog = bourse_pb2_grpc.CatalogServiceStub(open_channel(active_catalog()))
    give_up_at = time.monotonic() + _ALIKE_WITHIN_S
    while True:
        positions = replicas.positions()
        longest = max((one["last_number"] for one in positions.values()), default=0)
        behind = list(journal(catalog, longest, limit=1))
        ends = {(one["last_number"], one["digest"]) for one in positions.values()}
        if len(positions) == len(REPLICAS) and len(ends) == 1 and not behind:
            break
        if time.monotonic() > give_up_at:
            break
        time.sleep(0.2)
    request = bourse_pb2.Empty()
    stocks = catalog.ListStocks(request, timeout=_CATALOG_TIMEOUT_S, wait_for_ready=True).stocks
    last_number, digest = max(ends, default=(0, ""))
    say({"opening": {"last_number": last_number, "digest": digest, "alike": not behind}})
    for row in journal(catalog, last_number if above < 0 else above):
        last_number = row["number"]
        say({"row": row})
    say(
        {
            "final": {
                "at_ns": time.monotonic_ns(),
                "last_number": last_number,
                "quantities": {stock.name: stock.volume for stock in stocks},
                "versions": {stock.name: stock.version for stock in stocks},
                "replicas": positions,
            }
        }
    )


def active_catalog() -> str:
    """The address of the one that is active. If none is in time, of the first one."""
    stub = bourse_pb2_grpc.CatalogServiceStub
    peers = {address: Peer("a catalog", address, stub) for address in CATALOGS}
    give_up_at = time.monotonic() + _ACTIVE_WITHIN_S
    while time.monotonic() < give_up_at:
        for address, peer in peers.items():
            if peer.is_serving(CATALOG_SERVICE, _CATALOG_TIMEOUT_S):
                return address
        time.sleep(0.2)
    return CATALOGS[0]


def orphans(name: str, stock: str, keys: list[str]) -> None:
    go = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: go.set())
    channel = open_channel(f"{name}:50051")
    replica = bourse_pb2_grpc.OrderServiceStub(channel)
    grpc.channel_ready_future(channel).result(timeout=_CATALOG_TIMEOUT_S)
    say({"connected": name})
    if not go.wait(_ORPHANS_WITHIN_S):
        return
    trades = [
        bourse_pb2.TradeRequest(request_id=key, name=stock, type=bourse_pb2.SELL, quantity=1)
        for key in keys
    ]
    sent = [replica.Trade.future(trade, timeout=_ORPHANS_WITHIN_S) for trade in trades]
    for one in sent:
        one.exception()  # whatever came of it: the journal tells


def journal(catalog: Any, above: int, limit: int = 0) -> Any:
    request = bourse_pb2.SyncRequest(last_number=above, limit=limit)
    chunks = catalog.Journal(request, timeout=_JOURNAL_TIMEOUT_S, wait_for_ready=True)
    for chunk in chunks:
        for row in orders_from_items(chunk.rows):
            yield {
                "number": row.number,
                "request_id": row.request_id,
                "name": row.name,
                "type": row.type,
                "quantity": row.quantity,
                "version": row.version,
                "epoch": row.epoch,
                "digest": row.digest.hex(),
            }


def say(what: Mapping[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(float(sys.argv[2]))
    elif sys.argv[1] == "read":
        read(int(sys.argv[2]))
    else:
        orphans(sys.argv[2], sys.argv[3], sys.argv[4:])
