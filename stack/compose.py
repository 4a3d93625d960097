"""`docker compose` on one project: brought up, taken down, and left as it was found."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stack.containers import Containers
from stack.parts import HA_FILES, HA_SERVICES, ROOT, StackError

_BUILD_TIMEOUT_S = 900.0
_TIMEOUT_S = 300.0


class ComposeFailed(StackError):
    """The message holds what it printed."""


class Compose:
    """
    Args:
        files: what to read in place of compose.yaml.
        environment: all that it sees of the environment; by default, what this process has.
            With one, no file `.env` is read either: that is for the person who wrote it.
    """

    def __init__(
        self,
        project: str,
        files: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.project = project
        self._options = ["-p", project, *(word for file in files for word in ("-f", str(file)))]
        self._environment = environment
        if environment is not None:
            self._options += ["--env-file", os.devnull]

    def run(self, *words: str, timeout_s: float = _TIMEOUT_S) -> str:
        """What it printed.

        Raises:
            ComposeFailed: it exits otherwise than with 0, or takes longer than `timeout_s`.
        """
        command = ["docker", "compose", "--progress", "plain", *self._options, *words]
        try:
            done = subprocess.run(  # noqa: S603 - our own words, and the name of a project
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                start_new_session=True,  # Ctrl-C is for the tool, which ends this if need be
            )
        except FileNotFoundError:
            raise ComposeFailed("there is no program `docker` here") from None
        except subprocess.TimeoutExpired:
            raise ComposeFailed(f"{' '.join(command)} took more than {timeout_s:g} s") from None
        if done.returncode != 0:
            raise ComposeFailed(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def up(self, *options: str) -> None:
        """Builds what is missing or old, and waits until everything is healthy."""
        self.run("up", "--build", "--wait", *options, timeout_s=_BUILD_TIMEOUT_S)

    def build(self) -> None:
        self.run("build", "--quiet", timeout_s=_BUILD_TIMEOUT_S)

    def remove(self, *options: str) -> None:
        """Containers, networks and volumes; nobody waits for the containers to end well."""
        self.run("down", "--volumes", "--remove-orphans", "--timeout", "1", *options)


@contextmanager
def running(containers: Containers, say: Callable[[str], None]) -> Iterator[None]:
    """Everything runs inside; what did not run before does not run after, either.

    Raises:
        StackError: it cannot be brought up, or not be put back.
    """
    services = containers.services()
    compose = Compose(containers.project, _files_of(services))
    found = containers.running_services()
    if set(services) <= found:
        yield
        return
    had_containers, had_volumes = containers.has_containers(), containers.has_volumes()
    say(f"starting the stack {compose.project}; building its images can take minutes")
    try:
        compose.up()
        yield
    finally:
        say(f"putting the stack {compose.project} back as it was")
        if not had_containers:
            # The data was made by this run, unless there were volumes before.
            compose.run("down", *([] if had_volumes else ["--volumes"]))
        else:
            compose.run("stop", *sorted(set(services) - found))


def _files_of(services: Sequence[str]) -> tuple[Path, ...]:
    """None to name if compose.yaml has them all: then Compose reads what it reads by default."""
    if set(HA_SERVICES).isdisjoint(services):
        return ()
    return HA_FILES
