"""`python -m bench.soak`: see `--help`. The command line, and how a run ends."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from client.api import NoAnswer
from stack.numbers import number, whole
from stack.parts import StackError

EXIT_FLAT = 0
EXIT_WRONG = 1
EXIT_CANNOT = 2
EXIT_INTERRUPTED = 130  # as the shell has it: 128 + SIGINT

_EXIT_CODES = (
    "Exit code: 0 all stayed flat and every promise held; 1 something did not; 2 it could not be "
    "run, or the arguments are wrong; 130 interrupted."
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Raises SystemExit for wrong arguments and for --help."""
    arguments = _parser().parse_args(argv)
    try:
        from bench.soak import run  # noqa: PLC0415 - `--help` does without what it needs
    except ImportError as error:
        print(f"{error}: `make venv` installs what measuring takes", file=sys.stderr)
        return EXIT_CANNOT
    settings = run.SoakSettings(
        steady_s=arguments.duration,
        faults_s=arguments.faults,
        rate=arguments.rate,
        every_s=arguments.every,
        seed=arguments.seed,
        directory=arguments.out,
    )
    try:
        return EXIT_FLAT if run.main(settings) else EXIT_WRONG
    except (StackError, NoAnswer, OSError) as error:
        print(f"python -m bench.soak: {error}", file=sys.stderr)
        return EXIT_CANNOT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="Starts a copy of the service in containers, and sends it lookups, trades and "
        "order lookups at a steady rate. Then `python -m faults` breaks it for some minutes, and "
        "the steady load goes on for a sixth of its time, two minutes at most. All the time the "
        "memory, open files, threads, write-ahead logs and databases of every container are "
        "sampled. Tells whether they stayed flat after the first sixth of the steady load, ten "
        "minutes at most. All of it is removed at the end, also on Ctrl-C.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
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
        default=Path("bench-runs"),
        metavar="DIR",
        help="where soak.csv, soak.png and the history of the faults go (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
