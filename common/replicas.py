"""A channel to one order replica that believes only that replica's answers."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from common import rpc_client
from common.errors import BourseError, Unavailable, from_rpc_error
from proto import bourse_pb2_grpc

logger = logging.getLogger(__name__)

_GRACE_S = 0.1


class ReplicaPeer:
    """One order replica, by id, wherever its name leads now.

    Containers can come back with each other's addresses, and a connection made to the wrong one
    would stay up for ever. So every answer must name the replica it comes from; one from
    another is dropped, and the channel is made anew, which resolves the name again.
    """

    def __init__(self, replica_id: int, address: str) -> None:
        self.replica_id = replica_id
        self._address = address
        self._channel = rpc_client.open_channel(address)
        self._stub = bourse_pb2_grpc.OrderServiceStub(self._channel)

    def __repr__(self) -> str:
        return f"replica {self.replica_id}"

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """Calls a unary method of the order service.

        Raises:
            BourseError: what the answer stands for; `Unavailable` also when another replica
                answered.
        """
        stub = self._stub
        # Half the work of waiting for a call that was started.
        return self.believe(rpc_client.call(getattr(stub, method), request, timeout_s), stub)

    def start(self, method: str, request: Any, timeout_s: float) -> PendingAnswer:
        """Starts a call without waiting for it, so that several peers work at once."""
        stub = self._stub
        try:
            future = getattr(stub, method).future(
                request, timeout=timeout_s, metadata=rpc_client.call_metadata()
            )
        except ValueError as error:
            raise rpc_client.closed(error) from error
        return PendingAnswer(self, stub, future)

    def stream(self, method: str, request: Any, timeout_s: float) -> Iterator[Any]:
        """Reads a server stream; the deadline is for the whole of it."""
        return rpc_client.stream(getattr(self._stub, method), request, timeout_s)

    def believe(self, answer: Any, stub: bourse_pb2_grpc.OrderServiceStub) -> Any:
        """The answer, if it is this replica's; raises Unavailable otherwise.

        Args:
            stub: that the answer came from.
        """
        if answer.replica_id == self.replica_id:
            return answer
        if stub is self._stub:  # else another answer has seen to it already
            logger.warning("%s: replica %d answered, connecting anew", self, answer.replica_id)
            # The old channel is not closed but let go: calls in flight on it end by themselves.
            self._channel = rpc_client.open_channel(self._address)
            self._stub = bourse_pb2_grpc.OrderServiceStub(self._channel)
        raise Unavailable(f"{self}: answered by replica {answer.replica_id}")

    def close(self) -> None:
        self._channel.close()


class PendingAnswer:
    """A call in flight to one replica."""

    def __init__(
        self, peer: ReplicaPeer, stub: bourse_pb2_grpc.OrderServiceStub, future: Any
    ) -> None:
        self.peer = peer
        self._stub = stub
        self._future = future

    def answer(self) -> Any:
        """Waits for the answer; the call's own deadline bounds the wait.

        Raises:
            BourseError: as `ReplicaPeer.call`.
        """
        try:
            return self.peer.believe(self._future.result(), self._stub)
        except grpc.FutureCancelledError:
            raise Unavailable(f"{self.peer}: call cancelled") from None
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def when_done(self, arrived: queue.SimpleQueue[PendingAnswer]) -> None:
        """Puts itself into the queue once there is an answer or an error."""
        self._future.add_done_callback(lambda _future: arrived.put(self))


def ask_all(
    peers: Iterable[ReplicaPeer], method: str, request: Any, timeout_s: float
) -> Iterator[tuple[ReplicaPeer, Any | BourseError]]:
    """Asks all peers at once and yields (peer, answer or error) as they come."""
    arrived: queue.SimpleQueue[PendingAnswer] = queue.SimpleQueue()
    silent = {}
    for peer in peers:
        try:
            peer.start(method, request, timeout_s).when_done(arrived)
        except Unavailable as error:
            yield peer, error
        else:
            silent[peer.replica_id] = peer
    # The calls end by their own deadline; on a busy machine that can take a little longer.
    give_up_at = time.monotonic() + timeout_s + _GRACE_S
    while silent:
        try:
            pending = arrived.get(timeout=max(0.0, give_up_at - time.monotonic()))
        except queue.Empty:
            break
        del silent[pending.peer.replica_id]
        try:
            yield pending.peer, pending.answer()
        except BourseError as error:
            yield pending.peer, error
    for peer in silent.values():
        yield peer, Unavailable(f"{peer}: no answer in time")
