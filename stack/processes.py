"""The parts as processes of this machine: started, started again when they die, and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from stack.parts import ROOT, StackError

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0  # more than the services' own SHUTDOWN_GRACE_S
_POLL_S = 0.2


def report(message: str) -> None:
    print(f"local: {message}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Part:
    """One process of the service."""

    name: str
    command: Sequence[str]
    port: int
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of this process's own


class Supervisor:
    """Starts the parts, starts the dead ones again, and stops all of them in order.

    Args:
        parts: in the order of their start; they stop the other way round.
        environment: of every part, below what the part itself sets.
        restart_after_s: how long a part stays dead; None: until `revive` is called.
        stop_timeout_s: how long a part may take to stop before it is killed.
        kept_open: descriptors that the parts inherit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        environment: Mapping[str, str],
        restart_after_s: float | None,
        stop_timeout_s: float = _STOP_TIMEOUT_S,
        kept_open: Sequence[int] = (),
    ) -> None:
        self._parts = parts
        self._environment = environment
        self._restart_after_s = restart_after_s
        self._stop_timeout_s = stop_timeout_s
        self._kept_open = kept_open
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._dead_since: dict[str, float] = {}
        self._revived = threading.Event()

    def start(self, stopping: threading.Event, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Starts every part and waits until each is ready, or until `stopping` is set.

        Raises:
            StackError: a part died instead, or was not ready in time.
        """
        for part in self._parts:
            self._start(part)
        waited_for = list(self._parts)
        deadline = time.monotonic() + timeout_s
        while waited_for and not stopping.wait(_POLL_S):
            for part in self._parts:
                code = self._running[part.name].poll()
                if code is not None:
                    raise StackError(f"{part.name} {_how_it_ended(code)} while starting")
            waited_for = [part for part in waited_for if not part.is_ready()]
            if waited_for and time.monotonic() > deadline:
                names = ", ".join(part.name for part in waited_for)
                raise StackError(f"not ready after {timeout_s:g} s: {names}")

    def watch(self, stopping: threading.Event) -> None:
        """Reports parts that die, and starts them again, until `stopping` is set."""
        while not stopping.wait(_POLL_S):
            revived = self._revived.is_set()
            if revived:
                self._revived.clear()
            for part in self._parts:
                if part.name in self._running:
                    self._bury_if_dead(part)
                elif revived or self._is_due(part):
                    self._start(part)
                    report(f"{part.name} started again, pid {self.pids[part.name]}")

    def revive(self) -> None:
        """Has every dead part started again now. Callable from a signal handler."""
        self._revived.set()

    def stop(self) -> None:
        """Stops what runs, last started first: SIGTERM, and SIGKILL for what takes too long."""
        for part in reversed(self._parts):
            process = self._running.pop(part.name, None)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                report(f"{part.name} did not stop within {self._stop_timeout_s:g} s: killed")
            kill_group(process)

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._running.items()}

    def _start(self, part: Part) -> None:
        self._dead_since.pop(part.name, None)
        self._running[part.name] = started(part, self._environment, kept_open=self._kept_open)

    def _bury_if_dead(self, part: Part) -> None:
        process = self._running[part.name]
        code = process.poll()
        if code is None:
            return
        kill_group(process)
        del self._running[part.name]
        self._dead_since[part.name] = time.monotonic()
        again = (
            f"`kill -USR1 {os.getpid()}` starts it again"
            if self._restart_after_s is None
            else f"it starts again in {self._restart_after_s:g} s"
        )
        report(f"{part.name} (pid {process.pid}) {_how_it_ended(code)}; {again}")

    def _is_due(self, part: Part) -> bool:
        dead_for_s = time.monotonic() - self._dead_since[part.name]
        return self._restart_after_s is not None and dead_for_s >= self._restart_after_s


def started(
    part: Part,
    environment: Mapping[str, str],
    *,
    output: IO[bytes] | None = None,
    kept_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """The part's process, which leads a group of its own.

    Args:
        output: where it prints; without it, where this process does.
        kept_open: descriptors that it inherits.
    """
    return subprocess.Popen(  # noqa: S603 - our own commands
        part.command,
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": "1", **part.environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # Ctrl-C reaches only this process, which then stops the parts in order.
        start_new_session=True,
        pass_fds=kept_open,
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills the rest of a part's processes: gunicorn's workers, for example."""
    with contextlib.suppress(ProcessLookupError):  # nothing was left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
