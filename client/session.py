"""A session: clients that trade side by side, then verify what they made."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TextIO

from client.api import BourseClient, Traffic
from client.books import wrong_quantities
from client.checks import out_of_order, shared_numbers
from client.parallel import allow_open_files, in_parallel, stopped_by_interrupt
from client.progress import progress_bar
from client.trader import Findings, Kind, Plan, Trader


@dataclass(frozen=True, slots=True)
class SessionSettings:
    plan: Plan  # of each client
    clients: int
    seed: int


@dataclass(frozen=True, slots=True)
class SessionResult:
    url: str
    settings: SessionSettings
    interrupted: bool
    requests: int  # answered while trading, before the verification
    duration_s: float  # of the trading
    findings: Findings
    traffic: Traffic

    @property
    def ok(self) -> bool:
        """Every request got its right answer in the end, and every order was verified."""
        found = self.findings
        complete = found.verified == len(found.orders)
        return complete and not found.failures and not found.mismatches


class Session:
    """`run` it once; `progress` is where the bar is drawn if it is a terminal."""

    def __init__(
        self, settings: SessionSettings, connect: Callable[[], BourseClient], progress: TextIO
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._progress = progress
        self._stopping = threading.Event()

    def run(self) -> SessionResult:
        """Trades to the end, or to the first interrupt, then verifies what was made.

        Raises:
            NoAnswer: the server cannot be reached at all.
            KeyboardInterrupt: at the second interrupt.
        """
        # Two each: the socket, and the selector that looks at it for a moment.
        allow_open_files(2 * self._settings.clients + 64)
        with ExitStack() as closing:
            clients = [
                closing.enter_context(self._connect()) for _ in range(self._settings.clients)
            ]
            clients[0].connect()
            traders = self._traders(clients)
            with stopped_by_interrupt(self._stopping):
                opening = self._quantities(traders[0])
                requests, duration_s = self._trade(traders)
                self._verify(traders)
                self._quantities(traders[0])  # once more, when every trade is settled
        traffic = Traffic()
        for client in clients:
            traffic.add(client.traffic)
        return SessionResult(
            str(clients[0].base),
            self._settings,
            self._stopping.is_set(),
            requests,
            duration_s,
            _merged(traders, opening),
            traffic,
        )

    def _traders(self, clients: list[BourseClient]) -> list[Trader]:
        started_s = time.monotonic()

        def elapsed_s() -> float:
            return time.monotonic() - started_s

        return [
            Trader(
                number=number,
                client=client,
                plan=self._settings.plan,
                chance=self._chance(number),
                elapsed_s=elapsed_s,
                stopping=self._stopping,
            )
            for number, client in enumerate(clients, start=1)
        ]

    def _chance(self, number: int) -> random.Random:
        seed = f"{self._settings.seed}/{number}"
        return random.Random(seed)  # noqa: S311 - decides a load, keeps no secret

    def _trade(self, traders: list[Trader]) -> tuple[int, float]:
        """The requests that were answered, and how long all took in seconds."""
        began_s = time.monotonic()
        before = _answered(traders)
        total = self._settings.plan.requests * len(traders)
        with progress_bar("session", total, self._progress) as show:
            in_parallel(
                [trader.trade for trader in traders],
                lambda: show(sum(trader.rounds_done for trader in traders)),
            )
        return _answered(traders) - before, time.monotonic() - began_s

    def _verify(self, traders: list[Trader]) -> None:
        total = sum(len(trader.findings.orders) for trader in traders)
        with progress_bar("verifying", total, self._progress) as show:
            in_parallel(
                [trader.verify for trader in traders],
                lambda: show(sum(trader.orders_checked for trader in traders)),
            )

    def _quantities(self, trader: Trader) -> dict[str, int]:
        """Of every stock, if the books can be checked."""
        plan = self._settings.plan
        quotes = [trader.lookup(name) for name in plan.stocks] if plan.alone else []
        return {quote.name: quote.quantity for quote in quotes if quote is not None}


def _answered(traders: list[Trader]) -> int:
    return sum(len(trader.findings.latencies[kind]) for trader in traders for kind in Kind)


def _merged(traders: list[Trader], opening: dict[str, int]) -> Findings:
    """All that was found, with what only all clients together show."""
    merged = Findings()
    for trader in traders:
        merged.add(trader.findings)
    merged.mismatches += shared_numbers(merged.orders) + out_of_order(merged.orders)
    merged.mismatches += wrong_quantities(opening, merged.moves, merged.quantities)
    return merged
