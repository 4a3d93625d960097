"""Order replicas that play a script, each behind a real gRPC server of this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from common import rpc_server
from common.errors import Busy
from common.replicas import ReplicaPeer
from proto import bourse_pb2, bourse_pb2_grpc

SERVICE = bourse_pb2.DESCRIPTOR.services_by_name["OrderService"].full_name
PATIENCE_S = 10.0  # far more than anything here takes, on a busy machine too
_POLL_S = 0.005

Value = TypeVar("Value")


@dataclass(frozen=True)
class Call:
    """A call as the replica saw it come."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    timeout_s: float
    is_active: Callable[[], bool]  # whether the caller still waits


# What a replica does with one call: returns the answer, or raises.
Act = Callable[[Call], Any]


class FakeReplica(bourse_pb2_grpc.OrderServiceServicer):
    """Alive, a follower and well, save for what its script says.

    A script is made of acts: `will` adds some for the next calls of a method, one for each;
    `always` gives the act for all calls after them.
    """

    def __init__(self, replica_id: int) -> None:
        self.replica_id = replica_id
        self.leader_id = 0
        self.epoch = 0
        self.last_number = 0
        self.digest = b""  # of its log
        self.orders: dict[int, bourse_pb2.OrderLookupResponse] = {}
        self.calls: list[Call] = []
        self.streams = 0  # of trades, opened so far
        self.has_place = True  # for another one
        self._next: dict[str, deque[Act]] = {}
        self._always: dict[str, Act] = {"Status": self._status, "OrderLookup": self._order}
        self._changing = threading.Lock()
        self._released = threading.Event()

    # ------------------------------------------------------------ the script

    def will(self, method: str, *acts: Act) -> None:
        self._next.setdefault(method, deque()).extend(acts)

    def always(self, method: str, act: Act) -> None:
        self._always[method] = act

    def leads(self, epoch: int) -> None:
        self.leader_id, self.epoch = self.replica_id, epoch

    def says(self, leader_id: int, epoch: int) -> None:
        """It takes another replica for the leader."""
        self.leader_id, self.epoch = leader_id, epoch

    def silent(self, call: Call) -> Any:
        """An act: the usual answer, but not before `release`."""
        self._released.wait(60)
        return self.usual(call)

    def release(self) -> None:
        """Ends the silence, for good."""
        self._released.set()

    def seen(self, method: str) -> list[Any]:
        """The requests of a method, in the order in which they came."""
        return [call.request for call in self.calls_of(method)]

    def calls_of(self, method: str) -> list[Call]:
        with self._changing:
            return [call for call in self.calls if call.method == method]

    # ------------------------------------------------------------ what it is asked

    def Trade(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("Trade", request, context)

    def TradeBatch(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("TradeBatch", request, context)

    def Trades(self, requests: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        with self._changing:
            self.streams += 1
        if not self.has_place:
            raise Busy("too many streams of trades at once")
        for request in requests:
            yield self._play("TradeBatch", request, context, request.timeout_ms / 1000)

    def OrderLookup(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("OrderLookup", request, context)

    def IsAlive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("IsAlive", request, context)

    def GetLeader(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("GetLeader", request, context)

    def SetLeader(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("SetLeader", request, context)

    def Status(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        return self._play("Status", request, context)

    def SyncOrderDB(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        yield from self._play("SyncOrderDB", request, context)

    def _play(
        self,
        method: str,
        request: Any,
        context: grpc.ServicerContext,
        timeout_s: float | None = None,
    ) -> Any:
        metadata = dict(context.invocation_metadata())
        if timeout_s is None:
            timeout_s = context.time_remaining()
        call = Call(method, request, metadata, timeout_s, context.is_active)
        with self._changing:
            self.calls.append(call)
            acts = self._next.get(method)
            act = acts.popleft() if acts else self._always.get(method, self.usual)
        return act(call)

    def usual(self, call: Call) -> Any:
        """An act: what a replica answers that is well."""
        done = bourse_pb2.TradeResponse(
            status=1, transaction_number=1, version=2, replica_id=self.replica_id
        )
        if call.method == "Trade":
            return done
        if call.method == "TradeBatch":
            return bourse_pb2.TradeBatchResponse(
                outcomes=[bourse_pb2.TradeOutcome(response=done) for _ in call.request.trades],
                replica_id=self.replica_id,
            )
        if call.method == "IsAlive":
            return bourse_pb2.AliveResponse(
                replica_id=self.replica_id, last_number=self.last_number
            )
        if call.method == "GetLeader":
            return bourse_pb2.GetLeaderResponse(
                replica_id=self.replica_id, leader_id=self.leader_id, epoch=self.epoch
            )
        if call.method == "SetLeader":
            return self._set_leader(call.request)
        return iter(())

    def _status(self, _call: Call) -> Any:
        return bourse_pb2.StatusResponse(
            replica_id=self.replica_id,
            last_number=self.last_number,
            digest=self.digest,
        )

    def _order(self, call: Call) -> Any:
        number = call.request.number
        answer = bourse_pb2.OrderLookupResponse(number=number)
        answer.CopyFrom(self.orders.get(number, answer))
        answer.replica_id = self.replica_id
        return answer

    def _set_leader(self, request: Any) -> Any:
        """Takes this leader, itself or another, unless it knows one of a newer epoch."""
        if request.epoch > self.epoch:
            self.says(request.leader_id, request.epoch)
        return bourse_pb2.SetLeaderResponse(
            replica_id=self.replica_id, leader_id=self.leader_id, epoch=self.epoch
        )


def fails(error: Exception) -> Act:
    """An act: the call ends with an error."""

    def act(_call: Call) -> Any:
        raise error

    return act


def answers(message: Any) -> Act:
    """An act: always this answer, from each replica."""
    return lambda _call: message


@contextmanager
def serving(
    replica: FakeReplica, address: str = "127.0.0.1:0", grace_s: float = 0.0
) -> Iterator[int]:
    """Runs the replica's server, healthy; gives its port."""
    server = rpc_server.RpcServer(address, threads=48, queue_limit=16)
    bourse_pb2_grpc.add_OrderServiceServicer_to_server(replica, server.grpc_server)
    port = server.start([SERVICE])
    server.set_serving(True)
    try:
        yield port
    finally:
        server.stop(grace_s)
        replica.release()


class Replicas:
    """Three scripted replicas and a peer to each. `close` ends them all."""

    def __init__(self) -> None:
        self._servers: dict[int, ExitStack] = {}
        self.peers: dict[int, ReplicaPeer] = {}
        self._by_id = {replica_id: FakeReplica(replica_id) for replica_id in (1, 2, 3)}
        for replica_id, replica in self._by_id.items():
            self._servers[replica_id] = ExitStack()
            port = self._servers[replica_id].enter_context(serving(replica))
            self.peers[replica_id] = ReplicaPeer(replica_id, f"127.0.0.1:{port}")

    def __getitem__(self, replica_id: int) -> FakeReplica:
        return self._by_id[replica_id]

    def __iter__(self) -> Iterator[FakeReplica]:
        return iter(self._by_id.values())

    def kill(self, replica_id: int) -> None:
        """Its port refuses connections from now on."""
        self._servers[replica_id].close()

    def seen(self, method: str) -> dict[int, list[Any]]:
        """The requests of a method, by the replica that they reached; without those it did not."""
        return {one.replica_id: seen for one in self if (seen := one.seen(method))}

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()
        for server in self._servers.values():
            server.close()
