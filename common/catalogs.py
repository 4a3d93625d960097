"""The catalog, at one address or at several. Of several, one is active at a time.

The others stand by. When the active one dies, another takes over, which takes a second or two.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from common.errors import BourseError, NotActive, OutcomeUnknown, Unavailable, WrongPeer
from common.rpc_client import Dialogue, Peer, Remote
from proto import bourse_pb2_grpc

logger = logging.getLogger(__name__)

# A takeover takes 1.5 s, and 3 s at worst. While a catalog says that it is not active, nobody gives
# up sooner than this. It is less than the 4.5 s that a frontend gives a trade.
TAKEOVER_S = 4.0

# How long one of several catalogs may be silent: a silent one must not use up the time of the next.
# To read a stream may take longer.
_TRY_S = 0.5
_SHORTEST_STREAM_S = 1.0

# After these, another catalog may do better. After any other error, another would say the same.
_GO_ON = (NotActive, Unavailable, OutcomeUnknown)

Answer = TypeVar("Answer")


def open_catalog(addresses: Sequence[str], clock: Callable[[], float] = time.monotonic) -> Remote:
    """The catalog at these addresses.

    Args:
        addresses: host:port of each, at least one.
        clock: seconds, monotonic.
    """
    if len(addresses) > 1:
        cluster = Cluster()
        return Catalogs([CatalogPeer(address, cluster, clock) for address in addresses], clock)
    return Peer("the catalog", addresses[0], bourse_pb2_grpc.CatalogServiceStub, clock)


class Cluster:
    """The cluster whose catalogs are believed: that of the first answer."""

    def __init__(self) -> None:
        self._cluster_id = ""

    def check(self, cluster_id: str) -> None:
        """Raises WrongPeer if an answer is of another cluster. One without an id is believed."""
        # Without it, a stranger's quotes are sold ("one cluster only": test_catalogs.py).
        if not self._cluster_id:
            self._cluster_id = cluster_id
        if cluster_id and cluster_id != self._cluster_id:
            raise WrongPeer(
                f"it is of cluster {cluster_id}, and the first answer was of {self._cluster_id}"
            )


class CatalogPeer(Peer):
    """One of several catalogs. It is believed if it is of the cluster of the others."""

    def __init__(self, address: str, cluster: Cluster, clock: Callable[[], float]) -> None:
        name = f"the catalog at {address}"
        super().__init__(name, address, bourse_pb2_grpc.CatalogServiceStub, clock)
        self._cluster = cluster

    def check(self, answer: Any) -> None:
        """Raises WrongPeer if another cluster's catalog has this address."""
        self._cluster.check(answer.cluster_id)


class Catalogs:
    """Several catalogs, used as one `Peer` is.

    It stays with the one that answers. One that is not active, cannot be reached or is silent is
    left for the next in the list; after the last comes the first.

    A call goes on to the others by itself, while there is time. So it must be one that may be
    executed twice. A message of a conversation goes to one catalog only, because its sender has to
    know about each copy whose outcome is unknown. The sender's next message goes on.
    """

    def __init__(self, peers: Sequence[CatalogPeer], clock: Callable[[], float]) -> None:
        self._peers = tuple(peers)
        self._clock = clock
        self._preferred = self._peers[0]
        self._last_to_answer: CatalogPeer | None = None

    @property
    def preferred(self) -> CatalogPeer:
        """The one to ask next."""
        return self._preferred

    def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """Calls a unary method, of each catalog at most once and for at most half a second.

        Raises:
            NotActive: no catalog answered, but one said that it is not active.
            BourseError: as `Peer.call`.
        """

        def call(peer: CatalogPeer, left_s: float) -> Any:
            return peer.call(method, request, min(left_s, _TRY_S))

        return self._in_turn(call, timeout_s)

    def stream(self, method: str, request: Any, timeout_s: float) -> Iterator[Any]:
        """Reads a server stream to its end, and then gives what it read.

        Each catalog has an equal part of the time, but not less than a second. Raises as `call`.
        """
        part_s = max(_SHORTEST_STREAM_S, timeout_s / len(self._peers))

        def read(peer: CatalogPeer, left_s: float) -> list[Any]:
            messages = list(peer.stream(method, request, min(left_s, part_s)))
            for message in messages:
                peer.check(message)
            return messages

        yield from self._in_turn(read, timeout_s)

    def is_serving(self, service: str, timeout_s: float) -> bool:
        """Whether one of them says in time that it serves. Each has an equal part of the time."""
        each_s = timeout_s / len(self._peers)
        return any(peer.is_serving(service, each_s) for peer in self._turn())

    def conversation(self, stream: str, method: str) -> Dialogue:
        """A kept stream with each catalog that a message goes to; see `Peer.conversation`."""
        by_peer = {peer: peer.conversation(stream, method) for peer in self._peers}
        return _Conversations(self, by_peer, self._clock)

    def close(self) -> None:
        for peer in self._peers:
            peer.close()

    def ask(self, peer: CatalogPeer, question: Callable[[], Answer]) -> Answer:
        """Asks that catalog, and learns from the answer which one to prefer."""
        try:
            answer = question()
        except _GO_ON as error:
            self._go_on_from(peer, error)
            raise
        self._preferred = peer
        if self._last_to_answer is not peer:
            self._last_to_answer = peer
            logger.info("%s answers", peer)
        return answer

    def after(self, peer: CatalogPeer) -> CatalogPeer:
        """The next one in the list."""
        return self._peers[(self._peers.index(peer) + 1) % len(self._peers)]

    def _in_turn(self, ask: Callable[[CatalogPeer, float], Answer], timeout_s: float) -> Answer:
        give_up_at = self._clock() + timeout_s
        failures: list[BourseError] = []
        for peer in self._turn():
            left_s = give_up_at - self._clock()
            if failures and left_s <= 0:
                break
            try:
                return self.ask(peer, partial(ask, peer, left_s))
            except _GO_ON as error:
                failures.append(error)
        # It says more than the error of a dead one: some catalog is alive.
        raise next((one for one in failures if isinstance(one, NotActive)), failures[-1])

    def _turn(self) -> tuple[CatalogPeer, ...]:
        """All of them, the preferred one first."""
        at = self._peers.index(self._preferred)
        return self._peers[at:] + self._peers[:at]

    def _go_on_from(self, peer: CatalogPeer, error: BourseError) -> None:
        """Prefers the next one, unless another call has gone on already."""
        # Without it, a silent one is asked for ever ("go on to the next": test_catalogs.py).
        if self._preferred is peer:
            self._preferred = self.after(peer)
            logger.debug("%s: %s; next is %s", peer, error.message, self._preferred)


class _Conversations:
    """A conversation with each catalog, for one thread at a time.

    After a failure, this very conversation goes on to the next. What other callers prefer changes
    from moment to moment then, and could lead it to the silent one again and again. One that says
    it is not active may be about to take over. So it is asked for as long as the one before it was
    waited for.
    """

    def __init__(
        self,
        catalogs: Catalogs,
        by_peer: Mapping[CatalogPeer, Dialogue],
        clock: Callable[[], float],
    ) -> None:
        self._catalogs = catalogs
        self._by_peer = by_peer
        self._clock = clock
        self._next: CatalogPeer | None = None  # None: the preferred one
        self._stays_until = 0.0

    def ask(self, message: Any, timeout_s: float) -> Any:
        """One catalog's answer; raises as `Peer.call` does."""
        peer, self._next = self._next or self._catalogs.preferred, None
        asked_at = self._clock()
        try:
            return self._catalogs.ask(peer, lambda: self._by_peer[peer].ask(message, timeout_s))
        except _GO_ON as error:
            now = self._clock()
            if isinstance(error, NotActive) and now < self._stays_until:
                self._next = peer
            else:
                self._next, self._stays_until = self._catalogs.after(peer), 2 * now - asked_at
            raise

    def close(self) -> None:
        for conversation in self._by_peer.values():
            conversation.close()
