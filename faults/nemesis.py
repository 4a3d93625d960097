"""Carries out a schedule of faults, records what was broken when, and heals it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial

from faults.breakages import Breakage
from faults.history import Fault
from faults.schedule import Strike, struck
from stack.observations import Observation, Position, in_sync, leader_of
from stack.parts import ORDER_SERVICES, StackError
from stack.waiting import in_parallel

# A healed part must serve again within this time. If it does not, the run reports it.
_RECOVERED_WITHIN_S = 60.0
# The workers of the frontends reconnect within half a second, each at its own time. A part that
# they all need counts as recovered only after the service was ready for this long.
_READY_FOR_S = 1.0
# The edge gets the address of a restarted frontend from Docker's name server, and then checks it.
_KNOWN_AFTER_S = 3.0
_ANSWERS_FOR_ITSELF = frozenset({*ORDER_SERVICES, "redis"})
# A paused leader stays paused until another one commits, at most for this long.
_SUCCESSOR_WITHIN_S = 15.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Eyes:
    """What the nemesis sees of the stack."""

    observe: Callable[[], Observation | None]
    is_ready: Callable[[], bool]  # GET /readyz through the edge, which includes the catalog
    is_running: Callable[[str], bool]  # the container runs and is not paused
    passes_its_check: Callable[[str], bool]  # the health check of a frontend's container
    pings: Callable[[str], bool]  # redis
    # Gives a function that sends trades to a paused leader. These trades go to no other replica.
    orphans: Callable[[str], AbstractContextManager[Callable[[], None]]]


class Nemesis:
    """Carries out one schedule. `run` may be called once.

    Args:
        parts: the names of all parts of the stack.
        write: gets each step of each fault; it is called from several threads.
        progress: prints a line.
        clock: gives the nanoseconds that the history uses.
    """

    def __init__(
        self,
        parts: Sequence[str],
        breakages: Mapping[str, Breakage],
        eyes: Eyes,
        write: Callable[[Fault], None],
        progress: Callable[[str], None],
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._parts = parts
        self._breakages = breakages
        self._eyes = eyes
        self._write = write
        self._progress = progress
        self._clock = clock
        self._ids = itertools.count(1)
        self._turns = itertools.count()
        self._held: set[str] = set()  # services that a fault is using now
        self._holding = threading.Lock()
        self._problems: list[str] = []
        self._giving_up = threading.Event()

    def give_up(self) -> None:
        """From now on it does not wait for healed parts to recover."""
        self._giving_up.set()

    def run(self, strikes: Sequence[Strike], stopping: threading.Event) -> tuple[str, ...]:
        """Runs each strike at its time, in a thread of its own. Returns when all is healed.

        `stopping` ends it early. Returns what it could not do, in words.
        """
        began_s = time.monotonic()
        threads: list[threading.Thread] = []
        for strike in strikes:
            if stopping.wait(max(0.0, began_s + strike.at_s - time.monotonic())):
                break
            thread = threading.Thread(
                target=self._carry_out, args=(strike, stopping), name=str(strike), daemon=True
            )
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
        return tuple(self._problems)

    def _carry_out(self, strike: Strike, stopping: threading.Event) -> None:
        try:
            leader = leader_of(self._eyes.observe())
            hits = struck(strike.target, self._parts, leader, next(self._turns))
            if strike.fault == "rolling":
                for part in hits:
                    if not stopping.is_set():
                        self._one(strike, (part,), 0.0, stopping)
            else:
                self._one(strike, hits, strike.lasts_s, stopping)
        except Exception as error:  # noqa: BLE001 - a thread has no caller; the run reports it
            self._problem(f"{strike}: {type(error).__name__}: {error}")

    def _one(
        self, strike: Strike, hits: tuple[str, ...], lasts_s: float, stopping: threading.Event
    ) -> None:
        with self._holding:
            taken = self._held & set(hits)
            if not taken:
                self._held |= set(hits)
        if taken:
            self._progress(f"{strike} skipped: {', '.join(sorted(taken))} is broken already")
            return
        try:
            self._break_and_heal(strike, hits, lasts_s, stopping)
        finally:
            with self._holding:
                self._held -= set(hits)

    def _break_and_heal(
        self, strike: Strike, hits: tuple[str, ...], lasts_s: float, stopping: threading.Event
    ) -> None:
        breakage = self._breakages[strike.fault]
        impairs = tuple(name for name in hits if name != "redis") if breakage.impairs else ()
        before = self._eyes.observe()
        fault = Fault(next(self._ids), 0, "", strike.fault, strike.target, hits, impairs)
        with ExitStack() as closing:
            send = self._orphans(fault, before, closing)
            self._step(fault, "begin")
            try:
                self._step(fault, "broken", _struck(breakage, hits))
                send()
                stopping.wait(lasts_s)
                detail = ""
                if fault.fault == "pause":
                    detail = self._await_successor(hits, before, stopping)
                self._step(fault, "healing", detail)
            except StackError as error:
                self._step(fault, "failed", str(error))
                self._problem(f"{strike}: {error}")
            finally:
                self._heal(strike, hits, breakage)
            self._step(fault, "healed")
            missing = self._await_recovery(hits)
        if missing:
            self._step(fault, "failed", missing)
            self._problem(f"{strike}: {missing}")
        else:
            self._step(fault, "recovered")

    def _orphans(
        self, fault: Fault, before: Observation | None, closing: ExitStack
    ) -> Callable[[], None]:
        """A function that sends trades to a paused leader, which gets them when it resumes."""
        leader = leader_of(before)
        if fault.fault == "pause" and leader is not None and leader in fault.hits:
            try:
                return closing.enter_context(self._eyes.orphans(leader))
            except StackError as error:
                self._progress(f"{fault.fault}:{fault.target}: no trades for it: {error}")
        return lambda: None

    def _heal(self, strike: Strike, hits: tuple[str, ...], breakage: Breakage) -> None:
        for service in hits:
            try:
                breakage.heal(service)
            except StackError as error:
                self._problem(f"healing {service} of {strike}: {error}")

    def _await_successor(
        self, hits: tuple[str, ...], before: Observation | None, stopping: threading.Event
    ) -> str:
        """Waits until another leader has committed: only then is a paused leader deposed."""
        leader = leader_of(before)
        if before is None or leader not in hits or not set(ORDER_SERVICES) - set(hits):
            return ""
        old = before.replicas[leader]
        give_up_at = time.monotonic() + _SUCCESSOR_WITHIN_S
        while time.monotonic() < give_up_at and not stopping.is_set():
            seen = self._eyes.observe()
            if seen is not None and _committed_since(seen, old):
                return "another leader had committed"
            time.sleep(_POLL_S)
        return "no other leader committed meanwhile"

    def _await_recovery(self, hits: tuple[str, ...]) -> str:
        """The parts that have not recovered in time, in words. Empty if all have."""
        since_ns = self._clock()
        give_up_at = time.monotonic() + _RECOVERED_WITHIN_S
        served_since: dict[str, float] = {}
        waiting = set(hits)
        while waiting:
            if self._giving_up.is_set():
                return f"nobody waited for {', '.join(sorted(waiting))} to recover"
            for service in sorted(waiting):
                if not self._serves(service, since_ns):
                    served_since.pop(service, None)
                    continue
                since_s = served_since.setdefault(service, time.monotonic())
                if time.monotonic() - since_s >= _steady_s(service):
                    waiting.discard(service)
            if waiting and time.monotonic() > give_up_at:
                return f"{', '.join(sorted(waiting))} did not recover in {_RECOVERED_WITHIN_S:g} s"
            if waiting:
                time.sleep(_POLL_S)
        return ""

    def _serves(self, service: str, since_ns: int) -> bool:
        if service in ORDER_SERVICES:
            seen = self._eyes.observe()
            # An observation from before the healing may even be from before the fault.
            return seen is not None and seen.at_ns > since_ns and in_sync(seen, service)
        if not self._eyes.is_running(service):
            return False
        if service == "redis":
            return self._eyes.pings(service)
        if service.startswith("frontend") and not self._eyes.passes_its_check(service):
            return False
        return self._eyes.is_ready()

    def _step(self, fault: Fault, step: str, detail: str = "") -> None:
        self._write(replace(fault, at_ns=self._clock(), step=step, detail=detail))
        if step in ("begin", "recovered", "failed"):
            words = {"begin": f"strikes {', '.join(fault.hits)}"}.get(step, step)
            self._progress(f"{fault.fault}:{fault.target} {words}{detail and f': {detail}'}")

    def _problem(self, what: str) -> None:
        self._problems.append(what)
        self._progress(f"problem: {what}")


def _steady_s(service: str) -> float:
    """How long a part must serve before it counts as recovered."""
    if service in _ANSWERS_FOR_ITSELF:
        return 0.0
    return _KNOWN_AFTER_S if service.startswith("frontend") else _READY_FOR_S


def _struck(breakage: Breakage, hits: Sequence[str]) -> str:
    """Strikes all parts at the same time. Returns the details; raises StackError if one failed."""
    details: set[str] = set()

    def strike(service: str) -> None:
        details.add(breakage.strike(service) or "")

    in_parallel([partial(strike, service) for service in hits], watch=lambda: None)
    return "; ".join(sorted(details - {""}))


def _committed_since(seen: Observation, old: Position) -> bool:
    leader = leader_of(seen)
    if leader is None:
        return False
    said = seen.replicas[leader]
    return said.epoch > old.epoch and said.last_number > old.last_number


def heal_all(
    actions: Sequence[tuple[str, Callable[[], None]]], progress: Callable[[str], None]
) -> tuple[str, ...]:
    """Does each action, even if others fail. Returns what failed, in words."""
    problems: list[str] = []
    for what, action in actions:
        try:
            action()
        except StackError as error:
            problems.append(f"{what}: {error}")
            progress(f"problem: {what}: {error}")
    return tuple(problems)
