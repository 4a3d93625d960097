"""The load: lookups, trades and order lookups, at a rate that the service holds easily."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from http import HTTPStatus

from client.api import BourseClient, Malformed, NoAnswer, Request, RetryPolicy, TradeType
from stack.waiting import in_parallel

_TRADE_SHARE, _ORDER_SHARE = 0.4, 0.2
_REMEMBERED = 200  # orders of its own that a client looks up


class Load:
    """Clients side by side. `run` may be called several times, one after the other.

    Attributes:
        answers: how often each came: a status, or what went wrong.

    Args:
        rate: requests a second of all clients; 0: as fast as answers come.
        stocks: how many there are: `stock1` and on.
    """

    def __init__(self, url: str, clients: int, rate: float, stocks: int, seed: int) -> None:
        self._clients = [_Client(url, stocks, f"{seed}/{number}") for number in range(clients)]
        self._interval_s = clients / rate if rate else 0.0

    @property
    def trades(self) -> int:
        """Acknowledged ones."""
        return sum(client.trades for client in self._clients)

    @property
    def answers(self) -> Counter[str]:
        return sum((client.answers for client in self._clients), Counter[str]())

    def run(self, seconds: float, watch: Callable[[], None]) -> None:
        """Calls `watch` meanwhile, which may raise to end it."""
        stopping = threading.Event()
        end_s = time.monotonic() + seconds
        tasks = [
            lambda one=client: one.run(self._interval_s, end_s, stopping)
            for client in self._clients
        ]
        try:
            in_parallel(tasks, watch)
        finally:
            stopping.set()

    def close(self) -> None:
        for client in self._clients:
            client.close()


class _Client:
    """Sends one request after the other, and none twice: in the steady state nothing may fail."""

    def __init__(self, url: str, stocks: int, seed: str) -> None:
        self._client = BourseClient(url, retry=RetryPolicy(attempts=1))
        self._stocks = stocks
        self._chance = random.Random(seed)  # noqa: S311 - decides a load, keeps no secret
        self._key = f"soak-{secrets.token_hex(6)}"
        self._numbers: deque[int] = deque([1], maxlen=_REMEMBERED)  # the data has order 1
        self._to_buy: str | None = None
        self._sent = 0
        self.trades = 0
        self.answers: Counter[str] = Counter()

    def run(self, interval_s: float, end_s: float, stopping: threading.Event) -> None:
        # The clients begin at different times, so that the load is even.
        next_s = time.monotonic() + self._chance.random() * interval_s
        while next_s < end_s and not stopping.wait(max(0.0, next_s - time.monotonic())):
            self._send()
            # After a delay, a client does not send faster to catch up.
            next_s = max(next_s + interval_s, time.monotonic())

    def _send(self) -> None:
        request = self._next()
        try:
            answer = self._client.send(request)
            if request.method == "POST" and answer.status == HTTPStatus.OK:
                self._numbers.append(answer.order_number())
                self.trades += 1
            self.answers[str(answer.status)] += 1
        except (NoAnswer, Malformed) as error:
            self.answers[type(error).__name__] += 1

    def _next(self) -> Request:
        dice = self._chance.random()
        if dice < _TRADE_SHARE:
            return self._trade()
        if dice < _TRADE_SHARE + _ORDER_SHARE:
            return Request.order(self._chance.choice(self._numbers))
        return Request.lookup(self._a_stock())

    def _trade(self) -> Request:
        """Sells one share and buys it back, so no trade is ever refused."""
        self._sent += 1
        key = f"{self._key}-{self._sent}"
        if self._to_buy is not None:
            name, self._to_buy = self._to_buy, None
            return Request.trade(name, 1, TradeType.BUY, key)
        self._to_buy = self._a_stock()
        return Request.trade(self._to_buy, 1, TradeType.SELL, key)

    def _a_stock(self) -> str:
        return f"stock{self._chance.randint(1, self._stocks)}"

    def close(self) -> None:
        self._client.close()
