"""The command lines of the measuring tools.

What they need beyond the standard library is imported when one of them is run.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from stack.numbers import number, whole

EXIT_MEASURED = 0
EXIT_WRONG = 1
EXIT_CANNOT = 2

_EXIT_CODES = (
    "Exit code: 0 measured; 1 some answers were errors, or not what was to be measured; 2 it could "
    "not be measured, or the arguments are wrong; 130 interrupted. A missed target is no error."
)
_SOAK_EXIT_CODES = (
    "Exit code: 0 all stayed flat and every promise held; 1 something did not; 2 it could not be "
    "run, or the arguments are wrong; 130 interrupted."
)
_OUT = Path("bench-runs")
SCALE_PARTS = ("orders", "stocks", "catch-up", "replicas", "workers", "cache")
STORES_PARTS = ("trade", "cached", "uncached")
REQUESTS_PARTS = ("cached", "uncached", "trade", "order", "figure")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_requests(commands)
    _add_stores(commands)
    _add_scale(commands)
    _add_failover(commands)
    _add_takeover(commands)
    _add_soak(commands)


def _run(arguments: argparse.Namespace) -> int:
    try:
        module = import_module(arguments.module)
    except ImportError as error:
        print(f"{error}: `make venv` installs what measuring takes", file=sys.stderr)
        return EXIT_CANNOT
    return int(module.run(arguments))


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
    parser.set_defaults(run=_run, module="bench.tools", tool="requests")


def _add_stores(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _new(
        commands,
        "stores",
        "measure the service on PostgreSQL beside the one on SQLite",
        "Starts two copies of the service in containers: one as compose.yaml has it, and one on a "
        "database of three nodes, as compose.ha.yaml has it. wrk sends to them in turns, on 1, 8, "
        "16 and 32 connections. The processor time is told that each request takes, and that each "
        "copy takes while it is idle. The floors and plain are left out: they would take memory "
        "and time of the same machine. All of it is removed at the end, also on Ctrl-C. Six "
        "minutes, once the images are built.",
    )
    _add_only(parser, STORES_PARTS)
    _add_rounds(parser, seconds=1, rounds=8)
    _add_output(parser, "stores")
    parser.set_defaults(run=_run, module="bench.tools", tool="stores")


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
    parser.set_defaults(run=_run, module="bench.tools", tool="scale")


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
    parser.set_defaults(run=_run, module="bench.tools", tool="failover")


def _add_takeover(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _new(
        commands,
        "takeover",
        "measure how long trades wait when a catalog or the database's primary dies",
        "Starts a copy of the service on a database of three nodes, as compose.ha.yaml has it. In "
        "turns, it kills and pauses the active catalog, kills the PostgreSQL process of the "
        "primary, and kills and pauses the primary's container, while wrk trades as fast as "
        "answers come. What counts is the longest time without an acknowledged trade around each "
        "strike. Before the next one it waits until two catalogs and three nodes work again. The "
        "copy is removed at the end, also on Ctrl-C. Ten minutes.",
    )
    for name, what, times in (
        ("catalogs", "kill the active catalog, and how often to pause it", 10),
        ("processes", "kill the primary's PostgreSQL process", 5),
        ("nodes", "kill the primary's container, and how often to pause it", 2),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole(0, 1000),
            default=times,
            metavar="N",
            help=f"how often to {what} (default: %(default)s)",
        )
    _add_output(parser, "takeover")
    parser.set_defaults(run=_run, module="bench.tools", tool="takeover")


def _add_soak(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _new(
        commands,
        "soak",
        "load it for an hour, then break it: does everything stay flat?",
        "Starts a copy of the service in containers, and sends it lookups, trades and "
        "order lookups at a steady rate. Then `python -m faults` breaks it for some minutes, and "
        "the steady load goes on for a sixth of its time, two minutes at most. All the time the "
        "memory, open files, threads, write-ahead logs and databases of every container are "
        "sampled. Tells whether they stayed flat after the first sixth of the steady load, ten "
        "minutes at most. All of it is removed at the end, also on Ctrl-C.",
        _SOAK_EXIT_CODES,
    )
    add = parser.add_argument
    add(
        "--for",
        dest="duration",
        type=number(10, 7 * 86_400),
        default=3600.0,
        metavar="SECONDS",
        help="of steady load before the faults (default: %(default)g)",
    )
    add(
        "--rate",
        type=number(1, 10_000),
        default=60.0,
        metavar="N",
        help="requests a second, of the faults' load too (default: %(default)g)",
    )
    add(
        "--faults",
        type=number(20, 86_400),
        default=180.0,
        metavar="SECONDS",
        help="of faults, a random mix (default: %(default)g)",
    )
    add(
        "--every",
        type=number(0.5, 600),
        default=5.0,
        metavar="SECONDS",
        help="between two samples (default: %(default)g)",
    )
    add(
        "--seed",
        type=whole(0, 2**53),
        default=random.SystemRandom().randrange(10**6),
        help="of the load and of the faults (default: a new one, which is told)",
    )
    add(
        "--out",
        type=Path,
        default=_OUT,
        metavar="DIR",
        help="where soak.csv, soak.png and the history of the faults go (default: %(default)s)",
    )
    parser.set_defaults(run=_run, module="bench.soak.run")


def _new(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help: str,
    description: str,
    exit_codes: str = _EXIT_CODES,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=help, description=description, epilog=exit_codes, allow_abbrev=False
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
