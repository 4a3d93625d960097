"""The containers of one compose project: found by their labels, and nobody else's touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import docker
from docker.errors import DockerException, NotFound

# On every container that the injector starts for itself; its value is the project.
HELPER_LABEL = "bourse.faults"

_GRACE_S = 20


def helper_labels(project: str) -> dict[str, str]:
    """Of the injector's own containers: not those that an image of the stack would give them."""
    not_of_compose = {"com.docker.compose.project": "", "com.docker.compose.service": ""}
    return {HELPER_LABEL: project, **not_of_compose}


class StackError(Exception):
    """What could not be done with the stack, and why."""


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
    except (DockerException, OSError) as error:
        raise StackError(f"{doing}: {error}") from error


class Stack:
    """Every method raises StackError. Each looks at the containers anew."""

    def __init__(self, engine: docker.DockerClient, project: str) -> None:
        self._engine = engine
        self.project = project

    def container(self, service: str) -> Any:
        """The first, where a service is scaled."""
        with _said(f"finding {service}"):
            found = self._engine.containers.list(all=True, filters=self._labelled(service))
        if not found:
            raise StackError(f"the project {self.project} has no container of {service}")
        return min(found, key=lambda container: container.name)

    def status(self, service: str) -> str:
        """running, paused, exited, …"""
        return str(self.container(service).status)

    def kill(self, service: str) -> None:
        """No restart policy brings it back: `start` does."""
        with _said(f"killing {service}"):
            self.container(service).kill()

    def stop(self, service: str) -> None:
        """SIGTERM, and SIGKILL after the time that the compose file gives it."""
        with _said(f"stopping {service}"):
            self.container(service).stop(timeout=_GRACE_S)

    def start(self, service: str) -> None:
        """Nothing happens to one that runs."""
        with _said(f"starting {service}"):
            self.container(service).start()

    def pause(self, service: str) -> None:
        """Freezes it; its connections stay open."""
        with _said(f"pausing {service}"):
            self.container(service).pause()

    def unpause(self, service: str) -> None:
        """Nothing happens to one that is not paused."""
        with _said(f"resuming {service}"):
            container = self.container(service)
            if container.status == "paused":
                container.unpause()

    def execute(self, service: str, *command: str) -> str:
        """What a command printed that ran inside."""
        with _said(f"running {' '.join(command)} in {service}"):
            code, output = self.container(service).exec_run(list(command))
        text = str(output.decode("utf-8", "replace")).strip()
        if code != 0:
            raise StackError(f"{' '.join(command)} in {service} exited with {code}: {text}")
        return text

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

    def urls(self) -> tuple[str, ...]:
        """Of every frontend, as this machine reaches it."""
        with _said("finding the frontends"):
            found = self._engine.containers.list(filters=self._labelled("frontend"))
        urls = []
        for container in sorted(found, key=lambda one: str(one.name)):
            ports = container.attrs["NetworkSettings"]["Ports"]
            published = [one for bound in ports.values() for one in bound or ()]
            if published:
                urls.append(_url(published[0]))
        if not urls:
            raise StackError("no frontend publishes a port: is one running?")
        return tuple(urls)

    def address(self, service: str) -> str | None:
        """On the inner network; None while it is not on it."""
        networks = self.container(service).attrs["NetworkSettings"]["Networks"]
        return networks.get(f"{self.project}_backend", {}).get("IPAddress") or None

    @cached_property
    def subnet(self) -> str:
        """Of the inner network, 172.20.0.0/16 say."""
        with _said("finding the inner network"):
            network = self._engine.networks.get(f"{self.project}_backend")
        return str(network.attrs["IPAM"]["Config"][0]["Subnet"])

    def remove_helpers(self) -> None:
        """Whatever an injector that was killed left."""
        with _said("removing helpers"):
            labelled = {"label": f"{HELPER_LABEL}={self.project}"}
            for container in self._engine.containers.list(all=True, filters=labelled):
                try:
                    container.remove(force=True)
                except NotFound:
                    continue  # it went by itself

    def _labelled(self, service: str) -> dict[str, list[str]]:
        return {
            "label": [
                f"com.docker.compose.project={self.project}",
                f"com.docker.compose.service={service}",
            ]
        }


def _url(published: dict[str, str]) -> str:
    host = published["HostIp"]
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{published['HostPort']}"
