"""`python -m bench`: see `--help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.arguments import EXIT_CANNOT, add_commands
from client.api import NoAnswer

EXIT_INTERRUPTED = 130  # as the shell has it: 128 + SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Raises SystemExit for wrong arguments and for --help."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures Bourse. `COMMAND --help` says what each command takes.",
    )
    add_commands(parser.add_subparsers(metavar="COMMAND", required=True))
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except NoAnswer as error:
        print(f"the server cannot be reached: {error}", file=sys.stderr)
        return EXIT_CANNOT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
