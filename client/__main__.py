"""`python -m client`: reads the arguments, runs the command, says how it ended."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence

from client import report
from client.api import (
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    BadUrl,
    BaseUrl,
    BourseClient,
    NoAnswer,
)
from client.demo import Demo
from client.session import Session
from client.session_client import SessionSettings
from stack.numbers import number, whole

EXIT_OK = 0
EXIT_MISMATCH = 1
EXIT_UNREACHABLE = 2
EXIT_INTERRUPTED = 130  # as the shell has it: 128 + SIGINT

_EXIT_CODES = (
    "Exit code: 0 all was right; 1 something was not, or a request got no right answer; "
    "2 the server cannot be reached, or the arguments are wrong."
)

# Ten stocks come with the service.
_DEFAULT_STOCKS = ",".join(f"stock{number}" for number in range(1, 11))

Connect = Callable[[BaseUrl, float], BourseClient]


def main(argv: Sequence[str] | None = None, connect: Connect = BourseClient) -> int:
    """The exit code. Raises SystemExit for wrong arguments and for --help."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace, Connect], int] = arguments.run
    try:
        return run(arguments, connect)
    except NoAnswer as error:
        print(f"the server cannot be reached: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _demo(arguments: argparse.Namespace, connect: Connect) -> int:
    with connect(arguments.url, arguments.timeout) as client:
        mismatches = Demo(client, arguments.stock, sys.stdout).run()
    return EXIT_MISMATCH if mismatches else EXIT_OK


def _session(arguments: argparse.Namespace, connect: Connect) -> int:
    settings = SessionSettings(
        arguments.clients,
        arguments.requests,
        arguments.probability,
        arguments.stocks,
        arguments.seed,
        arguments.alone,
    )
    session = Session(settings, lambda: connect(arguments.url, arguments.timeout), sys.stderr)
    result = session.run()
    print(report.as_json(result) if arguments.json else report.as_text(result))
    return EXIT_OK if result.ok else EXIT_MISMATCH


def _parser() -> argparse.ArgumentParser:
    parser = _new_parser(
        argparse.ArgumentParser,
        prog="python -m client",
        description="The client of Bourse. `COMMAND --help` says what each command takes.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_session(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _new_parser(
        commands.add_parser,
        "demo",
        help="walk through every case of the API",
        description="Makes every kind of request and compares what it sees with the API. "
        "What it sells it buys back.",
    )
    _add_server(demo)
    demo.add_argument(
        "--stock", default="stock1", help="the stock to look up and trade (default: %(default)s)"
    )
    demo.set_defaults(run=_demo)


def _add_session(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    session = _new_parser(
        commands.add_parser,
        "session",
        help="look up and trade at random, then verify every order",
        description="Each client keeps one connection and looks random stocks up; after a "
        "lookup it trades with the given probability, each trade under a key of its own. At "
        "the end every order is looked up and compared. A request that a broken connection or "
        "a 503 interrupts is repeated; only one that stays without its right answer is a failure.",
    )
    _add_server(session)
    add = session.add_argument
    add(
        "--requests",
        type=whole(1, 1_000_000_000),
        default=100,
        metavar="N",
        help="lookups of each client (default: %(default)s)",
    )
    add(
        "--probability",
        type=number(0, 1),
        default=0.5,
        metavar="P",
        help="of a trade after a lookup: 0 to 1 (default: %(default)s)",
    )
    add(
        "--clients",
        type=whole(1, 1024),
        default=1,
        metavar="K",
        help="clients side by side: 1 to 1024 (default: %(default)s)",
    )
    add(
        "--stocks",
        type=_stocks,
        default=_DEFAULT_STOCKS,
        metavar="A,B,…",
        help="the stocks to choose from (default: stock1 to stock10)",
    )
    add(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(10**6),
        help="repeats the choices of an earlier run, whose report names it (default: a new one)",
    )
    add(
        "--alone",
        action="store_true",
        help="nobody else trades there meanwhile: check every quantity seen against the trades",
    )
    add("--json", action="store_true", help="report as JSON")
    session.set_defaults(run=_session)


def _new_parser(
    create: Callable[..., argparse.ArgumentParser], *names: str, **options: str
) -> argparse.ArgumentParser:
    return create(*names, **options, epilog=_EXIT_CODES, allow_abbrev=False)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=_url,
        default=DEFAULT_URL,
        help="where the service is, http or https, with a path if need be (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=number(0.001, 3600),
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="the longest wait for the server before trying again (default: %(default)g)",
    )


def _url(text: str) -> BaseUrl:
    try:
        return BaseUrl.parse(text)
    except BadUrl as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _stocks(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different names")
    return names


if __name__ == "__main__":
    sys.exit(main())
