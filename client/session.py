"""A session: clients that trade side by side, then verify what they made."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TextIO

from client.api import BourseClient, Traffic, allow_connections
from client.checks import out_of_order, shared_numbers, wrong_quantities
from client.progress import progress_bar
from client.session_client import SessionClient, SessionSettings
from client.tally import Kind, Tally
from stack.terminal import Interrupts, say_at_once
from stack.waiting import in_parallel


@dataclass(frozen=True, slots=True)
class SessionResult:
    url: str
    settings: SessionSettings
    interrupted: bool
    requests: int  # answered while trading, before the verification
    duration_s: float  # of the trading
    tally: Tally
    traffic: Traffic

    @property
    def ok(self) -> bool:
        """Every request got its right answer in the end, and every order was verified."""
        tally = self.tally
        complete = tally.verified == len(tally.orders)
        return complete and not tally.failures and not tally.mismatches


class Session:
    """`run` it once; `progress` is where the bar is drawn if it is a terminal."""

    def __init__(
        self, settings: SessionSettings, connect: Callable[[], BourseClient], progress: TextIO
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._progress = progress
        self._interrupts = Interrupts(say_at_once)

    def run(self) -> SessionResult:
        """Trades to the end, or to the first interrupt, then verifies what was made.

        Raises:
            NoAnswer: the server cannot be reached at all.
            KeyboardInterrupt: at the second interrupt.
        """
        allow_connections(self._settings.clients)
        with ExitStack() as closing:
            clients = [
                closing.enter_context(self._connect()) for _ in range(self._settings.clients)
            ]
            clients[0].connect()
            members = self._members(clients)
            with self._interrupts as interrupts:
                interrupts.end_early()
                opening = self._quantities(members[0])
                requests, duration_s = self._trade(members)
                self._verify(members)
                self._quantities(members[0])  # once more, when every trade is settled
        traffic = Traffic()
        for client in clients:
            traffic.add(client.traffic)
        return SessionResult(
            str(clients[0].base),
            self._settings,
            self._interrupts.stopping.is_set(),
            requests,
            duration_s,
            _merged(members, opening),
            traffic,
        )

    def _members(self, clients: list[BourseClient]) -> list[SessionClient]:
        started_s = time.monotonic()

        def elapsed_s() -> float:
            return time.monotonic() - started_s

        return [
            SessionClient(
                number=number,
                client=client,
                settings=self._settings,
                chance=self._chance(number),
                elapsed_s=elapsed_s,
                stopping=self._interrupts.stopping,
            )
            for number, client in enumerate(clients, start=1)
        ]

    def _chance(self, number: int) -> random.Random:
        seed = f"{self._settings.seed}/{number}"
        return random.Random(seed)  # noqa: S311 - decides a load, keeps no secret

    def _trade(self, members: list[SessionClient]) -> tuple[int, float]:
        """The requests that were answered, and how long all took in seconds."""
        began_s = time.monotonic()
        before = _answered(members)
        total = self._settings.requests * len(members)
        with progress_bar("session", total, self._progress) as show:
            in_parallel(
                [member.trade for member in members],
                lambda: show(sum(member.rounds_done for member in members)),
            )
        return _answered(members) - before, time.monotonic() - began_s

    def _verify(self, members: list[SessionClient]) -> None:
        total = sum(len(member.tally.orders) for member in members)
        with progress_bar("verifying", total, self._progress) as show:
            in_parallel(
                [member.verify for member in members],
                lambda: show(sum(member.orders_checked for member in members)),
            )

    def _quantities(self, member: SessionClient) -> dict[str, int]:
        """Of every stock, if the books can be checked."""
        settings = self._settings
        quotes = [member.lookup(name) for name in settings.stocks] if settings.alone else []
        return {quote.name: quote.quantity for quote in quotes if quote is not None}


def _answered(members: list[SessionClient]) -> int:
    return sum(len(member.tally.latencies[kind]) for member in members for kind in Kind)


def _merged(members: list[SessionClient], opening: dict[str, int]) -> Tally:
    """All that was found, with what only all clients together show."""
    merged = Tally()
    for member in members:
        merged.add(member.tally)
    merged.mismatches += shared_numbers(merged.orders) + out_of_order(merged.orders)
    merged.mismatches += wrong_quantities(opening, merged.moves, merged.quantities)
    return merged
