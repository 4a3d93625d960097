"""The containers of one compose project: found by their labels, and nobody else's touched."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound

from stack.parts import HA_SERVICES, INNER_NETWORKS, SERVICES, StackError

# On every container that the injector starts for itself; its value is the project.
HELPER_LABEL = "bourse.faults"

_GRACE_S = 20
_COMMAND_TIMEOUT_S = 120

_FREEZE_ATTEMPTS = 3
_NOT_FROZEN = "unable to freeze"


def helper_labels(project: str) -> dict[str, str]:
    """The labels of the injector's own containers. They replace those of the stack's images."""
    not_of_compose = {"com.docker.compose.project": "", "com.docker.compose.service": ""}
    return {HELPER_LABEL: project, **not_of_compose}


def connect() -> docker.DockerClient:
    """Raises StackError."""
    try:
        engine = docker.from_env(timeout=60)
        engine.ping()
    except (DockerException, OSError) as error:
        raise StackError(f"no Docker engine answers: {error}") from error
    return engine


@contextmanager
def _said(doing: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"{doing}: {error}") from error


class Containers:
    """Every method raises StackError. Each looks at the containers anew.

    A container is named by its service (`order-2`), as in compose.yaml. Where several containers
    are of one service, `frontend-2` is the second, and `frontend` the first of them.
    """

    def __init__(self, engine: docker.DockerClient, project: str) -> None:
        self._engine = engine
        self.project = project

    def container(self, name: str) -> Any:
        """The container, with its state as of now."""
        found = self.containers(name) or self._numbered(name)
        if not found:
            raise StackError(f"the project {self.project} has no container of {name}")
        return found[0]

    def containers(self, service: str) -> list[Any]:
        """All of a service, in the order of their numbers."""
        with _said(f"finding {service}"):
            found = self._engine.containers.list(
                all=True, filters=self._labelled(service), ignore_removed=True
            )
        return sorted(found, key=_number)

    def _numbered(self, name: str) -> list[Any]:
        service, _, number = name.rpartition("-")
        if not service or not number.isdecimal():
            return []
        return [one for one in self.containers(service) if _number(one) == int(number)]

    def services(self) -> tuple[str, ...]:
        """What belongs to the project: those of compose.ha.yaml too, if one of them is there."""
        found = {container.labels["com.docker.compose.service"] for container in self._all()}
        return SERVICES if found.isdisjoint(HA_SERVICES) else (*SERVICES, *HA_SERVICES)

    def parts(self) -> tuple[str, ...]:
        """The name of every container: edge, frontend-1, frontend-2, catalog, …"""
        frontends = [f"frontend-{_number(one)}" for one in self.containers("frontend")]
        others = [service for service in self.services() if service != "frontend"]
        return (others[0], *frontends, *others[1:])

    def passes_its_check(self, name: str) -> bool:
        """Runs the container's own health check now, without waiting for the engine's next one.

        A container that is down or paused does not pass.
        """
        container = self.container(name)
        kind, *command = container.attrs["Config"]["Healthcheck"]["Test"]
        shell = ["sh", "-c"] if kind == "CMD-SHELL" else []
        try:
            return bool(container.exec_run([*shell, *command]).exit_code == 0)
        except APIError:
            return False

    def running_services(self) -> set[str]:
        """Those of which every container runs."""
        states: dict[str, set[str]] = {}
        for container in self._all():
            service = container.labels["com.docker.compose.service"]
            states.setdefault(service, set()).add(container.status)
        return {service for service, found in states.items() if found == {"running"}}

    def has_containers(self) -> bool:
        return bool(self._all())

    def has_volumes(self) -> bool:
        with _said("finding volumes"):
            return bool(self._engine.volumes.list(filters=self._labelled()))

    def status(self, service: str) -> str:
        """running, paused, exited, …"""
        return str(self.container(service).status)

    def kill(self, service: str) -> None:
        """No restart policy brings it back: `start` does."""
        with _said(f"killing {service}"):
            self.container(service).kill("SIGKILL")

    def stop(self, service: str) -> int:
        """SIGTERM, and SIGKILL after the time that the compose file gives it; its exit code."""
        with _said(f"stopping {service}"):
            container = self.container(service)
            container.stop(timeout=_GRACE_S)
            return int(container.wait()["StatusCode"])

    def start(self, service: str) -> None:
        """Nothing happens to one that runs."""
        with _said(f"starting {service}"):
            self.container(service).start()

    def pause(self, service: str) -> None:
        """Freezes it; its connections stay open."""
        with _said(f"pausing {service}"):
            for failures in count(1):
                try:
                    self.container(service).pause()
                    return
                except APIError as error:
                    # On a busy machine the kernel can take too long to freeze every process.
                    if _NOT_FROZEN not in str(error) or failures == _FREEZE_ATTEMPTS:
                        raise

    def unpause(self, service: str) -> None:
        """Nothing happens to one that is not paused."""
        with _said(f"resuming {service}"):
            container = self.container(service)
            if container.status == "paused":
                container.unpause()

    def execute(self, service: str, *command: str) -> str:
        """What a command printed that ran inside. It must exit with 0."""
        code, text = self.attempt(service, *command)
        if code != 0:
            raise StackError(f"{' '.join(command)} in {service} exited with {code}: {text}")
        return text

    def attempt(self, service: str, *command: str, user: str = "") -> tuple[int, str]:
        """The exit code of a command inside, and what it printed.

        By `docker exec`: the Python package reads past the buffer of its HTTP answer, and loses
        what was printed when that arrives together with the answer's head.
        """
        options = ["--user", user] if user else []
        container = self.container(service)
        with _said(f"running {' '.join(command)} in {service}"):
            done = subprocess.run(  # noqa: S603 - our own words, and the id of a container
                ["docker", "exec", *options, container.id, *command],  # noqa: S607 - on the PATH
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
                start_new_session=True,  # Ctrl-C is for the tool, which goes on to heal
            )
        return done.returncode, done.stdout.strip()

    def wipe(self, service: str) -> None:
        """Empties the volume of a service that does not run."""
        container = self.container(service)
        if container.status == "running":
            raise StackError(f"{service} runs on the volume that was to be wiped")
        [mount] = [one for one in container.attrs["Mounts"] if one["Destination"] == "/data"]
        with _said(f"wiping the volume of {service}"):
            self._engine.containers.run(
                container.attrs["Image"],
                ["sh", "-c", "rm -rf /data/* /data/.[!.]*"],
                volumes={mount["Name"]: {"bind": "/data"}},
                labels=helper_labels(self.project),
                network_mode="none",
                remove=True,
            )

    def urls(self, service: str) -> tuple[str, ...]:
        """Of every container of a service, as this machine reaches it."""
        urls = []
        for container in self.containers(service):
            ports = container.attrs["NetworkSettings"]["Ports"]
            published = [one for bound in ports.values() for one in bound or ()]
            if published:
                urls.append(_url(published[0]))
        if not urls:
            raise StackError(f"no container of {service} publishes a port: is one running?")
        return tuple(urls)

    def address(self, service: str) -> str | None:
        """On the inner network; None while it is not on it."""
        networks = self.container(service).attrs["NetworkSettings"]["Networks"]
        return networks.get(f"{self.project}_backend", {}).get("IPAddress") or None

    def subnets(self, service: str) -> list[str]:
        """Of each inner network that it is on, 172.20.0.0/16 say."""
        joined = self.container(service).attrs["NetworkSettings"]["Networks"]
        names = [f"{self.project}_{name}" for name in INNER_NETWORKS]
        with _said(f"finding the inner networks of {service}"):
            networks = [self._engine.networks.get(name) for name in names if name in joined]
        return [str(network.attrs["IPAM"]["Config"][0]["Subnet"]) for network in networks]

    def remove_helpers(self) -> None:
        """Removes the helpers that a killed injector left."""
        with _said("removing helpers"):
            labelled = {"label": f"{HELPER_LABEL}={self.project}"}
            for container in self._engine.containers.list(
                all=True, filters=labelled, ignore_removed=True
            ):
                try:
                    container.remove(force=True)
                except NotFound:
                    continue  # it went by itself

    def _all(self) -> list[Any]:
        with _said(f"finding the containers of {self.project}"):
            found: list[Any] = self._engine.containers.list(
                all=True, filters=self._labelled(), ignore_removed=True
            )
        return found

    def _labelled(self, service: str = "") -> dict[str, list[str]]:
        labels = [f"com.docker.compose.project={self.project}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        return {"label": labels}


def _number(container: Any) -> int:
    """Among the containers of its service, counted from 1."""
    return int(container.labels.get("com.docker.compose.container-number", 1))


def _url(published: dict[str, str]) -> str:
    host = published["HostIp"]
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{published['HostPort']}"
