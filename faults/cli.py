"""The command line: reads the arguments, builds the parts, says how the run ended."""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from faults.checker import judge
from faults.history import BadHistory, read_history
from faults.reporting.figures import figures_of
from faults.reporting.page import write_page
from faults.reporting.text import as_text
from faults.run import RunFailed, RunSettings, heal, run
from faults.schedule import Strike, by_hand, random_mix
from faults.targets import BadSchedule, catalogue, is_replicated, parse, refuse_missing
from stack.compose import running
from stack.containers import Containers, connect
from stack.network import Network
from stack.numbers import number, whole
from stack.parts import StackError
from stack.terminal import Interrupts, Progress, say_at_once

EXIT_HELD = 0
EXIT_BROKEN = 1
EXIT_CANNOT = 2
EXIT_INTERRUPTED = 130  # as the shell has it: 128 + SIGINT

DEFAULT_PROJECT = "bourse"
DEFAULT_DURATION_S = 120.0
DEFAULT_EVERY_S = 10.0

_EXIT_CODES = (
    "Exit code: 0 every promise held; 1 one was broken, or could not be judged; 2 the run could "
    "not be made, or the arguments are wrong; 130 interrupted."
)
_COMMANDS = ("run", "check", "heal")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Raises SystemExit for wrong arguments and for --help."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in (*_COMMANDS, "-h", "--help"):
        words.insert(0, "run")
    arguments = _parser().parse_args(words)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except (BadHistory, BadSchedule, RunFailed, StackError, OSError) as error:
        print(f"python -m faults: {error}", file=sys.stderr)
        return EXIT_CANNOT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    _schedule(arguments, replicated=False)  # what is wrong is said before anything is started
    progress = Progress(sys.stderr)
    engine = connect()
    containers = Containers(engine, arguments.project)
    with Interrupts(say_at_once) as interrupts, running(containers, progress.say):
        parts = containers.parts()
        refuse_missing({parse(text)[1] for text in arguments.fault}, parts)
        settings = _settings(arguments, _schedule(arguments, replicated=is_replicated(parts)))
        progress.say(
            f"{len(settings.strikes)} strikes in {arguments.duration:g} s; "
            f"again by: {settings.command}"
        )
        history = run(engine, containers, settings, progress, interrupts)
    progress.say("judging the history")
    return _judge(history, history.with_name("report.html"))


def _schedule(arguments: argparse.Namespace, *, replicated: bool) -> tuple[Strike, ...]:
    """Raises BadSchedule."""
    if not arguments.fault:
        return random_mix(arguments.seed, arguments.duration, replicated=replicated)
    lasts_s = arguments.lasts or arguments.every / 2
    return by_hand(arguments.fault, arguments.every, lasts_s, arguments.duration, arguments.seed)


def _settings(arguments: argparse.Namespace, strikes: Sequence[Strike]) -> RunSettings:
    return RunSettings(
        strikes=strikes,
        duration_s=arguments.duration,
        clients=arguments.clients,
        rate=arguments.rate,
        seed=arguments.seed,
        has_keys=not arguments.no_keys,
        command=_again(arguments),
        settle_s=arguments.settle,
        directory=arguments.out,
    )


def _again(arguments: argparse.Namespace) -> str:
    """The command that repeats the same faults under the same load."""
    words = [".venv/bin/python", "-m", "faults", "run", "--seed", str(arguments.seed)]
    for fault in arguments.fault:
        words += ["--fault", fault]
    if arguments.fault:
        words += ["--every", f"{arguments.every:g}"]
        words += ["--lasts", f"{arguments.lasts:g}"] if arguments.lasts else []
    words += ["--for", f"{arguments.duration:g}", "--clients", str(arguments.clients)]
    words += ["--rate", f"{arguments.rate:g}"]
    words += ["--no-keys"] if arguments.no_keys else []
    if arguments.project != DEFAULT_PROJECT:
        words += ["--project", arguments.project]
    return shlex.join(words)


def _check(arguments: argparse.Namespace) -> int:
    return _judge(arguments.history, arguments.page)


def _judge(history: Path, page: Path | None) -> int:
    records = list(read_history(history))
    judgement, figures = judge(records), figures_of(records)
    print(as_text(figures, judgement, colour=sys.stdout.isatty()))
    if page is not None:
        write_page(page, figures, judgement)
        print(f"history {history}\npage    {page}", file=sys.stderr)
    if figures.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_HELD if judgement.held and not figures.problems else EXIT_BROKEN


def _heal(arguments: argparse.Namespace) -> int:
    engine = connect()
    containers = Containers(engine, arguments.project)
    say = Progress(sys.stderr).say
    with Interrupts(say_at_once) as interrupts:
        interrupts.not_any_more()
        problems = heal(containers, Network(engine, containers), say)
    return EXIT_BROKEN if problems else EXIT_HELD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faults",
        description="Breaks the parts of a running Bourse under load, and judges from every "
        "answer whether its promises held. Without a command: run.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_check(commands)
    _add_heal(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="break, watch and judge",
        description="Trades on the stack of this machine while its containers are killed, "
        "paused, cut off and more. Only that stack's own containers are touched, and all is "
        "healed at the end, also on Ctrl-C. It is started if it is down, and then left down. "
        "The trades stay in its books.",
        epilog=f"{catalogue()}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    seconds = partial(add, type=number(0.1, 86_400), metavar="SECONDS")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT:TARGET",
        help="strike this, again and again; several take turns (default: a random mix)",
    )
    seconds(
        "--every",
        default=DEFAULT_EVERY_S,
        help="between the strikes of --fault (default: %(default)g)",
    )
    seconds("--lasts", help="how long each of them stays broken (default: half of --every)")
    seconds(
        "--for",
        dest="duration",
        default=DEFAULT_DURATION_S,
        help="how long to trade (default: %(default)g)",
    )
    add(
        "--seed",
        type=whole(0, 2**53),
        default=random.SystemRandom().randrange(10**6),
        help="of the random mix and of the load; the report names it (default: a new one)",
    )
    add(
        "--clients",
        type=whole(1, 256),
        default=8,
        metavar="N",
        help="side by side: 1 to 256 (default: %(default)s)",
    )
    add(
        "--rate",
        type=number(0, 100_000),
        default=200.0,
        metavar="N",
        help="requests a second of all clients together; 0: flat out (default: %(default)g)",
    )
    add(
        "--no-keys",
        action="store_true",
        help="the clients send no Idempotency-Key and repeat nothing",
    )
    seconds(
        "--settle",
        default=60.0,
        help="how long to go on asking for unknown outcomes at the end (default: %(default)g)",
    )
    add(
        "--out",
        type=Path,
        default=Path("faults-runs"),
        metavar="DIR",
        help="where each run gets a directory with its history and page (default: %(default)s)",
    )
    _add_project(parser)
    parser.set_defaults(command=_run)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        help="judge a history by itself",
        description="Judges the history of an earlier run; needs neither the stack nor Docker.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("history", type=Path, metavar="HISTORY", help="the file history.jsonl")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the HTML page here, too")
    parser.set_defaults(command=_check)


def _add_heal(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "heal",
        help="undo what a run broke that was itself killed",
        description="Unpauses and starts every container of the stack, gives it its network "
        "back, and removes the injector's own helpers.",
        allow_abbrev=False,
    )
    _add_project(parser)
    parser.set_defaults(command=_heal)


def _add_project(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--project",
        default=DEFAULT_PROJECT,
        metavar="NAME",
        help="the compose project (default: %(default)s)",
    )
