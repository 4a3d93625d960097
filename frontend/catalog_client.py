"""The catalog as the frontend sees it: quotes, single orders, whether it answers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common import rpc_client
from common.errors import (
    BourseError,
    Busy,
    Damaged,
    OutcomeUnknown,
    Unavailable,
)
from frontend.model import OrderView, Quote
from frontend.quotes.breaker import CircuitBreaker, CircuitOpen
from proto import bourse_pb2, bourse_pb2_grpc

# A catalog that has just restarted is back within a second, so a read is repeated until its
# time is up. The pauses are spread so that repeats do not arrive in step.
_MIN_PAUSE_S = 0.02
_MAX_PAUSE_S = 0.1

_PROBE_TIMEOUT_S = 1.0
_RETRY_AFTER_S = 0.25

Answer = TypeVar("Answer")


class CatalogClient:
    """Reads on one long-lived channel. Nothing here changes the catalog, so all may be repeated.

    Args:
        channel: to the catalog.
        timeout_s: for one read, with its repeats.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub = bourse_pb2_grpc.CatalogServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._timeout_s = timeout_s
        self._breaker = CircuitBreaker("the catalog", retry_after_s=_RETRY_AFTER_S, clock=clock)
        self._clock = clock
        self._sleep = sleep

    def lookup(self, name: str, will_fill: bool) -> Quote | None:
        """The stock as last committed, or None if there is no such stock.

        Args:
            will_fill: the caller will put the answer into the cache, so a lease is taken.

        Raises:
            Unavailable: the catalog did not answer in time.
        """
        request = bourse_pb2.LookupRequest(name=name, will_fill=will_fill)
        answer = self._repeated(
            lambda timeout_s: rpc_client.call(self._stub.Lookup, request, timeout_s)
        )
        if answer.volume < 0:
            return None
        # The wire has a double; printed to two places it is the catalog's price again.
        price = Decimal(f"{answer.price:.2f}")
        return Quote(answer.name, price, answer.volume, answer.version)

    def journal_row(self, number: int) -> OrderView | None:
        """The order, or None if no trade has got this number yet.

        Raises:
            Unavailable: the catalog did not answer in time.
            Damaged: the journal has a gap where the order should be.
        """
        request = bourse_pb2.SyncRequest(last_number=number - 1, limit=1)
        rows = self._repeated(lambda timeout_s: self._journal(request, timeout_s))
        if not rows:
            return None
        row = rows[0]
        if row.number != number:
            raise Damaged(f"the journal has no order {number} but has order {row.number}")
        type_name = bourse_pb2.TradeType.Name(row.type)
        return OrderView(row.number, row.name, type_name, row.quantity)

    def is_reachable(self) -> bool:
        """Whether the catalog says, within a second, that it serves."""
        request = health_pb2.HealthCheckRequest()
        try:
            answer = rpc_client.call(self._health.Check, request, _PROBE_TIMEOUT_S)
        except BourseError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _journal(
        self, request: bourse_pb2.SyncRequest, timeout_s: float
    ) -> list[bourse_pb2.OrderDBItem]:
        chunks = rpc_client.stream(self._stub.Journal, request, timeout_s)
        return [row for chunk in chunks for row in chunk.rows]

    def _repeated(self, read: Callable[[float], Answer]) -> Answer:
        """A read with its repeats, if the catalog has not been away for longer than that.

        Once it has, one read at a time finds out whether it is back, and the others keep no
        thread from those that can be answered without it.
        """
        try:
            return self._breaker.call(lambda: self._until_answered(read))
        except CircuitOpen:
            raise Unavailable("the catalog is unavailable") from None

    def _until_answered(self, read: Callable[[float], Answer]) -> Answer:
        """Calls `read` with the time that is left, again and again while the catalog is away."""
        deadline_s = self._clock() + self._timeout_s
        while True:
            try:
                return read(deadline_s - self._clock())
            except OutcomeUnknown:
                raise Unavailable("the catalog does not answer") from None
            except (Unavailable, Busy) as error:
                pause_s = random.uniform(_MIN_PAUSE_S, _MAX_PAUSE_S)  # noqa: S311 - no secret
                if self._clock() + pause_s >= deadline_s:
                    raise Unavailable("the catalog is unavailable") from error
                self._sleep(pause_s)
