"""Two catalogs of which one is active, for a cluster: each is a door to the cluster's only one.

A door that is not active answers so. What is decided is on the one behind them, as it would be in
the database that real catalogs share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import grpc

from common.errors import NotActive, from_rpc_error
from common.rpc_server import RpcServer
from proto import bourse_pb2, bourse_pb2_grpc
from tests.support.cluster import Cluster
from tests.support.ports import free_ports

CATALOG = bourse_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
_TIMEOUT_S = 10.0


class Door(bourse_pb2_grpc.CatalogServiceServicer):
    """One of the catalogs."""

    def __init__(self, address: str, behind: Any) -> None:
        self.address = address
        self._behind = behind
        self._is_active = False
        self._may_go = threading.Event()  # clear while it is paused
        self._may_go.set()
        self._server = self._start()
        self._is_dead = False

    def take_over(self) -> None:
        self._is_active = True
        self._server.set_active(True)

    def kill(self) -> None:
        """Its port refuses connections. What it has sent on is decided all the same."""
        self._stand_by()
        self._is_dead = True
        self._server.stop(0)

    def pause(self) -> None:
        """It takes calls and says nothing."""
        self._stand_by()
        self._may_go.clear()

    def come_back(self) -> None:
        """From death or a pause; it stands by."""
        self._may_go.set()
        if self._is_dead:
            self._is_dead = False
            self._server = self._start()

    def close(self) -> None:
        self._may_go.set()
        self._server.stop(0)

    def _stand_by(self) -> None:
        self._is_active = False
        self._server.set_active(False)

    def _start(self) -> RpcServer:
        server = RpcServer(self.address, threads=64, queue_limit=64)
        bourse_pb2_grpc.add_CatalogServiceServicer_to_server(self, server.grpc_server)
        server.start([CATALOG])
        server.set_alive(True)
        return server

    # ------------------------------------------------------------ the service

    def Lookup(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._pass_on("Lookup", request)

    def UpdateBatch(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._pass_on("UpdateBatch", request)

    def Updates(self, requests: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        for request in requests:
            yield self._pass_on("UpdateBatch", request)

    def Fence(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._pass_on("Fence", request)

    def Compare(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._pass_on("Compare", request)

    def Journal(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        yield from self._pass_on("Journal", request, list)

    def _pass_on(
        self, method: str, request: Any, read: Callable[[Any], Any] = lambda answer: answer
    ) -> Any:
        self._may_go.wait()
        if not self._is_active:
            raise NotActive
        try:
            return read(getattr(self._behind, method)(request, timeout=_TIMEOUT_S))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None


class Doors:
    """Both, the active one first. A takeover makes the other one active."""

    def __init__(self, active: Door, standby: Door) -> None:
        self.active, self.standby = active, standby

    def take_over(self) -> None:
        self.active, self.standby = self.standby, self.active
        self.active.take_over()

    def heal(self) -> None:
        """Both are alive, and one is active."""
        self.standby.come_back()
        self.active.come_back()
        self.active.take_over()


@contextmanager
def two_catalogs(cluster: Cluster) -> Iterator[Doors]:
    """Opens the doors of a cluster that does not run yet, and gives its parts their addresses."""
    with ExitStack() as opened:
        address = f"127.0.0.1:{cluster.parts['catalog'].port}"
        channel = opened.enter_context(grpc.insecure_channel(address))
        behind = bourse_pb2_grpc.CatalogServiceStub(channel)
        first_port = free_ports(2)
        doors = [Door(f"127.0.0.1:{first_port + number}", behind) for number in range(2)]
        for door in doors:
            opened.callback(door.close)
        addresses = ",".join(door.address for door in doors)
        for name, part in cluster.parts.items():
            if "CATALOG_ADDRESS" in part.environment:
                environment = {**part.environment, "CATALOG_ADDRESS": addresses}
                cluster.parts[name] = replace(part, environment=environment)
        doors[0].take_over()
        yield Doors(*doors)
