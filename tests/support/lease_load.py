"""Trades and lookups on several frontends, each request with its time; stale reads are noted."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from client.api import Answer, BourseClient, NoAnswer, RetryPolicy
from tests.support.lease_world import FRONTENDS, A, B
from tests.support.threads import working

# Stocks that are only bought, one share at a time: their quantity can only fall, so a lookup that
# shows more than can be left when it starts is stale. Each frontend has one that no other
# frontend's trades drop from the cache.
OWN = {A: "stock1", B: "stock2"}
SHARED = "stock3"
WATCHED = (*OWN.values(), SHARED)
UNREAD = "stock9"  # traded, never looked up: nobody has a lease on it

_TRADERS = 3  # of watched stocks, for each frontend; one more trades the unread one
_LOOKERS = 4  # each on all frontends in turn
_PAUSE_S = 0.01  # between two requests of a client: the machine is not the subject
_ONCE = RetryPolicy(attempts=1)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and how long its answer took."""

    frontend: str
    name: str  # of the stock
    started_s: float  # monotonic
    elapsed_s: float
    status: int
    cache: str  # HIT, MISS or BYPASS; empty for a trade

    @property
    def ended_s(self) -> float:
        return self.started_s + self.elapsed_s


class LeaseLoad:
    """Clients without patience: every request once, on a connection of its own.

    Args:
        urls: of each frontend.
        volumes: what is left of each stock before the first trade.
    """

    def __init__(self, urls: Mapping[str, str], volumes: Mapping[str, int]) -> None:
        self.trades: list[Exchange] = []
        self.lookups: list[Exchange] = []
        self.stale: list[str] = []
        self.problems: list[str] = []
        self.acknowledged: dict[str, int] = {}  # request id → order number
        self._urls = dict(urls)
        self._left = {name: volumes[name] for name in WATCHED}  # at most
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the clients around the block; the caller judges what they saw afterwards."""
        chances = (random.Random(seed) for seed in range(1_000))  # noqa: S311 - repeatable
        loops: list[Callable[[], None]] = []
        for frontend in FRONTENDS:
            for _ in range(_TRADERS):
                loops.append(self._trader(frontend, (OWN[frontend], SHARED), next(chances)))
            loops.append(self._trader(frontend, (UNREAD,), next(chances)))
        loops += [self._looker(next(chances)) for _ in range(_LOOKERS)]
        with working([partial(self._run, once) for once in loops], self._stopping):
            yield

    def _run(self, once: Callable[[], None]) -> None:
        while not self._stopping.wait(_PAUSE_S):
            try:
                once()
            except NoAnswer as error:
                self.problems.append(f"no answer: {error}")
            except Exception as error:  # the thread must not end in silence
                self.problems.append(f"{type(error).__name__}: {error}")

    def _trader(
        self, frontend: str, names: tuple[str, ...], chance: random.Random
    ) -> Callable[[], None]:
        return lambda: self._trade(frontend, chance.choice(names))

    def _looker(self, chance: random.Random) -> Callable[[], None]:
        def look() -> None:
            for frontend in FRONTENDS:
                self._look(frontend, chance.choice(WATCHED))

        return look

    def _trade(self, frontend: str, name: str) -> None:
        key = str(uuid.uuid4())
        exchange, answer = self._timed(frontend, name, lambda one: one.trade(name, 1, "BUY", key))
        self.trades.append(exchange)
        if answer.status != 200:
            return
        self.acknowledged[key] = int(answer.data["transaction_number"])
        with self._lock:
            if name in self._left:
                self._left[name] -= 1

    def _look(self, frontend: str, name: str) -> None:
        with self._lock:
            at_most = self._left[name]
        exchange, answer = self._timed(frontend, name, lambda one: one.lookup(name))
        self.lookups.append(exchange)
        if answer.status == 200 and answer.data["quantity"] > at_most:
            self.stale.append(f"{answer.data['quantity']} of at most {at_most}: {exchange}")

    def _timed(
        self, frontend: str, name: str, send: Callable[[BourseClient], Answer]
    ) -> tuple[Exchange, Answer]:
        started_s = time.monotonic()
        with BourseClient(self._urls[frontend], retry=_ONCE) as client:
            answer = send(client)
        elapsed_s = time.monotonic() - started_s
        cache = answer.headers.get("X-Cache", "")
        return Exchange(frontend, name, started_s, elapsed_s, answer.status, cache), answer
