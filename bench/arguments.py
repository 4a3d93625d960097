"""The command lines of the measuring tools.

What they need beyond the standard library is imported when one of them is run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stack.numbers import whole

_EXIT_CODES = (
    "Exit code: 0 measured; 1 some answers were errors, or not what was to be measured; 2 it could "
    "not be measured, or the arguments are wrong; 130 interrupted. A missed target is no error."
)
_OUT = Path("bench-runs")
SCALE_PARTS = ("orders", "stocks", "catch-up", "replicas", "workers", "cache")
REQUESTS_PARTS = ("cached", "uncached", "trade", "order", "figure")

_EXIT_MISSING = 2


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_requests(commands)
    _add_scale(commands)
    _add_failover(commands)


def _run(arguments: argparse.Namespace) -> int:
    try:
        from bench import tools  # noqa: PLC0415 - `--help` does without
    except ImportError as error:
        print(f"{error}: `make venv` installs what measuring takes", file=sys.stderr)
        return _EXIT_MISSING
    return tools.run(arguments)


def _add_requests(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _new(
        commands,
        "requests",
        "measure every request beside its floor and a plain rival",
        "Starts a copy of the service in containers, and beside it two floors with the same "
        "image, settings and limits: a bare Flask route, and one that makes one empty gRPC call; "
        "and plain: Flask and PostgreSQL, one transaction for each trade, under the same limits. "
        "wrk sends to them in turns, on 1, 8, 16 and 32 connections. The processor time is told "
        "that each request takes. All of it is removed at the end, also on Ctrl-C. Nine minutes, "
        "once the images are built.",
    )
    _add_only(parser, REQUESTS_PARTS)
    _add_rounds(parser, seconds=1, rounds=8)
    _add_output(parser, "requests")
    parser.set_defaults(run=_run, tool="requests")


def _add_scale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _new(
        commands,
        "scale",
        "measure what becomes of it as it grows",
        "Starts copies of the service in containers that differ in one thing, and measures them in "
        "turns with wrk: 1,000 and 1,000,000 orders, 10 and 100,000 stocks, 3, 5 and 7 replicas, 1 "
        "to 4 workers, a cache of 5 and of 50,000 entries; and trades while a replica catches up "
        "that lacks 100,000 orders. All of it is removed at the end, also on Ctrl-C. Ten minutes.",
    )
    _add_only(parser, SCALE_PARTS)
    _add_rounds(parser, seconds=1, rounds=6)
    _add_output(parser, "scale")
    parser.set_defaults(run=_run, tool="scale")


def _add_failover(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _new(
        commands,
        "failover",
        "measure how long trades wait when the leader dies",
        "Starts a copy of the service in containers, and kills and pauses the order leader, in "
        "turns, while wrk trades as fast as answers come. What counts is the longest time without "
        "an acknowledged trade around each strike. The copy is removed at the end, also on Ctrl-C. "
        "Four minutes.",
    )
    for kind in ("kill", "pause"):
        parser.add_argument(
            f"--{kind}s",
            type=whole(0, 1000),
            default=20,
            metavar="N",
            help=f"how often to {kind} the leader (default: %(default)s)",
        )
    _add_output(parser, "failover")
    parser.set_defaults(run=_run, tool="failover")


def _new(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help: str,
    description: str,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=help, description=description, epilog=_EXIT_CODES, allow_abbrev=False
    )


def _add_only(parser: argparse.ArgumentParser, parts: Sequence[str]) -> None:
    parser.add_argument(
        "--only",
        nargs="+",
        choices=parts,
        default=list(parts),
        metavar="PART",
        help=f"measure these only: {', '.join(parts)}",
    )


def _add_rounds(parser: argparse.ArgumentParser, seconds: int, rounds: int) -> None:
    parser.add_argument(
        "--seconds",
        type=whole(1, 600),
        default=seconds,
        metavar="N",
        help="of each measurement, whole ones (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=whole(1, 100),
        default=rounds,
        metavar="N",
        help="how often everything takes its turn (default: %(default)s)",
    )


def _add_output(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=_OUT,
        metavar="DIR",
        help=f"where {name}.png and {name}.json go, over older ones (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help=f"write the JSON here, not as DIR/{name}.json"
    )
