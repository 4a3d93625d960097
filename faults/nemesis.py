"""Carries out a schedule of faults, records what was broken when, and heals it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from faults.breakages import Breakage
from faults.history import Fault
from faults.recovery import Eyes, Recovery
from faults.schedule import Strike
from faults.targets import is_replicated, may_hold_an_office, reserved, struck
from stack.observations import Observation, Position, leader_of
from stack.parts import ORDER_SERVICES, StackError
from stack.waiting import in_parallel, wait_for

# A paused leader stays paused until another one commits, at most for this long.
_SUCCESSOR_WITHIN_S = 15.0
# A paused primary stays paused until another one is promoted, at most for this long.
_PROMOTED_WITHIN_S = 40.0
_POLL_S = 0.1


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
        self._recovery = Recovery(eyes, clock)

    def give_up(self) -> None:
        """From now on it does not wait for healed parts to recover."""
        self._recovery.give_up()

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
            turn = next(self._turns)
            targets: tuple[str, ...] = (strike.target,)
            if strike.fault == "rolling":
                targets = struck(strike.target, self._parts)
            for target in targets:
                if not stopping.is_set():
                    holders = self._holders(target)
                    hits = struck(target, self._parts, leader, turn, holders)
                    self._one(strike, hits, holders, stopping)
        except Exception as error:  # noqa: BLE001 - a thread has no caller; the run reports it
            self._problem(f"{strike}: {type(error).__name__}: {error}")

    def _holders(self, target: str) -> Mapping[str, str]:
        """Who holds which office, as far as this target can have to do with it."""
        if is_replicated(self._parts) and may_hold_an_office(target):
            return self._eyes.holders()
        return {}

    def _one(
        self,
        strike: Strike,
        hits: tuple[str, ...],
        holders: Mapping[str, str],
        stopping: threading.Event,
    ) -> None:
        if not hits:
            self._progress(f"{strike} skipped: nobody is {strike.target} at the moment")
            return
        wanted = reserved(hits)
        with self._holding:
            taken = self._held & wanted
            if not taken:
                self._held |= wanted
        if taken:
            self._progress(f"{strike} skipped: {', '.join(sorted(taken))} is broken already")
            return
        try:
            self._break_and_heal(strike, hits, holders, stopping)
        finally:
            with self._holding:
                self._held -= wanted

    def _break_and_heal(
        self,
        strike: Strike,
        hits: tuple[str, ...],
        holders: Mapping[str, str],
        stopping: threading.Event,
    ) -> None:
        breakage = self._breakages[strike.fault]
        impairs = tuple(name for name in hits if name != "redis") if breakage.impairs else ()
        offices = {office: holder for office, holder in holders.items() if holder in hits}
        before = self._eyes.observe()
        fault = Fault(
            next(self._ids), 0, "", strike.fault, strike.target, hits, impairs, offices=offices
        )
        with ExitStack() as closing:
            send = self._orphans(fault, before, closing)
            self._step(fault, "begin")
            try:
                self._step(fault, "broken", _struck(breakage, hits))
                send()
                # A part of a rolling restart is started again at once.
                stopping.wait(0.0 if strike.fault == "rolling" else strike.lasts_s)
                detail = ""
                if fault.fault == "pause":
                    detail = self._await_successor(hits, before, stopping)
                elif fault.fault == "zombie":
                    detail = self._await_promotion(hits, stopping)
                self._step(fault, "healing", detail)
            except StackError as error:
                self._step(fault, "failed", str(error))
                self._problem(f"{strike}: {error}")
            finally:
                self._heal(strike, hits, breakage)
            self._step(fault, "healed")
            missing = self._recovery.wait_for(hits)
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

    def _await_promotion(self, hits: tuple[str, ...], stopping: threading.Event) -> str:
        """Waits until another node is the primary. Raises NotInTime."""

        def is_replaced() -> bool:
            return stopping.is_set() or self._eyes.primary() not in (None, *hits)

        wait_for(is_replaced, _PROMOTED_WITHIN_S, "another node is promoted")
        return "" if stopping.is_set() else "another was the primary"

    def _step(self, fault: Fault, step: str, detail: str = "") -> None:
        self._write(replace(fault, at_ns=self._clock(), step=step, detail=detail))
        if step in ("begin", "recovered", "failed"):
            words = {"begin": f"strikes {_named(fault)}"}.get(step, step)
            self._progress(f"{fault.fault}:{fault.target} {words}{detail and f': {detail}'}")

    def _problem(self, what: str) -> None:
        self._problems.append(what)
        self._progress(f"problem: {what}")


def _named(fault: Fault) -> str:
    """The parts that it hits, each with the offices that it holds."""
    offices = {part: office for office, part in fault.offices.items()}
    return ", ".join(
        f"{part} ({offices[part]})" if part in offices else part for part in fault.hits
    )


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
