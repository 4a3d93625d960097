"""Complete order replicas for tests: they serve, and a test can watch and disturb them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from common.domain import Order
from common.errors import BourseError
from common.replicas import ReplicaPeer
from common.rpc_client import open_channel
from common.rpc_server import RpcServer
from order.leadership.promotion import Promotion
from order.leadership.watchdog import Progress, Watchdog
from order.log.replication import Follower, Replicator
from order.loops import Loops
from order.service import OrderServicer
from order.settings import CallLimits
from order.trading.pipeline import Pipeline
from order.trading.publisher import Publisher, UpdateHub, UpdateStream
from order.trading.queue import PendingTrade, TradeQueue
from proto import bourse_pb2, bourse_pb2_grpc
from tests.support.clock import Clock
from tests.unit.order.fakes import (
    TIMEOUT_S,
    FakeCatalog,
    FakeIdentity,
    Parts,
    lead,
    open_parts,
)

STUCK_AFTER_S = 3.0
LIMITS = CallLimits(trades=4, lookups=2, appends=2, saves=1, streams=2, trade_streams=2)


class WatchedQueue(TradeQueue):
    """Releases `arrivals` when trades arrive."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, 256, time.monotonic)
        self.arrivals = threading.Semaphore(0)

    def put(self, *trades: PendingTrade) -> None:
        super().put(*trades)
        self.arrivals.release()


class WatchedHub(UpdateHub):
    """Releases `subscriptions` when a client has subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions = threading.Semaphore(0)

    @contextmanager
    def subscribe(self) -> Iterator[UpdateStream]:
        with super().subscribe() as stream:
            self.subscriptions.release()
            yield stream


class WatchedServicer(OrderServicer):
    """A test can see, delay or refuse the calls of peers."""

    on_rows: Callable[[list[int]], None] = staticmethod(lambda _numbers: None)
    # The answer to GetLeader; None for the usual one.
    on_asked: Callable[[], bourse_pb2.GetLeaderResponse | None] = staticmethod(lambda: None)

    def GetLeader(  # noqa: N802 - gRPC's name
        self, request: bourse_pb2.Empty, context: grpc.ServicerContext
    ) -> bourse_pb2.GetLeaderResponse:
        answer = self.on_asked()
        return super().GetLeader(request, context) if answer is None else answer

    def SyncOrderBatch(  # noqa: N802 - gRPC's name
        self, request: bourse_pb2.OrderBatch, context: grpc.ServicerContext
    ) -> bourse_pb2.SyncResponse:
        self.on_rows([row.number for row in request.rows])
        return super().SyncOrderBatch(request, context)


class RunningReplica:
    """A replica that serves on a free port. A test can start its pipeline."""

    def __init__(
        self,
        parts: Parts,
        catalog: FakeCatalog,
        peers: Sequence[ReplicaPeer],
        limits: CallLimits,
    ) -> None:
        self.log, self.node, self.ledger = parts.log, parts.node, parts.ledger
        self.replica_id = self.node.view().replica_id
        self.catalog = catalog
        self.queue = WatchedQueue(limits.trades)
        self.hub = WatchedHub()
        self.is_ready = threading.Event()
        self.is_ready.set()
        self.is_stopping = threading.Event()
        self.halted: list[str] = []
        self.identity = FakeIdentity()
        self.denial: BourseError | None = None  # of its orders
        publisher = Publisher([self.hub])
        self.loops = Loops()
        followers = [
            Follower(peer, self.node, self.log, timeout_s=TIMEOUT_S, idle_s=0.005) for peer in peers
        ]
        self.replicator = Replicator(self.node, followers)
        self.clock = Clock()
        self.progress = Progress(self.clock)
        self.promotion = Promotion(
            self.node,
            catalog,
            self.ledger,
            publisher.publish,
            self.identity.contradicted,
            progress=self.progress,
            fence_timeout_s=TIMEOUT_S,
            patience_s=TIMEOUT_S,
            halt=self.halted.append,
            spawn=lambda work: work(),
        )
        self.watchdog = Watchdog(self.progress, self.promotion.give_up, STUCK_AFTER_S)
        pipeline = Pipeline(
            node=self.node,
            queue=self.queue,
            catalog=catalog,
            ledger=self.ledger,
            wake_followers=self.replicator.wake,
            publish=publisher.publish,
            resign=self.promotion.resign,
            contradicted=self.identity.contradicted,
            progress=self.progress,
            attempt_timeout_s=TIMEOUT_S,
            patience_s=TIMEOUT_S,
            halt=self.halted.append,
        )
        self._pipeline = threading.Thread(target=pipeline.run, name="pipeline", daemon=True)
        self.servicer = WatchedServicer(
            node=self.node,
            log=self.log,
            ledger=self.ledger,
            queue=self.queue,
            promotion=self.promotion,
            replica_ids=(1, 2, 3),
            replicator=self.replicator,
            hub=self.hub,
            stream_publisher=publisher,
            limits=limits,
            is_ready=self.is_ready.is_set,
            check_orders=self.check_orders,
            is_stopping=self.is_stopping.is_set,
        )
        self._server = RpcServer("127.0.0.1:0", limits.total + 2, queue_limit=4)
        bourse_pb2_grpc.add_OrderServiceServicer_to_server(self.servicer, self._server.grpc_server)
        self.address = f"127.0.0.1:{self._server.start(['bourse.v1.OrderService'])}"
        self._channel = open_channel(self.address)
        self.stub = bourse_pb2_grpc.OrderServiceStub(self._channel)

    def call(self, method: str, request: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        return getattr(self.stub, method)(request or bourse_pb2.Empty(), timeout=timeout_s)

    def stream(self, method: str, request: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        return getattr(self.stub, method)(request or bourse_pb2.Empty(), timeout=timeout_s)

    def lead(self, epoch: int = 1) -> None:
        """Makes the replica leader of an epoch that is registered in the catalog."""
        self.catalog.registered = (epoch, self.replica_id)
        lead(self.node, epoch)

    def start_pipeline(self) -> None:
        self._pipeline.start()

    def check_orders(self) -> None:
        if self.denial:
            raise self.denial

    def stop_serving(self) -> None:
        self.is_stopping.set()
        self._server.stop(grace_s=0)

    def close(self) -> None:
        self.stop_serving()
        self.queue.close()
        if self._pipeline.is_alive():
            self._pipeline.join()
        self.loops.stop(TIMEOUT_S)
        self._channel.close()


@contextmanager
def running_replica(
    directory: Path,
    rows: Sequence[Order] = (),
    *,
    replica_id: int = 1,
    catalog: FakeCatalog | None = None,
    peers: Sequence[ReplicaPeer] = (),
    limits: CallLimits = LIMITS,
) -> Iterator[RunningReplica]:
    with ExitStack() as stack:
        parts = stack.enter_context(open_parts(directory, rows, replica_id))
        replica = RunningReplica(parts, catalog or FakeCatalog(rows), peers, limits)
        stack.callback(replica.close)
        yield replica


@contextmanager
def peer_of(*replicas: RunningReplica) -> Iterator[list[ReplicaPeer]]:
    """A peer for each of these replicas."""
    peers = [ReplicaPeer(replica.replica_id, replica.address) for replica in replicas]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()
