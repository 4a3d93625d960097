"""One run: the load, the faults, and the history of both."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from client.api import BaseUrl, Connection, NoAnswer, Request
from faults.breakages import breakages
from faults.history import Call, End, HistoryWriter, Record, Run
from faults.nemesis import Nemesis, heal_all
from faults.recovery import Eyes
from faults.schedule import Strike
from faults.workload import LoadSettings, Workload
from stack.containers import Containers
from stack.network import Network
from stack.observations import Final, Observation, Row
from stack.observer import Observer
from stack.offices import Offices
from stack.parts import StackError
from stack.terminal import Interrupts, Progress
from stack.waiting import in_parallel, wait_for

_READY_WITHIN_S = 90.0
_PROBE_TIMEOUT_S = 10.0
# When a run is given up, a strike that has begun may take this long. Stopping a part takes longest.
_LAST_STRIKE_WITHIN_S = 30.0
# Trades for each paused leader. Their ids are negative, so they differ from those of client calls.
_ORPHANS = 8
_ORPHAN_IDS = itertools.count(-1, -1)


class RunFailed(Exception):
    """The run could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    strikes: Sequence[Strike]
    duration_s: float
    clients: int
    rate: float  # requests per second of all clients; 0: as fast as answers come
    seed: int
    has_keys: bool  # whether the clients send keys, and repeat trades
    command: str  # repeats the same run
    settle_s: float  # how long unknown outcomes are repeated after the load, at most
    directory: Path  # each run makes its own directory there


def run(
    engine: Any,
    containers: Containers,
    settings: RunSettings,
    progress: Progress,
    interrupts: Interrupts,
) -> Path:
    """Runs once, and returns the complete history. The stack is healed when it returns.

    During the load, the first interrupt ends the run early. The second one gives it up at once.

    Raises:
        RunFailed, StackError, OSError: the run could not be made.
        KeyboardInterrupt: the run was given up, and everything is healed.
    """
    network = Network(engine, containers)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    directory = settings.directory / f"{stamp}-seed{settings.seed}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "history.jsonl"
    with ExitStack() as closing:
        closing.callback(heal, containers, network, progress.say)
        closing.callback(interrupts.not_any_more)
        heal(containers, network, progress.say)  # an earlier run may have left something broken
        network.build()
        probe = _Probe(containers)
        probe.wait_ready(_READY_WITHIN_S)
        probe.have_a_leader()
        writer = closing.enter_context(HistoryWriter(path))
        interrupts.end_early()
        session = _Session(containers, network, probe, settings, progress)
        session.play(engine, writer.write, interrupts.stopping)
    return path


def heal(containers: Containers, network: Network, say: Callable[[str], None]) -> tuple[str, ...]:
    """Starts and connects every part of the stack, and removes helpers. Returns what failed."""
    problems = list(heal_all([("helpers", containers.remove_helpers)], say))

    def mend(service: str) -> None:
        actions = (
            (f"resuming {service}", partial(containers.unpause, service)),
            (f"starting {service}", partial(containers.start, service)),
            (f"network of {service}", partial(network.heal, service)),
        )
        problems.extend(heal_all(actions, say))

    problems += heal_all([("the helper's image", network.build)], say)  # once, before all need it
    in_parallel([partial(mend, service) for service in containers.parts()], watch=lambda: None)
    return tuple(problems)


class _Session:
    def __init__(
        self,
        containers: Containers,
        network: Network,
        probe: _Probe,
        settings: RunSettings,
        progress: Progress,
    ) -> None:
        self._containers = containers
        self._network = network
        self._settings = settings
        self._probe = probe
        self._progress = progress

    def play(self, engine: Any, write: Callable[[Record], None], stopping: threading.Event) -> None:
        settings = self._settings
        begun = threading.Event()

        def note(seen: Observation) -> None:
            if begun.is_set():  # the record of the run must be the first
                write(seen)

        with Observer(engine, self._containers.project, note) as observer:
            opening = self._opening(observer)
            write(opening)
            begun.set()
            load = LoadSettings(
                settings.clients,
                settings.rate,
                settings.seed,
                f"faults-{secrets.token_hex(4)}",
                settings.has_keys,
            )
            workload = Workload(self._containers.urls("edge")[0], load, opening.quantities, write)
            offices = Offices(self._containers)
            eyes = Eyes(
                observer.latest,
                self._probe.is_ready,
                lambda service: self._containers.status(service) == "running",
                self._containers.passes_its_check,
                self._pings,
                lambda service: _orphans(observer, service, opening, write),
                offices.holders,
                offices.primary,
                offices.database_is_whole,
            )
            nemesis = Nemesis(
                opening.parts,
                breakages(self._containers, self._network),
                eyes,
                write,
                self._progress.say,
            )
            try:
                problems = self._trade(workload, nemesis, stopping)
                self._progress.say("settling what is unknown")
                workload.settle(settings.settle_s, self._watch(workload))
                self._progress.say("looking every order up")
                workload.verify(self._watch(workload))
            finally:
                workload.close()
            self._progress.say("reading the journal")
            for one in observer.read(above=opening.first_number):
                if isinstance(one, Row | Final):
                    write(one)
        write(End(time.monotonic_ns(), stopping.is_set(), problems))

    def _opening(self, observer: Observer) -> Run:
        end, final = None, None
        for one in observer.read():
            if isinstance(one, Final):
                final = one
            elif not isinstance(one, Row):
                end = one
        if final is None or end is None:
            raise RunFailed("the catalog said nothing")
        ends = {(said.last_number, said.digest) for said in final.replicas.values()}
        if ends != {end} or len(final.replicas) != 3:
            raise RunFailed(f"the replicas do not agree before the run: {final.replicas}")
        return Run(
            at_ns=time.monotonic_ns(),
            url=self._containers.urls("edge")[0],
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=self._settings.command,
            seed=self._settings.seed,
            clients=self._settings.clients,
            parts=self._containers.parts(),
            first_number=end[0],
            first_digest=end[1],
            quantities=final.quantities,
            versions=final.versions,
        )

    def _trade(
        self, workload: Workload, nemesis: Nemesis, stopping: threading.Event
    ) -> tuple[str, ...]:
        """Trades for the planned time, and longer while something is still broken."""
        over = threading.Event()
        problems: list[str] = []

        def strike() -> None:
            began_s = time.monotonic()
            problems.extend(nemesis.run(self._settings.strikes, stopping))
            stopping.wait(max(0.0, began_s + self._settings.duration_s - time.monotonic()))
            over.set()

        nemesis_thread = threading.Thread(target=strike, name="nemesis", daemon=True)
        nemesis_thread.start()
        try:
            workload.run(over, self._watch(workload))
        finally:
            # Also after an error: no fault may begin after the healing.
            if not over.is_set():
                stopping.set()
                nemesis.give_up()
            nemesis_thread.join(_LAST_STRIKE_WITHIN_S)
        return tuple(problems)

    def _watch(self, workload: Workload) -> Callable[[], None]:
        return lambda: self._progress.show(workload.requests, workload.unknown)

    def _pings(self, service: str) -> bool:
        try:
            return "PONG" in self._containers.execute(service, "redis-cli", "ping")
        except StackError:
            return False


@contextmanager
def _orphans(
    observer: Observer, service: str, opening: Run, write: Callable[[Record], None]
) -> Iterator[Callable[[], None]]:
    """Yields a function that sends orphans to a replica: see `history.Call`."""
    name = min(opening.quantities)
    tag = secrets.token_hex(4)
    keys = [f"orphan-{service}-{tag}-{number}" for number in range(_ORPHANS)]
    with observer.orphans(service, name, keys) as send:

        def go() -> None:
            for key in keys:
                id, at_ns = next(_ORPHAN_IDS), time.monotonic_ns()
                sale = {"key": key, "name": name, "type": "SELL"}
                write(Call(id, at_ns, 0, "trade", "orphan", **sale, quantity=1))  # type: ignore[arg-type]
            send()

        yield go


class _Probe:
    """Asks a frontend through the edge whether it is ready. Any thread may call it."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def is_ready(self) -> bool:
        return self._status(Request("GET", "/readyz", awaits_recovery=False)) == 200

    def wait_ready(self, timeout_s: float) -> None:
        """Raises NotInTime."""
        wait_for(self.is_ready, timeout_s, "the stack is ready: docker compose ps")

    def have_a_leader(self) -> None:
        """Makes the replicas elect a leader, by a trade of an unknown stock. Raises RunFailed."""
        key = f"faults-{secrets.token_hex(8)}"
        for _ in range(5):
            if self._status(Request.trade("no such stock", 1, "BUY", key)) == 404:
                return
            time.sleep(0.5)
        raise RunFailed("the stack takes no trades: docker compose logs")

    def _status(self, request: Request) -> int | None:
        try:
            connection = Connection(
                BaseUrl.parse(self._containers.urls("edge")[0]), _PROBE_TIMEOUT_S
            )
        except StackError:
            return None  # the edge is down and has no port
        try:
            return connection.exchange(request).status
        except NoAnswer:
            return None
        finally:
            connection.close()
