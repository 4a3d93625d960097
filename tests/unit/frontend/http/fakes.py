"""Fakes of what the routes need, and a real server process that has them for its parts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal

from common import logs
from common.domain import Trade
from common.settings import load_settings
from frontend.model import CacheResult, Decision, OrderView, Parts, Quote
from frontend.settings import FrontendSettings
from tests.support.mechanisms import take_out

DONE = Decision(status=1, number=3, version=7, lease_ms=0, replayed=False)
STOCK1 = Quote("stock1", Decimal("25.78"), 10, 1)
ORDER1 = OrderView(1, "stock3", "SELL", 25)


class FakeTrades:
    def __init__(self) -> None:
        self.calls: list[Trade] = []
        self.elapsed_s: list[float] = []
        self.request_ids_in_context: list[str] = []
        self.decide: Callable[[Trade], Decision] = lambda _trade: DONE

    def trade(self, trade: Trade, elapsed_s: float) -> Decision:
        self.calls.append(trade)
        self.elapsed_s.append(elapsed_s)
        self.request_ids_in_context.append(logs.request_id.get())
        return self.decide(trade)


class FakeQuotes:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stocks = {"stock1": STOCK1}
        self.cache_result = CacheResult.MISS
        self.error: Exception | None = None

    def find(self, name: str) -> tuple[Quote | None, CacheResult]:
        self.calls.append(name)
        if self.error is not None:
            raise self.error
        return self.stocks.get(name), self.cache_result


class FakeOrders:
    def __init__(self) -> None:
        self.calls: list[int] = []
        self.orders = {1: ORDER1}
        self.error: Exception | None = None

    def order(self, number: int) -> OrderView | None:
        self.calls.append(number)
        if self.error is not None:
            raise self.error
        return self.orders.get(number)


class FakeReadiness:
    def __init__(self) -> None:
        self.calls = 0
        self.reason: str | None = None

    def reason_not_ready(self) -> str | None:
        self.calls += 1
        return self.reason


class Fakes:
    def __init__(self) -> None:
        self.trades = FakeTrades()
        self.quotes = FakeQuotes()
        self.orders = FakeOrders()
        self.readiness = FakeReadiness()

    @property
    def parts(self) -> Parts:
        return Parts(self.trades, self.quotes, self.orders, self.readiness)

    def were_called(self) -> bool:
        return bool(
            self.trades.calls or self.quotes.calls or self.orders.calls or self.readiness.calls
        )


def decide_slowly(trade: Trade) -> Decision:
    """Takes its time for the stock named slow."""
    if trade.name == "slow":
        print("deciding slowly", flush=True)
        time.sleep(1)
    return DONE


def build_fake_parts(_settings: FrontendSettings, resources: ExitStack) -> Parts:
    resources.callback(print, "parts closed", flush=True)
    fakes = Fakes()
    fakes.trades.decide = decide_slowly
    return fakes.parts


def tell_what_leaves() -> None:
    """Has the process say how many bytes it sends at once."""
    send = socket.socket.sendall

    def telling(connection: socket.socket, data: bytes, flags: int = 0) -> None:
        print(f"sending {len(data)} bytes at once", flush=True)
        send(connection, data, flags)

    socket.socket.sendall = telling  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    from frontend.http.server import HttpServer

    if "TELL_WHAT_LEAVES" in os.environ:
        tell_what_leaves()
    if without := os.environ.get("WITHOUT"):
        take_out(without)
    HttpServer(load_settings(FrontendSettings, "frontend"), build_fake_parts).run()
