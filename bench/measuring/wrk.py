"""wrk, the load generator: one run of it, and what it reports.

A generator in Python would take more of the processor than what it measures.
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_SCRIPT = Path(__file__).with_name("load.lua")
_HOW_TO_INSTALL = "apt-get install wrk, brew install wrk, or https://github.com/wg/wrk"
# The service answers within 10 s.
_TIMEOUT_S = 12
_MARGIN_S = 30.0
# Replaced by a prefix that is new in each run, so that every key is new.
_KEYS = "KEYS"
_ERRORS = ("connect", "read", "write", "timeout", "status")


class WrkFailed(Exception):
    """It is missing, or did not report."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: a kind that load.lua knows, and its arguments."""

    words: tuple[str, ...]
    one_client_per_thread: bool = False

    @classmethod
    def get(cls, path: str, first: int, last: int, start: int = 0) -> Load:
        """The path with each number from `first` to `last` in place of its `#`, in turn.

        `start` is the place of the one to begin with, counted from 1; 0 is any.
        """
        return cls(("get", path, str(first), str(last), str(start)))

    @classmethod
    def lookups(cls, first: int, last: int, start: int = 0) -> Load:
        return cls.get("/stocks?stockname=stock#", first, last, start)

    @classmethod
    def orders(cls, first: int, last: int) -> Load:
        return cls.get("/orders?order-number=#", first, last)

    @classmethod
    def trades(cls, stocks: int, *, timed: bool = False) -> Load:
        """Of the first so many stocks, in turn; each bought and then sold, under a new key."""
        return cls(("timed" if timed else "trade", str(stocks), _KEYS))

    @classmethod
    def session(cls, stocks: int, trade_probability: float, seed: int) -> Load:
        """Lookups, each followed by a trade of that stock with the given probability."""
        words = ("session", str(stocks), _KEYS, f"{trade_probability:g}", str(seed))
        return cls(words, one_client_per_thread=True)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of wrk saw. Lists are empty where the load does not ask for them.

    `processor_s` is what each part of the server took meanwhile; empty where nobody looked.
    """

    requests: int
    duration_s: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int] = field(default_factory=dict)  # by kind; only those there were
    answers_s: Sequence[float] = ()  # when each came, on CLOCK_MONOTONIC
    lookups_ms: Sequence[float] = ()
    trades_ms: Sequence[float] = ()
    processor_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def processor_ms(self) -> float:
        """Of all parts, for one request."""
        return sum(self.processor_ms_by_part.values())

    @property
    def processor_ms_by_part(self) -> dict[str, float]:
        """For one request, as if there was one at least."""
        count = max(1, self.requests)
        return {part: 1000 * took_s / count for part, took_s in self.processor_s.items()}

    @property
    def rate_per_s(self) -> float:
        return self.requests / self.duration_s

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())


def parse(output: str) -> Measured:
    """The report in the last line that wrk printed. Raises WrkFailed."""
    line = output.strip().rpartition("\n")[2]
    try:
        report = json.loads(line)
        return Measured(
            requests=report["requests"],
            duration_s=report["duration"] / 1e6,
            mean_ms=report["mean_us"] / 1e3,
            p50_ms=report["p50_us"] / 1e3,
            p99_ms=report["p99_us"] / 1e3,
            max_ms=report["max_us"] / 1e3,
            errors={kind: report[kind] for kind in _ERRORS if report[kind]},
            answers_s=[at_us / 1e6 for at_us in report["times"]],
            lookups_ms=[took_us / 1e3 for took_us in report["lookups_us"]],
            trades_ms=[took_us / 1e3 for took_us in report["trades_us"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WrkFailed(f"wrk reported nothing: {output}") from error


class Running:
    """wrk, while it runs."""

    def __init__(self, process: subprocess.Popen[str], timeout_s: float) -> None:
        self._process = process
        self._timeout_s = timeout_s

    def end(self) -> None:
        """Ends wrk early. It still reports."""
        self._process.send_signal(signal.SIGINT)

    def result(self) -> Measured:
        """Waits for its end. Raises WrkFailed."""
        try:
            output, _ = self._process.communicate(timeout=self._timeout_s)
        except subprocess.TimeoutExpired as error:
            raise WrkFailed("wrk does not end") from error
        if self._process.returncode != 0:
            raise WrkFailed(f"wrk failed: {output}")
        return parse(output)


class Wrk:
    """The program, found once. Raises WrkFailed when it is missing."""

    def __init__(self, find: Callable[[str], str | None] = shutil.which) -> None:
        found = find("wrk")
        if found is None:
            raise WrkFailed(f"the load generator `wrk` is not installed: {_HOW_TO_INSTALL}")
        self._program = found

    def run(self, url: str, load: Load, connections: int, seconds: float) -> Measured:
        """Closed loop: each connection sends as soon as it was answered. Raises WrkFailed."""
        with self.running(url, load, connections, seconds) as running:
            return running.result()

    @contextmanager
    def running(self, url: str, load: Load, connections: int, seconds: float) -> Iterator[Running]:
        """Beside what is done inside. Raises WrkFailed."""
        command = self._command(url, load, connections, seconds)
        process = subprocess.Popen(  # noqa: S603 - our own words
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for this program, which ends wrk
        )

        try:
            yield Running(process, seconds + _TIMEOUT_S + _MARGIN_S)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _command(self, url: str, load: Load, connections: int, seconds: float) -> list[str]:
        # One thread keeps up with any server on this machine, and leaves it the other processors.
        threads = connections if load.one_client_per_thread else 1
        options = [f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        options += [f"--timeout={_TIMEOUT_S}s", f"--script={_SCRIPT}"]
        # Whatever comes behind the URL is for the script.
        keys = f"bench-{secrets.token_hex(6)}"
        words = [keys if word == _KEYS else word for word in load.words]
        return [self._program, *options, url, "--", *words]
