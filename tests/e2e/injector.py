"""The fault injector as a person starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stack.parts import ROOT
from tests.e2e.stack import Stack


def command(stack: Stack, *words: str) -> list[str]:
    return [sys.executable, "-m", "faults", *words, "--project", stack.project]


def played(stack: Stack, schedule: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A whole run with these options; its history goes below the directory."""
    return subprocess.run(
        command(stack, "run", *schedule.split(), "--out", str(directory)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
