"""Parts of an order replica for tests: rows, a catalog without a network, whole replicas."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from common.errors import BourseError, KeyReused, StaleEpoch
from common.records import BUY, EMPTY_DIGEST, Order, Trade, next_digest
from common.replicas import ReplicaPeer
from common.rpc import RpcServer, open_channel
from order.catalog_client import FenceAnswer, Result
from order.ledger import Ledger
from order.log import OrderLog
from order.node import Node
from order.office import Office
from order.pipeline import Pipeline
from order.publisher import Announcer, UpdateHub, UpdateStream
from order.replica import Replica
from order.replication import Replicator
from order.service import OrderServicer
from order.trades import Decision, PendingTrade, TradeQueue
from proto import bourse_pb2, bourse_pb2_grpc

TIMEOUT_S = 10.0
LEASE_MS = 5_000
NEVER = float("inf")


def eventually(condition: Callable[[], bool], describe: Callable[[], object]) -> None:
    """For what another thread does and nobody announces; raises with the last state seen."""
    give_up_at = time.monotonic() + TIMEOUT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < give_up_at, f"never came: {describe()}"
        pause.wait(0.002)


class Clock:
    """Time that passes only while somebody pauses."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.during_pause: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now_s

    def pause(self, duration_s: float) -> None:
        assert duration_s > 0
        self.now_s += duration_s
        self.during_pause()


# ------------------------------------------------------------ rows and trades


def chained(rows: Iterable[Order], after: bytes = EMPTY_DIGEST) -> list[Order]:
    """The same rows, with the digests that make them a chain."""
    sealed = []
    for row in rows:
        after = next_digest(after, row)
        sealed.append(replace(row, digest=after))
    return sealed


def make_rows(count: int, after: Sequence[Order] = (), epoch: int = 1) -> list[Order]:
    """So many rows that follow the last of `after`."""
    last = after[-1] if after else Order(0, "", "", BUY, 0, 0, 0, EMPTY_DIGEST)
    rows = [
        Order(number, f"request-{number}", f"stock{number % 3}", BUY, number, number, epoch)
        for number in range(last.number + 1, last.number + 1 + count)
    ]
    return chained(rows, last.digest)


def numbers(rows: Iterable[Order]) -> list[int]:
    return [row.number for row in rows]


def make_trade(request_id: str, name: str = "stock1", quantity: int = 1) -> Trade:
    return Trade(request_id, name, BUY, quantity)


def make_pending(request_id: str, name: str = "stock1", quantity: int = 1) -> PendingTrade:
    return PendingTrade(make_trade(request_id, name, quantity), NEVER)


# ------------------------------------------------------------ the catalog

# What happens to a call: gets what would execute it, returns or raises what the caller sees.
Misfortune = Callable[[Callable[[], Any]], Any]


def lost(error: BaseException) -> Misfortune:
    """The call never arrives."""

    def play(execute: Callable[[], Any]) -> Any:
        raise error

    return play


def answer_lost(error: BaseException) -> Misfortune:
    """The call is executed, the answer never arrives."""

    def play(execute: Callable[[], Any]) -> Any:
        execute()
        raise error

    return play


def meanwhile(event: Callable[[], object]) -> Misfortune:
    """Something else happens while the answer travels."""

    def play(execute: Callable[[], Any]) -> Any:
        answer = execute()
        event()
        return answer

    return play


def broken_off(chunks: int, error: BaseException) -> Misfortune:
    """Of a stream, only the beginning arrives."""

    def play(execute: Callable[[], Any]) -> Any:
        yield from execute()[:chunks]
        raise error

    return play


class FakeCatalog:
    """The commit point without a network: decides each request id once, under the epoch that is
    registered; the stock "nosuch" does not exist, of the others nobody may have more than 1,000.

    The scripts say what happens to the next calls; where they end, calls get through.
    """

    def __init__(self, rows: Sequence[Order] = ()) -> None:
        self.rows = list(rows)
        self.registered = (0, 0)  # epoch, leader
        self.sent: list[tuple[int, list[str], float]] = []  # epoch, request ids, timeout
        self.asked: list[tuple[int, int, float]] = []  # epoch, leader, timeout
        self.pulled_after: list[int] = []
        self.update_script: deque[Misfortune] = deque()
        self.fence_script: deque[Misfortune] = deque()
        self.journal_script: deque[Misfortune] = deque()
        self.chunk = 2
        self.clock: Callable[[], float] = time.monotonic
        self._trades: dict[str, tuple[Trade, Order | int]] = {}  # id -> row, or why it was refused

    def update_batch(self, epoch: int, trades: Sequence[Trade], timeout_s: float) -> list[Result]:
        self.sent.append((epoch, [trade.request_id for trade in trades], timeout_s))
        return self._play(self.update_script, lambda: self._decide_all(epoch, trades))

    def fence(self, epoch: int, leader_id: int, timeout_s: float) -> FenceAnswer:
        self.asked.append((epoch, leader_id, timeout_s))
        return self._play(self.fence_script, lambda: self._register(epoch, leader_id))

    def journal(self, after: int) -> Iterator[list[Order]]:
        self.pulled_after.append(after)
        rows = self.rows[after:]
        chunks = [rows[start : start + self.chunk] for start in range(0, len(rows), self.chunk)]
        yield from self._play(self.journal_script, lambda: chunks)

    def _play(self, script: deque[Misfortune], execute: Callable[[], Any]) -> Any:
        return script.popleft()(execute) if script else execute()

    def _register(self, epoch: int, leader_id: int) -> FenceAnswer:
        accepted = epoch == self.registered[0] + 1
        if accepted:
            self.registered = (epoch, leader_id)
        return FenceAnswer(accepted, *self.registered)

    def _decide_all(self, epoch: int, trades: Sequence[Trade]) -> list[Result]:
        if epoch != self.registered[0]:
            raise StaleEpoch(f"epoch {self.registered[0]} is registered")
        return [self._decide(epoch, trade) for trade in trades]

    def _decide(self, epoch: int, trade: Trade) -> Result:
        known = self._trades.get(trade.request_id)
        if known is not None and known[0] != trade:
            return Result(KeyReused(), None)
        decided = known[1] if known else self._execute(epoch, trade)
        self._trades[trade.request_id] = trade, decided
        row = decided if isinstance(decided, Order) else None
        decision = Decision(
            status=1 if row else int(decided),  # type: ignore[call-overload]
            number=row.number if row else -1,
            version=row.version if row else 0,
            lease_ms=LEASE_MS,
            decided_at_s=self.clock(),
            replayed=known is not None,
        )
        return Result(decision, row)

    def _execute(self, epoch: int, trade: Trade) -> Order | int:
        if trade.name == "nosuch":
            return -1
        if trade.quantity > 1_000:
            return 0
        number = len(self.rows) + 1
        row = Order(number, trade.request_id, trade.name, trade.type, trade.quantity, number, epoch)
        previous = self.rows[-1].digest if self.rows else EMPTY_DIGEST
        self.rows += chained([row], previous)
        return self.rows[-1]


# ------------------------------------------------------------ a replica's parts


@dataclass
class Parts:
    """Log, state machine and append path of one replica."""

    log: OrderLog
    node: Node
    ledger: Ledger


@contextmanager
def open_parts(directory: Path, rows: Sequence[Order] = (), replica_id: int = 1) -> Iterator[Parts]:
    directory.mkdir(parents=True, exist_ok=True)
    log = OrderLog(directory / "orders.db")
    try:
        if rows:
            log.append(rows)
        node = Node(Replica(replica_id, log.last_number, log.digest))
        yield Parts(log, node, Ledger(log, node))
    finally:
        log.close()


@contextmanager
def refusing_rows(log: OrderLog) -> Iterator[None]:
    """A disk that takes nothing, as long as the block lasts."""
    log._writer.execute("PRAGMA query_only = 1")
    try:
        yield
    finally:
        log._writer.execute("PRAGMA query_only = 0")


def lead(node: Node, epoch: int) -> None:
    """From follower to leader, as if the fence had accepted it."""
    node.step(lambda replica: replica.stand(epoch))
    node.step(lambda replica: replica.fence_accepted(epoch))
    node.step(lambda replica: replica.caught_up(epoch))


# ------------------------------------------------------------ whole replicas


class WatchedQueue(TradeQueue):
    """Says when a trade has arrived."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, 256, time.monotonic)
        self.arrivals = threading.Semaphore(0)

    def put(self, pending: PendingTrade) -> None:
        super().put(pending)
        self.arrivals.release()


class WatchedHub(UpdateHub):
    """Says when somebody has subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions = threading.Semaphore(0)

    @contextmanager
    def subscribe(self) -> Iterator[UpdateStream]:
        with super().subscribe() as stream:
            self.subscriptions.release()
            yield stream


class WatchedServicer(OrderServicer):
    """Lets a test see, delay or refuse what peers send and ask."""

    on_rows: Callable[[list[int]], None] = staticmethod(lambda _numbers: None)
    # Who leads, if this knows better.
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
    """A replica that serves on a free port of this machine; its pipeline runs when it is told."""

    def __init__(
        self,
        parts: Parts,
        catalog: FakeCatalog,
        peers: Sequence[ReplicaPeer],
        trade_limit: int,
        stream_limit: int,
    ) -> None:
        self.log, self.node, self.ledger = parts.log, parts.node, parts.ledger
        self.replica_id = self.node.view().replica_id
        self.catalog = catalog
        self.queue = WatchedQueue(trade_limit)
        self.hub = WatchedHub()
        self.is_ready = threading.Event()
        self.is_stopping = threading.Event()
        self.halted: list[str] = []
        self.batch_age_s = 0.0
        announcer = Announcer([self.hub])
        self.replicator = Replicator(
            self.node,
            self.log,
            self.ledger,
            peers,
            replication_timeout_s=TIMEOUT_S,
            catch_up_timeout_s=TIMEOUT_S,
            interval_s=0.005,
        )
        self.office = Office(
            self.node,
            catalog,
            self.ledger,
            announcer.announce,
            fence_timeout_s=TIMEOUT_S,
            patience_s=TIMEOUT_S,
            stuck_after_s=10.0,
            halt=self.halted.append,
            spawn=lambda work: work(),
        )
        pipeline = Pipeline(
            node=self.node,
            queue=self.queue,
            catalog=catalog,
            ledger=self.ledger,
            followers=self.replicator,
            announcer=announcer,
            resign=self.office.resign,
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
            office=self.office,
            batch_age_s=lambda: self.batch_age_s,
            replica_ids=(1, 2, 3),
            replicator=self.replicator,
            hub=self.hub,
            stream_announcer=announcer,
            trade_limit=trade_limit,
            stream_limit=stream_limit,
            is_ready=self.is_ready.is_set,
            is_stopping=self.is_stopping.is_set,
        )
        self._server = RpcServer("127.0.0.1:0", trade_limit + stream_limit + 4, queue_limit=4)
        bourse_pb2_grpc.add_OrderServiceServicer_to_server(self.servicer, self._server.grpc_server)
        self.address = f"127.0.0.1:{self._server.start(['bourse.v1.OrderService'])}"
        self._channel = open_channel(self.address)
        self.stub = bourse_pb2_grpc.OrderServiceStub(self._channel)

    def call(self, method: str, request: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        return getattr(self.stub, method)(request or bourse_pb2.Empty(), timeout=timeout_s)

    def stream(self, method: str, request: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        return getattr(self.stub, method)(request or bourse_pb2.Empty(), timeout=timeout_s)

    def lead(self, epoch: int = 1) -> None:
        """Leads, and the catalog knows."""
        self.catalog.registered = (epoch, self.replica_id)
        lead(self.node, epoch)

    def start_pipeline(self) -> None:
        self._pipeline.start()

    def stop_serving(self) -> None:
        self.is_stopping.set()
        self._server.stop(grace_s=0)

    def close(self) -> None:
        self.stop_serving()
        self.queue.close()
        if self._pipeline.is_alive():
            self._pipeline.join()
        self.replicator.stop()
        self._channel.close()


@contextmanager
def running_replica(
    directory: Path,
    rows: Sequence[Order] = (),
    *,
    replica_id: int = 1,
    catalog: FakeCatalog | None = None,
    peers: Sequence[ReplicaPeer] = (),
    trade_limit: int = 4,
    stream_limit: int = 2,
) -> Iterator[RunningReplica]:
    with ExitStack() as stack:
        parts = stack.enter_context(open_parts(directory, rows, replica_id))
        replica = RunningReplica(
            parts, catalog or FakeCatalog(rows), peers, trade_limit, stream_limit
        )
        stack.callback(replica.close)
        yield replica


@contextmanager
def peer_of(*replicas: RunningReplica) -> Iterator[list[ReplicaPeer]]:
    """The way to each of these replicas, as their peers have it."""
    peers = [ReplicaPeer(replica.replica_id, replica.address) for replica in replicas]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def outcome(pending: PendingTrade) -> Decision | BourseError:
    """What the caller of a trade gets; fails the test when that is nothing."""
    assert pending.outcome.done(), f"{pending.trade.request_id} was left without an answer"
    error = pending.outcome.exception()
    if error is None:
        return pending.outcome.result()
    assert isinstance(error, BourseError)
    return error
