"""Runs a measuring tool: what all of them need, what they write, and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from bench import (
    bench,
    bench_picture,
    bench_report,
    failover,
    failover_report,
    machine,
    scale_picture,
    scale_report,
    scale_sections,
)
from bench.wrk import Wrk, WrkFailed
from client.answers import Malformed
from stack.containers import connect
from stack.parts import StackError
from stack.terminal import Interrupts, Progress

_NOTE = "Medians; in brackets where the middle half of what was measured lies."

EXIT_MEASURED = 0
EXIT_WRONG = 1
EXIT_CANNOT = 2


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one tool."""

    text: str
    data: dict[str, Any]
    draw: Callable[[Path, str], None]  # to a file, with a subtitle
    problems: list[str]


Tool = Callable[[docker.DockerClient, Wrk, argparse.Namespace, Callable[[str], None]], Findings]


def run(arguments: argparse.Namespace) -> int:
    """The exit code. Raises NoAnswer, KeyboardInterrupt."""
    progress = Progress(sys.stderr)
    try:
        wrk, engine = Wrk(), connect()
        described = machine.describe(engine)
        with Interrupts(progress.say):
            findings = _TOOLS[arguments.tool](engine, wrk, arguments, progress.say)
        print(f"{machine.line(described)}\n{_NOTE}\n\n{findings.text}")
        _write(arguments, described, findings)
    except (StackError, WrkFailed, Malformed, OSError) as error:
        print(f"python -m bench {arguments.tool}: {error}", file=sys.stderr)
        return EXIT_CANNOT
    if findings.problems:
        print(f"PROBLEMS: {len(findings.problems)}. These figures are not to be trusted.")
        return EXIT_WRONG
    return EXIT_MEASURED


def _write(arguments: argparse.Namespace, described: dict[str, Any], findings: Findings) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.json or arguments.out / f"{arguments.tool}.json"
    picture = arguments.out / f"{arguments.tool}.png"
    data.write_text(json.dumps({"machine": described, **findings.data}, indent=2) + "\n", "utf-8")
    subtitle = f"{described['command']}, {described['date'][:10]}, {described['cores']} cores"
    findings.draw(picture, subtitle)
    print(f"\n{data}\n{picture}", file=sys.stderr)


def _bench(
    engine: docker.DockerClient,
    wrk: Wrk,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> Findings:
    plan = bench.Plan(arguments.only, arguments.seconds, arguments.rounds)
    results = bench.run(engine, wrk, plan, say)
    return Findings(
        bench_report.as_text(results),
        bench_report.as_json(results),
        lambda path, subtitle: bench_picture.draw(results, path, subtitle),
        results.problems,
    )


def _failover(
    engine: docker.DockerClient,
    wrk: Wrk,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> Findings:
    times = {"kill": arguments.kills, "pause": arguments.pauses}
    results = failover.run(engine, wrk, failover.Plan(times), say)
    return Findings(
        failover_report.as_text(results),
        failover_report.as_json(results),
        lambda path, subtitle: failover_report.draw(results, path, subtitle),
        results.problems,
    )


def _scale(
    engine: docker.DockerClient,
    wrk: Wrk,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> Findings:
    plan = scale_sections.Plan(arguments.only, arguments.seconds, arguments.rounds)
    results = scale_sections.run(engine, wrk, plan, say)
    return Findings(
        scale_report.as_text(results),
        scale_report.as_json(results),
        lambda path, subtitle: scale_picture.draw(results, path, subtitle),
        results.problems,
    )


_TOOLS: Mapping[str, Tool] = {"bench": _bench, "scale": _scale, "failover": _failover}
