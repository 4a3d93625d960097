"""The README's tour, pasted line by line into a fresh stack, gives what is printed there.

It runs before every other test of the stack: tests/conftest.py.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator

from stack.parts import ROOT
from tests.e2e.stack import Stack

PORT = 26111


def tour() -> Iterator[tuple[str, str]]:
    """Each command of the tour and what the README prints below it."""
    text = (ROOT / "README.md").read_text("utf-8")
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed


def test_the_tour_gives_what_it_prints(stack: Stack) -> None:
    steps = list(tour())
    assert len(steps) >= 9
    for command, printed in steps:
        assert f"localhost:{PORT}" in command
        words = shlex.split(command.replace(f"localhost:{PORT}", f"127.0.0.1:{stack.port}"))
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == printed, command
