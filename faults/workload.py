"""The load: clients side by side, each request recorded when it is sent and when answered."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from client.api import BaseUrl, Connection, allow_connections
from faults.history import Call, Completion
from faults.recorder import Recorder
from faults.trader import KeyedTrader, KeylessTrader, Shared, Trader, TraderSettings
from stack.waiting import in_parallel

# The service answers within 10 s. The network may take the rest.
TIMEOUT_S = 12.0
_VERIFY_ATTEMPTS = 8
_VERIFY_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """`rate` is in requests per second of all clients; 0 means as fast as answers come."""

    clients: int
    rate: float
    seed: int
    run_id: str  # the beginning of every key, so that each key is new
    has_keys: bool  # without keys, nothing is sent twice


class Workload:
    """Call `run`, `settle` and `verify` in this order, each once.

    Args:
        url: of the edge.
        quantities: the present quantity of every stock.
        write: gets each record; any thread may call it.
        clock: gives the nanoseconds that the history uses.
    """

    def __init__(
        self,
        url: str,
        load: LoadSettings,
        quantities: Mapping[str, int],
        write: Callable[[Call | Completion], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        base = BaseUrl.parse(url)
        allow_connections(load.clients)
        self._shared = Shared()
        self._stocks = sorted(quantities)
        ids = itertools.count(1)
        kind = KeyedTrader if load.has_keys else KeylessTrader
        self._clients: list[Trader] = [
            kind(
                Recorder(number, Connection(base, TIMEOUT_S), ids, write, clock),
                quantities,
                self._shared,
                TraderSettings(
                    seed=f"{load.seed}/{number}",
                    key_prefix=f"{load.run_id}-{number}",
                    interval_s=load.clients / load.rate if load.rate else 0.0,
                ),
            )
            for number in range(1, load.clients + 1)
        ]

    @property
    def requests(self) -> int:
        return sum(client.requests for client in self._clients)

    @property
    def unknown(self) -> int:
        """Trades whose outcome is not known yet."""
        return sum(client.unknown for client in self._clients)

    def run(self, stopping: threading.Event, watch: Callable[[], None]) -> None:
        """Trades until `stopping` is set."""
        in_parallel([lambda c=client: c.trade(stopping) for client in self._clients], watch)  # type: ignore[misc]

    def settle(self, timeout_s: float, watch: Callable[[], None]) -> None:
        """Repeats each trade of unknown outcome until it is known or the time is over."""
        give_up_at = time.monotonic() + timeout_s
        in_parallel([lambda c=client: c.settle(give_up_at) for client in self._clients], watch)  # type: ignore[misc]

    def verify(self, watch: Callable[[], None]) -> None:
        """Looks up every acknowledged order and every stock, after all trades."""
        waiting: queue.SimpleQueue[Callable[[Trader], bool]] = queue.SimpleQueue()
        for number in self._shared.numbers():
            waiting.put(lambda client, n=number: client.order(n, "verify"))  # type: ignore[misc]
        for name in self._stocks:
            waiting.put(lambda client, n=name: client.lookup(n, "verify"))  # type: ignore[misc]

        def work(client: Trader) -> None:
            while True:
                try:
                    look_up = waiting.get_nowait()
                except queue.Empty:
                    return
                for _ in range(_VERIFY_ATTEMPTS):
                    if look_up(client):
                        break
                    time.sleep(_VERIFY_PAUSE_S)

        in_parallel([lambda c=client: work(c) for client in self._clients], watch)  # type: ignore[misc]

    def close(self) -> None:
        for client in self._clients:
            client.close()
