"""Brings the stack up for a run, and afterwards leaves it as it was found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from faults.history import SERVICES

_UP_TIMEOUT_S = 900
_DOWN_TIMEOUT_S = 120


class ComposeFailed(Exception):
    """The message holds what it printed."""


class Compose:
    """The project's compose file, through the program `docker compose`.

    Args:
        root: the directory of compose.yaml.
    """

    def __init__(self, engine: docker.DockerClient, project: str, root: Path) -> None:
        self._engine = engine
        self._project = project
        self._root = root

    @contextmanager
    def up(self, say: Callable[[str], None]) -> Iterator[None]:
        """Everything runs inside; what did not run before does not run after, either.

        Raises:
            ComposeFailed: it cannot be brought up, or not be put back.
        """
        found = self._running()
        if set(SERVICES) <= found:
            yield
            return
        containers, volumes = bool(self._containers()), bool(self._volumes())
        say(f"starting the stack {self._project}; building its images can take minutes")
        try:
            self._compose("up", "--build", "--wait", timeout_s=_UP_TIMEOUT_S)
            yield
        finally:
            say(f"putting the stack {self._project} back as it was")
            if not containers:
                # The data was made by this run, unless there were volumes before.
                self._compose("down", *([] if volumes else ["--volumes"]))
            else:
                self._compose("stop", *sorted(set(SERVICES) - found))

    def _containers(self) -> list[Any]:
        found: list[Any] = self._engine.containers.list(all=True, filters=self._labelled())
        return found

    def _running(self) -> set[str]:
        return {
            container.labels["com.docker.compose.service"]
            for container in self._containers()
            if container.status == "running"
        }

    def _volumes(self) -> list[Any]:
        found: list[Any] = self._engine.volumes.list(filters=self._labelled())
        return found

    def _labelled(self) -> dict[str, str]:
        return {"label": f"com.docker.compose.project={self._project}"}

    def _compose(self, *arguments: str, timeout_s: float = _DOWN_TIMEOUT_S) -> None:
        run_compose(["-p", self._project, *arguments], self._root, timeout_s)


def run_compose(
    arguments: Sequence[str],
    root: Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What `docker compose` printed, run in the directory `root`.

    Args:
        environment: all of it; as this process has it without.

    Raises:
        ComposeFailed: it exits otherwise than with 0, or takes longer than `timeout_s`.
    """
    command = ["docker", "compose", "--progress", "plain", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and the name of a project
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # Ctrl-C is for the run, which ends this if need be
        )
    except FileNotFoundError:
        raise ComposeFailed("there is no program `docker` here") from None
    except subprocess.TimeoutExpired:
        raise ComposeFailed(f"{' '.join(command)} took more than {timeout_s:g} s") from None
    if done.returncode != 0:
        raise ComposeFailed(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
