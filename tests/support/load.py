"""Clients that trade and look, and remember what they were told and what they must not see."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from client.api import BourseClient, NoAnswer, Traffic
from stack.waiting import wait_for
from tests.support.threads import working

# A stock that the load only buys, one share at a time: its quantity can only fall, so a
# lookup that shows more than what was left when it started is a stale quote.
WATCHED = "stock1"
_OTHERS = ("stock2", "stock3", "stock4")


@dataclass
class Load:
    """What the clients saw."""

    url: str
    clients: int
    acknowledged: dict[str, int] = field(default_factory=dict)  # request id -> order number
    problems: list[str] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)
    slowest_trade_s: float = 0.0
    _bought: int = 0
    _initial: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the clients around the block; the caller judges what they saw afterwards."""
        with BourseClient(self.url) as client:
            self._initial = int(client.lookup(WATCHED).data["quantity"])
        with working([partial(self._run, index) for index in range(self.clients)], self._stopping):
            yield

    @property
    def count(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    def _run(self, index: int) -> None:
        chance = random.Random(index)  # noqa: S311 - repeatable on purpose
        with BourseClient(self.url) as client:
            while not self._stopping.is_set():
                try:
                    self._trade(client, chance)
                    self._look(client)
                except NoAnswer as error:
                    self._note(f"no answer: {error}")
                except Exception as error:  # the thread must not end in silence
                    self._note(f"{type(error).__name__}: {error}")
            with self._lock:
                self.traffic.add(client.traffic)

    def _trade(self, client: BourseClient, chance: random.Random) -> None:
        key = str(uuid.uuid4())
        watched = chance.random() < 0.5
        name = WATCHED if watched else chance.choice(_OTHERS)
        side = "BUY" if watched else chance.choice(("BUY", "SELL"))
        started = time.monotonic()
        answer = client.trade(name, 1, side, key)
        elapsed_s = time.monotonic() - started
        with self._lock:
            self.slowest_trade_s = max(self.slowest_trade_s, elapsed_s)
            if answer.status == 200:
                self.acknowledged[key] = int(answer.data["transaction_number"])
                self._bought += watched
            elif answer.status != 404:
                self.problems.append(f"trade answered {answer.status}: {answer.body!r}")

    def _look(self, client: BourseClient) -> None:
        with self._lock:
            at_most = self._initial - self._bought
        answer = client.lookup(WATCHED)
        if answer.status != 200:
            self._note(f"lookup answered {answer.status}: {answer.body!r}")
        elif answer.data["quantity"] > at_most:
            self._note(f"stale: {answer.data['quantity']} where at most {at_most} can be left")

    def _note(self, problem: str) -> None:
        with self._lock:
            self.problems.append(problem)


def let_pass(load: Load, trades: int) -> None:
    """Returns when so many more trades have been acknowledged."""
    wanted = load.count + trades
    wait_for(lambda: load.count >= wanted, 30, lambda: f"{load.count} of {wanted} trades; {load}")
