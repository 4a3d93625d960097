"""`make up` says what is too old, before anything fails for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "stack" / "versions.sh"

DOCKER = """#!/bin/sh
case "$*" in
    "compose version --short") echo "{compose}" ;;
    "version --format"*) echo "{engine}" ;;
    "buildx version") exit {buildx} ;;
esac
"""


def checked(
    directory: Path, compose: str = "2.26.1-4", engine: str = "26.1.5+dfsg1", buildx: int = 0
) -> tuple[int, str]:
    docker = directory / "docker"
    docker.write_text(DOCKER.format(compose=compose, engine=engine, buildx=buildx))
    docker.chmod(0o755)
    done = subprocess.run(
        [SCRIPT],
        env={"PATH": f"{directory}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("compose", ["2.20.2", "v2.20.10", "2.26.1-4", "5.0.0"])
def test_what_is_recent_enough_passes(tmp_path: Path, compose: str) -> None:
    assert checked(tmp_path, compose=compose) == (0, "")
    assert checked(tmp_path, compose=compose, engine="25.0.0") == (0, "")


def test_what_is_too_old_is_named(tmp_path: Path) -> None:
    assert checked(tmp_path, compose="2.17.3") == (
        1,
        "Docker Compose 2.17.3 is too old: 2.20.2 or newer is needed\n",
    )
    assert checked(tmp_path, engine="24.0.7") == (
        1,
        "Docker Engine 24.0.7 is too old: 25.0 or newer is needed\n",
    )
    assert checked(tmp_path, buildx=1) == (
        1,
        "BuildKit is missing: install Docker's plugin buildx\n",
    )
