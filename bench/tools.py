"""Runs a measuring tool: what all of them need, what they write, and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import docker

from bench import (
    failover,
    failover_report,
    requests,
    requests_picture,
    requests_report,
    scale_picture,
    scale_report,
    scale_sections,
)
from bench.arguments import EXIT_CANNOT, EXIT_MEASURED, EXIT_WRONG
from bench.ha import stores, stores_report, takeover
from bench.measuring import machine
from bench.measuring.wrk import Wrk, WrkFailed
from client.api import Malformed
from stack.containers import connect
from stack.parts import StackError
from stack.terminal import Interrupts, Progress

_NOTE = "Medians; in brackets where the middle half of what was measured lies."


@dataclass(frozen=True, slots=True)
class Report:
    """Of one tool."""

    text: str
    data: dict[str, Any]
    draw: Callable[[Path, str], None]  # to a file, with a subtitle
    problems: list[str]


Tool = Callable[[docker.DockerClient, Wrk, argparse.Namespace, Callable[[str], None]], Report]


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises NoAnswer, KeyboardInterrupt."""
    progress = Progress(sys.stderr)
    try:
        wrk, engine = Wrk(), connect()
        described = machine.describe(engine)
        with Interrupts(progress.say):
            report = _TOOLS[arguments.tool](engine, wrk, arguments, progress.say)
        print(f"{machine.line(described)}\n{_NOTE}\n\n{report.text}")
        _write(arguments, described, report)
    except (StackError, WrkFailed, Malformed, OSError) as error:
        print(f"python -m bench {arguments.tool}: {error}", file=sys.stderr)
        return EXIT_CANNOT
    if report.problems:
        print(f"PROBLEMS: {len(report.problems)}. These figures are not to be trusted.")
        return EXIT_WRONG
    return EXIT_MEASURED


def _write(arguments: argparse.Namespace, described: dict[str, Any], report: Report) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.json or arguments.out / f"{arguments.tool}.json"
    picture = arguments.out / f"{arguments.tool}.png"
    data.write_text(json.dumps({"machine": described, **report.data}, indent=2) + "\n", "utf-8")
    subtitle = f"{described['command']}, {described['date'][:10]}, {described['cores']} cores"
    report.draw(picture, subtitle)
    print(f"\n{data}\n{picture}", file=sys.stderr)


def _requests(
    engine: docker.DockerClient, wrk: Wrk, given: argparse.Namespace, say: Callable[[str], None]
) -> Report:
    settings = requests.RequestsSettings(given.only, given.seconds, given.rounds)
    results = requests.run(engine, wrk, settings, say)
    return _report(results, requests_report, requests_picture.draw)


def _stores(
    engine: docker.DockerClient, wrk: Wrk, given: argparse.Namespace, say: Callable[[str], None]
) -> Report:
    settings = stores.StoresSettings(given.only, given.seconds, given.rounds)
    results = stores.run(engine, wrk, settings, say)
    return _report(results, stores_report, stores_report.draw)


def _failover(
    engine: docker.DockerClient, wrk: Wrk, given: argparse.Namespace, say: Callable[[str], None]
) -> Report:
    settings = failover.FailoverSettings({failover.KILL: given.kills, failover.PAUSE: given.pauses})
    results = failover.run(engine, wrk, settings, say)
    return _report(results, failover_report, failover_report.draw)


def _takeover(
    engine: docker.DockerClient, wrk: Wrk, given: argparse.Namespace, say: Callable[[str], None]
) -> Report:
    times = takeover.times(given.catalogs, given.processes, given.nodes)
    results = takeover.run(engine, wrk, failover.FailoverSettings(times), say)
    return _report(results, failover_report, failover_report.draw)


def _scale(
    engine: docker.DockerClient, wrk: Wrk, given: argparse.Namespace, say: Callable[[str], None]
) -> Report:
    settings = scale_sections.ScaleSettings(given.only, given.seconds, given.rounds)
    results = scale_sections.run(engine, wrk, settings, say)
    return _report(results, scale_report, scale_picture.draw)


def _report(results: Any, told: ModuleType, draw: Callable[[Any, Path, str], None]) -> Report:
    return Report(
        told.as_text(results),
        told.as_json(results),
        lambda path, subtitle: draw(results, path, subtitle),
        results.problems,
    )


_TOOLS: Mapping[str, Tool] = {
    "requests": _requests,
    "stores": _stores,
    "scale": _scale,
    "failover": _failover,
    "takeover": _takeover,
}
