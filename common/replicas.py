"""The order replicas: a peer for each, which accepts only that replica's answers; asking all."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from common.errors import BourseError, Unavailable, WrongPeer, from_rpc_error
from common.rpc_client import Connection, Peer, call_metadata, closed
from proto import bourse_pb2_grpc

_GRACE_S = 0.1


class ReplicaPeer(Peer):
    """One order replica, by id. Every answer must name the replica that it comes from."""

    def __init__(
        self, replica_id: int, address: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(f"replica {replica_id}", address, bourse_pb2_grpc.OrderServiceStub, clock)
        self.replica_id = replica_id

    def start(self, method: str, request: Any, timeout_s: float) -> PendingAnswer:
        """Starts a call without waiting for it, so that several peers work at once."""
        connection = self._connection
        try:
            future = getattr(connection.stub, method).future(
                request, timeout=timeout_s, metadata=call_metadata()
            )
        except ValueError as error:
            raise closed(error) from error
        return PendingAnswer(self, connection, future)

    def finish(self, connection: Connection, future: Any) -> Any:
        """Waits for the answer to a call that was started."""
        try:
            answer = future.result()
        except grpc.FutureCancelledError:
            raise Unavailable(f"{self}: call cancelled") from None
        except grpc.RpcError as error:
            raise self._failed(connection, from_rpc_error(error)) from None
        return self._believed(connection, answer)

    def check(self, answer: Any) -> None:
        """Raises WrongPeer if an answer is another replica's, which then has this address."""
        if answer.replica_id != self.replica_id:
            raise WrongPeer(f"answered by replica {answer.replica_id}")


class PendingAnswer:
    """A call in flight to one replica."""

    def __init__(self, peer: ReplicaPeer, connection: Connection, future: Any) -> None:
        self.peer = peer
        self._connection = connection
        self._future = future

    def answer(self) -> Any:
        """Waits for the answer; the call's own deadline bounds the wait.

        Raises:
            BourseError: as `ReplicaPeer.call`.
        """
        return self.peer.finish(self._connection, self._future)

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
