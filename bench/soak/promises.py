"""The faults at the end, and the check of the promises: `python -m faults` on the same containers.

It is run as a program, because it is another tool: it has its own load, history and report.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stack.parts import ROOT

_POLL_S = 0.5
_HEALED_WITHIN_S = 90.0


@dataclass(frozen=True, slots=True)
class Promises:
    text: str  # the verdicts, as it prints them
    exit_code: int

    @property
    def problem(self) -> str | None:
        if self.exit_code == 0:
            return None
        if self.exit_code == 1:
            return "a promise was broken, or could not be judged"
        return f"the faults could not be done: python -m faults exited with {self.exit_code}"


def under_faults(
    project: str,
    *,
    seconds: float,
    clients: int,
    rate: float,
    seed: int,
    out: Path,
    watch: Callable[[], None],
) -> Promises:
    """Breaks that project at random for so long, and judges. Calls `watch` meanwhile."""
    words = ["--project", project, "--for", f"{seconds:g}", "--rate", f"{rate:g}"]
    words += ["--clients", str(clients), "--seed", str(seed), "--out", str(out.absolute())]
    # Its output goes to a file: a pipe that nobody reads meanwhile could fill up.
    out.mkdir(parents=True, exist_ok=True)
    said = out / "verdict.txt"
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-m", "faults", "run", *words],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            start_new_session=True,  # Ctrl-C is for this program, which ends it
        )
        try:
            while process.poll() is None:
                watch()
                time.sleep(_POLL_S)
        finally:
            _end(process)
    return Promises(said.read_text("utf-8"), process.returncode)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Has it remove its helpers and heal, if it still runs."""
    for _ in range(2):  # the first ends its load, the second gives everything up
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(_POLL_S)
    try:
        process.wait(_HEALED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
