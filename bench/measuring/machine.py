"""What was measured on, and when."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker

from stack.parts import ROOT

_CPUS = Path("/proc/cpuinfo")


def describe(engine: docker.DockerClient) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "docker": engine.version()["Version"],
        "load_before": round(os.getloadavg()[0], 2),
    }


def line(machine: dict[str, Any]) -> str:
    return (
        f"{machine['date']}  commit {machine['commit']}  {machine['cores']} cores of "
        f"{machine['processor']}, {machine['kernel']}, Docker {machine['docker']}, load average "
        f"before {machine['load_before']}"
    )


def _processor() -> str:
    if _CPUS.exists():
        for entry in _CPUS.read_text("utf-8", "replace").splitlines():
            name, _, value = entry.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """With a `+` when the tree has changes of its own; empty where there is no git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],  # noqa: S607 - whichever git is there
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()
