"""One copy of the whole service in containers, for tests to use and to break."""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]

from stack.compose import Compose, ComposeFailed
from stack.containers import Containers
from stack.parts import CATALOGS, DATABASE_SERVICES, INNER_NETWORKS, ONE_SHOTS, ORDER_SERVICES, ROOT
from stack.settings import for_docker
from stack.waiting import wait_for
from tests.support.ports import free_ports

PYTHON_SERVICES = ("frontend", "catalog", *ORDER_SERVICES)

_HEALTHY_TIMEOUT_S = 90


class Stack(Containers):
    """A compose project of its own: its name, port, networks and volumes are nobody else's.

    Args:
        settings: what to set for the services, CACHE_SIZE say. All else is unset, whatever
            the shell that runs the tests has.
        frontends: how many of them, behind the one port of the edge.
        overrides: compose files that say what is different from compose.yaml.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        frontends: int = 2,
        overrides: Sequence[Path] = (),
    ) -> None:
        prefix = os.environ.get("BOURSE_TEST_PREFIX", "bourse-test")
        super().__init__(docker.from_env(), f"{prefix}-{secrets.token_hex(4)}")
        self._frontends = frontends
        self.port = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            **for_docker(),
            "BOURSE_PORT": f"127.0.0.1:{self.port}",
            **(settings or {}),
        }
        files = [ROOT / "compose.yaml", *overrides] if overrides else []
        self._compose = Compose(self.project, files, environment)

    # ------------------------------------------------------------ the whole

    def up(self) -> None:
        """Builds, starts and waits until every part is healthy."""
        try:
            self._compose.up("--wait-timeout", "300", "--scale", f"frontend={self._frontends}")
        except ComposeFailed as error:
            raise ComposeFailed(f"{error}\n{self.logs()}") from None

    def down(self) -> None:
        """Removes every trace: containers, networks, volumes and image names."""
        try:
            self._compose.remove("--rmi", "local")
        finally:
            self._engine.close()

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Runs `docker compose` on this project. Raises ComposeFailed with what it printed."""
        return self._compose.run(*arguments, timeout_s=timeout_s)

    def heal(self) -> None:
        """Brings every part back, on every network, and waits until each is healthy."""
        if self._is_whole() and self.is_ready():
            return
        for part in self.parts():
            container = self.container(part)
            if container.status == "paused":
                container.unpause()
            for network in self._networks_of(part):
                self.reconnect(part, network)
            container.start()  # does nothing to one that runs
        for part in self.parts():
            self.wait_healthy(part)
        wait_for(self.is_ready, 30, lambda: f"{self.url}/readyz says ready\n{self.logs()}")

    def _is_whole(self) -> bool:
        """One question to the engine instead of fifty: most tests leave everything as it was."""
        found = self._engine.containers.list(
            all=True, sparse=True, filters={"label": f"com.docker.compose.project={self.project}"}
        )
        return all(
            one.attrs["State"] == "running"
            and "(healthy)" in one.attrs["Status"]
            and {f"{self.project}_{name}" for name in self._networks_of(_service(one))}
            <= set(one.attrs["NetworkSettings"]["Networks"])
            for one in found
            if _service(one) not in ONE_SHOTS
        )

    def _networks_of(self, part: str) -> tuple[str, ...]:
        """The inner networks of a part, whether or not it is on them now."""
        if part in DATABASE_SERVICES:
            return INNER_NETWORKS[1:]
        if part in CATALOGS and self.containers(CATALOGS[1]):
            return INNER_NETWORKS
        return INNER_NETWORKS[:1]

    def logs(self, since_s: float | None = None, lines: int = 200) -> str:
        """The last lines that each part logged, of the last `since_s` seconds if given."""
        since = [] if since_s is None else ["--since", f"{since_s:.3f}s"]
        said = self.compose("logs", "--no-color", "--timestamps", "--tail", str(lines), *since)
        return said.replace("\x1b[2K", "")  # which some versions print even so

    # ------------------------------------------------------------ one part

    def cut_off(self, service: str, network: str = "backend") -> None:
        """Takes it off a network: it neither reaches nor is reached."""
        self.network(network).disconnect(self.container(service))

    def reconnect(self, service: str, network: str = "backend") -> None:
        """Puts it back under its name; nothing happens if it never left."""
        container = self.container(service)
        wanted = self.network(network)
        if wanted.name not in container.attrs["NetworkSettings"]["Networks"]:
            service = container.labels["com.docker.compose.service"]
            wanted.connect(container, aliases=[service, container.name])

    def remove_volume(self, name: str) -> None:
        """Of parts that were removed."""
        self._engine.volumes.get(f"{self.project}_{name}").remove()

    def network(self, name: str) -> Any:
        return self._engine.networks.get(f"{self.project}_{name}")

    def health(self, service: str) -> str:
        state = self.container(service).attrs["State"]
        return str(state.get("Health", {}).get("Status", "none")) if state["Running"] else "down"

    def wait_healthy(self, service: str, timeout_s: float = _HEALTHY_TIMEOUT_S) -> None:
        # The engine calls a container unhealthy that was paused, until its next regular check.
        wait_for(
            lambda: self.health(service) == "healthy" or self.passes_its_check(service),
            timeout_s,
            lambda: f"{service} healthy, it is {self.health(service)}\n{self.logs(lines=50)}",
        )

    def run_image(self, service: str, environment: Mapping[str, str]) -> tuple[int, str]:
        """Runs a service's image by itself, without a network; its exit code and stderr."""
        container = self._engine.containers.run(
            self.container(service).image,
            environment=dict(environment),
            network_mode="none",
            detach=True,
        )
        try:
            code = int(container.wait(timeout=60)["StatusCode"])
            return code, str(container.logs(stdout=False).decode())
        finally:
            container.remove(force=True)

    # ------------------------------------------------------------ HTTP

    def get(self, path: str, timeout_s: float = 12) -> tuple[int, dict[str, str], Any]:
        """Status, headers (names in small letters) and body, read as JSON where it is that."""
        return self.request("GET", path, timeout_s=timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 12,
    ) -> tuple[int, dict[str, str], Any]:
        """One request on its own connection; a `body` is sent as JSON."""
        data = None if body is None else json.dumps(body).encode()
        typed = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(  # noqa: S310 - our own address
            self.url + path, data, {**typed, **(headers or {})}, method=method
        )
        try:
            with _OPENER.open(request, timeout=timeout_s) as answer:
                return _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _read(error)

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False


def _service(listed: Any) -> str:
    """Of a container in a sparse list."""
    return str(listed.attrs["Labels"]["com.docker.compose.service"])


# Straight to the stack, whatever proxy the machine is set to use.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _read(answer: Any) -> tuple[int, dict[str, str], Any]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    body = answer.read()
    is_json = headers.get("content-type", "").startswith("application/json")
    return answer.status, headers, json.loads(body) if is_json else body.decode()
