"""One soak from its beginning to its end: a steady load, faults, the steady load again."""

from __future__ import annotations

import argparse
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.arguments import EXIT_CANNOT, EXIT_MEASURED, EXIT_WRONG
from bench.copies.data import filled
from bench.copies.model import with_port
from bench.copies.project import Images, Project
from bench.copies.upkeep import next_number
from bench.measuring import machine
from bench.soak.flatness import warm_up_s
from bench.soak.load import Load
from bench.soak.promises import under_faults
from bench.soak.report import Results, as_text, draw, verdicts
from bench.soak.sampler import Sampler
from bench.soak.samples import AFTER, FAULTS, STEADY, Moment, Sample, written
from stack.containers import connect
from stack.parts import StackError
from stack.terminal import Interrupts, Progress, say_at_once

_STOCKS, _ORDERS = 10, 1_000
_CLIENTS = 8
# Pools of threads and connections grow with the requests at once, and never shrink. So at first all
# of them are filled: there are as many requests as the frontends have threads. What grows later is
# something else. This takes a part of the warm-up.
_BURST_CLIENTS = 64
_BURST_SHARE, _LONGEST_BURST_S = 1 / 2, 10.0
# After the faults, the steady load goes on for this share of its time, and not longer than this.
_AFTER_SHARE, _LONGEST_AFTER_S = 1 / 6, 120.0
# The kernel takes no port of these for an outgoing connection, so the edge gets its own back.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True, slots=True)
class SoakSettings:
    steady_s: float
    faults_s: float
    rate: float  # requests a second
    every_s: float  # between two samples
    seed: int
    directory: Path


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises NoAnswer, KeyboardInterrupt."""
    settings = SoakSettings(
        steady_s=arguments.duration,
        faults_s=arguments.faults,
        rate=arguments.rate,
        every_s=arguments.every,
        seed=arguments.seed,
        directory=arguments.out,
    )
    try:
        return EXIT_MEASURED if _measured(settings) else EXIT_WRONG
    except (StackError, OSError) as error:
        print(f"python -m bench soak: {error}", file=sys.stderr)
        return EXIT_CANNOT


def _measured(settings: SoakSettings) -> bool:
    """Whether all is well. Prints what was found, and writes the files.

    Raises:
        StackError, NoAnswer, OSError: it could not be run.
        KeyboardInterrupt
    """
    progress = Progress(sys.stderr)
    engine = connect()
    described = machine.describe(engine)
    settings.directory.mkdir(parents=True, exist_ok=True)
    progress.say(f"seed {settings.seed}")
    with Interrupts(say_at_once) as interrupts:
        results = _soak(engine, settings, progress, interrupts)
    print(f"{machine.line(described)}\n\n{as_text(results)}")
    image = settings.directory / "soak.png"
    subtitle = (
        f"{settings.steady_s:g} s at {settings.rate:g} requests a second, seed {settings.seed}"
    )
    draw(results, image, f"{subtitle}, {described['date'][:10]}, {described['cores']} cores")
    print(f"\n{settings.directory / 'soak.csv'}\n{image}", file=sys.stderr)
    return not verdicts(results)


def _soak(
    engine: Any, settings: SoakSettings, progress: Progress, interrupts: Interrupts
) -> Results:
    images = Images(engine, progress.say)
    with images.built() as base, filled(_ORDERS, _STOCKS) as data:
        project = Project(engine, images, with_port(base, _free_port()), progress.say)
        with project.up(data), written(settings.directory / "soak.csv") as write:
            next_number(project.url())  # which has a leader elected
            try:
                return _Soak(engine, project, settings, progress, write).run()
            finally:
                interrupts.not_any_more()  # all of it is removed now


class _Soak:
    def __init__(
        self,
        engine: Any,
        project: Project,
        settings: SoakSettings,
        progress: Progress,
        write: Callable[[Sample], None],
    ) -> None:
        self._project = project
        self._settings = settings
        self._progress = progress
        self._write = write
        self._phase = STEADY
        self._began_s = time.monotonic()
        url, seed = project.url(), settings.seed
        self._burst = Load(url, _BURST_CLIENTS, 0, _STOCKS, seed)
        self._load = Load(url, _CLIENTS, settings.rate, _STOCKS, seed)
        self._results = Results(settings.steady_s)
        self._sampler = Sampler(
            engine, project.containers, settings.every_s, self._moment, self._sampled
        )

    def run(self) -> Results:
        """Raises StackError."""
        steady_s = self._settings.steady_s
        self._began_s = time.monotonic()
        with self._sampler, closing(self._load):
            with closing(self._burst):
                burst_s = min(_BURST_SHARE * warm_up_s(steady_s), _LONGEST_BURST_S)
                self._run(self._burst, burst_s)
            self._run(self._load, steady_s - burst_s)
            self._note_restarts()
            self._begin(FAULTS)
            self._break()
            self._begin(AFTER)
            self._run(self._load, min(_AFTER_SHARE * steady_s, _LONGEST_AFTER_S))
        self._note_answers()
        return self._results

    def _begin(self, phase: str) -> None:
        self._progress.say({FAULTS: "faults", AFTER: "the steady load again"}[phase])
        self._phase = phase

    def _run(self, load: Load, seconds: float) -> None:
        end_s = time.monotonic() + seconds

        def watch() -> None:
            self._sampler.check()
            left_s = max(0.0, end_s - time.monotonic())
            self._progress.update(f"{self._told()}; {left_s / 60:.1f} min left")

        load.run(seconds, watch)

    def _break(self) -> None:
        settings = self._settings
        try:
            promises = under_faults(
                self._project.name,
                seconds=settings.faults_s,
                clients=_CLIENTS,
                rate=settings.rate,
                seed=settings.seed,
                out=settings.directory / "soak-faults",
                watch=self._sampler.check,
            )
        finally:
            self._project.containers.remove_helpers()  # if it was killed, it left some
        self._results.promises = promises.text
        self._results.problems += [promises.problem] if promises.problem else []

    def _note_restarts(self) -> None:
        """A leak that ends in a restart again and again would look flat."""
        for name in self._project.containers.parts():
            if times := self._project.containers.container(name).attrs["RestartCount"]:
                self._results.problems.append(f"{name} crashed {times} times under the steady load")

    def _note_answers(self) -> None:
        self._results.load = f"the load before and after the faults: {self._told()}"
        if set(self._answers) - {"200"}:
            self._results.problems.append("not every request of the load was answered 200")

    def _told(self) -> str:
        told = ", ".join(f"{count:,} x {answer}" for answer, count in sorted(self._answers.items()))
        return f"{told}; {self._trades:,} trades"

    @property
    def _answers(self) -> Counter[str]:
        return self._burst.answers + self._load.answers

    @property
    def _trades(self) -> int:
        return self._burst.trades + self._load.trades

    def _moment(self) -> Moment:
        return Moment(time.monotonic() - self._began_s, self._phase, self._trades)

    def _sampled(self, sample: Sample) -> None:
        self._results.samples.append(sample)
        self._write(sample)


def _free_port() -> int:
    """Of loopback. Raises StackError."""
    for _ in range(100):
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # it is taken
            return port
    raise StackError(f"no free port between {_PORTS.start} and {_PORTS.stop}")
