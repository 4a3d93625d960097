"""A session: clients that trade side by side, then verify what they made."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TextIO

from client.api import BourseClient, Traffic
from client.books import wrong_quantities
from client.checks import out_of_order, shared_numbers
from client.latency import LatencyRecorder
from client.progress import progress_bar
from client.report import Report
from client.trader import Findings, Kind, Plan, Trader

if sys.platform != "win32":
    import resource

# How often the main thread looks how far the others are.
_WATCH_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class SessionSettings:
    plan: Plan
    clients: int
    seed: int


def run_session(
    settings: SessionSettings, connect: Callable[[], BourseClient], progress: TextIO
) -> Report:
    """Runs it to the end, or to the first interrupt, and verifies what was made until then.

    Raises:
        NoAnswer: the server cannot be reached at all.
        KeyboardInterrupt: at the second interrupt.
    """
    plan, stopping = settings.plan, threading.Event()
    _allow_sockets(settings.clients)
    with ExitStack() as closing:
        clients = [closing.enter_context(connect()) for _ in range(settings.clients)]
        clients[0].connect()
        started_s = time.monotonic()
        traders = [
            Trader(
                number,
                client,
                plan,
                random.Random(f"{settings.seed}/{number}"),  # noqa: S311 - a load, no secret
                lambda: time.monotonic() - started_s,
                stopping,
            )
            for number, client in enumerate(clients, start=1)
        ]
        with _stop_at_interrupt(stopping):
            opening = _quantities(traders[0], plan) if plan.alone else {}
            duration_s = _trade(traders, plan, progress)
            _verify(traders, progress)
            if plan.alone:
                _quantities(traders[0], plan)
        findings = _merged([trader.findings for trader in traders], opening)
        traffic = Traffic()
        for client in clients:
            traffic.add(client.traffic)
        return Report(
            url=str(clients[0].base),
            clients=settings.clients,
            plan=plan,
            seed=settings.seed,
            interrupted=stopping.is_set(),
            rounds_done=sum(trader.rounds_done for trader in traders),
            duration_s=duration_s,
            findings=findings,
            traffic=traffic,
        )


def _trade(traders: list[Trader], plan: Plan, progress: TextIO) -> float:
    """How long it took, in seconds."""
    began_s = time.monotonic()
    total = plan.requests * len(traders)
    with progress_bar("session", total, progress) as show:
        _in_parallel(
            [trader.trade for trader in traders],
            lambda: show(sum(trader.rounds_done for trader in traders)),
        )
    return time.monotonic() - began_s


def _verify(traders: list[Trader], progress: TextIO) -> None:
    total = sum(len(trader.findings.orders) for trader in traders)
    with progress_bar("verifying", total, progress) as show:
        _in_parallel(
            [trader.verify for trader in traders],
            lambda: show(sum(trader.orders_checked for trader in traders)),
        )


def _quantities(trader: Trader, plan: Plan) -> dict[str, int]:
    quotes = [trader.lookup(name) for name in plan.stocks]
    return {quote.name: quote.quantity for quote in quotes if quote is not None}


def _in_parallel(tasks: list[Callable[[], None]], watch: Callable[[], None]) -> None:
    """Each in a thread of its own; raises what the first of them raised that did."""
    crashes: list[Exception] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - a thread has no caller; raised again below
            crashes.append(error)

    # Daemons, so that a second interrupt does not wait for them.
    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_WATCH_INTERVAL_S)
            watch()
    watch()
    if crashes:
        raise crashes[0]


def _merged(all_findings: list[Findings], opening: dict[str, int]) -> Findings:
    """All that was found, with what only all clients together show."""
    merged = Findings()
    for findings in all_findings:
        merged.add(findings)
    merged.mismatches += shared_numbers(merged.orders) + out_of_order(merged.orders)
    merged.mismatches += wrong_quantities(opening, merged.moves, merged.quantities)
    return merged


@contextmanager
def _stop_at_interrupt(stopping: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stopping`, the second is a KeyboardInterrupt."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _allow_sockets(clients: int) -> None:
    """Raises the limit on open files, often 1,024, as far as this many clients need and may."""
    if sys.platform == "win32":
        return
    # Two each: the socket, and the selector that looks at it for a moment.
    wanted = 2 * clients + 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
