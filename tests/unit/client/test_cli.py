"""The command line itself: arguments, exit codes, the progress bar."""

from __future__ import annotations

import functools
import io
import subprocess
import sys

import pytest

from client import progress
from client.__main__ import main
from client.api import BourseClient
from client.progress import progress_bar
from tests.unit.client.fake import FakeBourse

impatient = functools.partial(BourseClient, sleep=lambda _seconds: None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("argv", [["--help"], ["demo", "--help"], ["session", "--help"]])
def test_there_is_help_on_every_level(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(argv)
    assert raised.value.code == 0
    assert "Exit code: 0 all was right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("session --probability 1.1", "'1.1' is not a number from 0 to 1"),
        ("session --probability nan", "'nan' is not a number from 0 to 1"),
        ("session --requests 0", "'0' is not a whole number from 1 to"),
        ("session --requests many", "'many' is not a whole number from 1 to"),
        ("session --clients 1025", "'1025' is not a whole number from 1 to 1024"),
        ("session --timeout 0", "'0' is not a number from"),
        ("session --stocks a,,b", "'a,,b' is not a list of different names"),
        ("session --stocks a,a", "'a,a' is not a list of different names"),
        ("demo --url localhost:26111", "must start with http:// or https://"),
        ("demo --requests 5", "unrecognized arguments"),
        ("", "COMMAND"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments.split())
    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "session"])
def test_a_server_that_is_not_there_is_exit_code_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeBourse() as gone:
        url = gone.url
    assert main([command, "--url", url], impatient) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"the server cannot be reached: cannot connect to {url}: ")


def test_an_interrupt_is_exit_code_130() -> None:
    def interrupted(_url: object, _timeout_s: float) -> BourseClient:
        raise KeyboardInterrupt

    assert main(["demo"], interrupted) == 130


def test_the_bar_is_for_terminals() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with progress_bar("trading", 10, stream) as show:
            show(4)
            show(10)
    assert "trading" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
    assert file.getvalue() == ""


def test_without_tqdm_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "tqdm", None)
    terminal = Terminal()
    with progress_bar("trading", 10, terminal) as show:
        show(10)
    assert terminal.getvalue() == ""


def test_the_standard_library_is_enough() -> None:
    """In a process of its own, where nothing else can be imported."""
    script = """
import sys
for name in ("tqdm", "grpc", "flask", "redis", "pydantic", "common", "frontend", "proto"):
    sys.modules[name] = None  # its import fails
from client.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    with FakeBourse() as bourse:
        argv = ["session", "--url", bourse.url, "--requests", "3", "--clients", "2"]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "result: ok" in done.stdout
