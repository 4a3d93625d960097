"""One copy of the whole service in containers, for tests to use and to break."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import docker  # type: ignore[import-untyped]

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("frontend", "catalog", "order-1", "order-2", "order-3", "redis")
ORDER_SERVICES = ("order-1", "order-2", "order-3")
PYTHON_SERVICES = ("frontend", "catalog", *ORDER_SERVICES)

_HEALTHY_TIMEOUT_S = 90

Value = TypeVar("Value")


def wait_for(
    condition: Callable[[], Value],
    timeout_s: float,
    describe: str | Callable[[], object],
    interval_s: float = 0.1,
) -> Value:
    """Polls until `condition` returns something true, and returns that.

    Args:
        describe: what is waited for, or a function that tells the last state seen.

    Raises:
        AssertionError: it did not happen within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            state = describe() if callable(describe) else describe
            raise AssertionError(f"not within {timeout_s:g} s: {state}")
        time.sleep(interval_s)
    return value


class Stack:
    """A compose project of its own: its name, port, networks and volumes are nobody else's.

    Containers are named by their service (`order-2`), as in compose.yaml.

    Args:
        settings: what to set for the services, CACHE_SIZE say. All else is unset, whatever
            the shell that runs the tests has.
        frontends: how many of them, each on a port of its own, from `port` up.
        override: a compose file that says what is different from compose.yaml.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        frontends: int = 1,
        override: Path | None = None,
    ) -> None:
        prefix = os.environ.get("BOURSE_TEST_PREFIX", "bourse-test")
        self.project = f"{prefix}-{secrets.token_hex(4)}"
        self._frontends = frontends
        self.port = free_ports(frontends)
        last_port = self.port + frontends - 1
        published = str(self.port) if frontends == 1 else f"{self.port}-{last_port}"
        self.url = f"http://127.0.0.1:{self.port}"
        # A file `.env` is for the person who wrote it, not for tests.
        self._options = ["-p", self.project, "--env-file", os.devnull, "--progress", "plain"]
        if override is not None:
            self._options += ["-f", str(ROOT / "compose.yaml"), "-f", str(override)]
        self._environment = {
            # Nothing but what finding and using the engine takes.
            **{name: value for name, value in os.environ.items() if _is_for_docker(name)},
            "BOURSE_PORT": f"127.0.0.1:{published}",
            **(settings or {}),
        }

    @cached_property
    def _docker(self) -> Any:
        return docker.from_env()

    # ------------------------------------------------------------ the whole

    def up(self) -> None:
        """Builds, starts and waits until every part is healthy."""
        try:
            scale = ["--scale", f"frontend={self._frontends}"]
            self.compose("up", "--build", "--wait", "--wait-timeout", "300", *scale, timeout_s=900)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def down(self) -> None:
        """Removes every trace: containers, networks, volumes and image names."""
        try:
            self.compose("down", "--volumes", "--remove-orphans", "--rmi", "local", "-t", "1")
        finally:
            self._docker.close()

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Runs `docker compose` on this project. Raises AssertionError with what it printed."""
        done = subprocess.run(
            ["docker", "compose", *self._options, *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}"
            raise AssertionError(f"docker compose {' '.join(arguments)} failed:\n{said}")
        return done.stdout

    def heal(self) -> None:
        """Brings every part back, on every network, and waits until each is healthy."""
        for service in SERVICES:
            container = self.container(service)
            if container.status == "paused":
                container.unpause()
            self.reconnect(service)
            container.start()  # does nothing to one that runs
        for service in SERVICES:
            self.wait_healthy(service)
        wait_for(self.is_ready, 30, lambda: f"{self.url}/readyz says ready\n{self.logs()}")

    def logs(self, since_s: float | None = None, lines: int = 200) -> str:
        """The last lines that each part logged, of the last `since_s` seconds if given."""
        since = [] if since_s is None else ["--since", f"{since_s:.3f}s"]
        said = self.compose("logs", "--no-color", "--timestamps", "--tail", str(lines), *since)
        return said.replace("\x1b[2K", "")  # which some versions print even so

    # ------------------------------------------------------------ one part

    def container(self, service: str) -> Any:
        """The SDK's container of a service, its state read just now."""
        found = self.containers(service)
        assert len(found) == 1, f"{len(found)} containers of {service}"
        return found[0]

    def containers(self, service: str) -> list[Any]:
        """All of them, where a service is scaled."""
        found: list[Any] = self._docker.containers.list(
            all=True,
            filters={
                "label": [
                    f"com.docker.compose.project={self.project}",
                    f"com.docker.compose.service={service}",
                ]
            },
        )
        return found

    def kill(self, service: str, signal: str = "SIGKILL") -> None:
        """Kills it where it stands. No restart policy brings it back: `start` does."""
        self.container(service).kill(signal)

    def start(self, service: str) -> None:
        self.container(service).start()

    def stop(self, service: str) -> int:
        """Stops it as `docker stop` does, within its grace period; returns its exit code."""
        container = self.container(service)
        container.stop()
        return int(container.wait()["StatusCode"])

    def pause(self, service: str) -> None:
        """Freezes it; its connections stay open."""
        self.container(service).pause()

    def unpause(self, service: str) -> None:
        self.container(service).unpause()

    def execute(self, service: str, *command: str) -> str:
        """What a command printed that ran inside. Raises AssertionError if it failed."""
        code, output = self.container(service).exec_run(list(command))
        text = str(output.decode())
        assert code == 0, f"{command} in {service} exited with {code}: {text}"
        return text

    def cut_off(self, service: str, network: str = "backend") -> None:
        """Takes it off a network: it neither reaches nor is reached."""
        self.network(network).disconnect(self.container(service))

    def reconnect(self, service: str, network: str = "backend") -> None:
        """Puts it back under its name; nothing happens if it never left."""
        container = self.container(service)
        wanted = self.network(network)
        if wanted.name not in container.attrs["NetworkSettings"]["Networks"]:
            wanted.connect(container, aliases=[service, container.name])

    def wipe(self, service: str) -> None:
        """Empties the volume of a service that does not run."""
        container = self.container(service)
        assert container.status != "running", f"{service} uses its volume"
        [mount] = [one for one in container.attrs["Mounts"] if one["Destination"] == "/data"]
        self._docker.containers.run(
            container.image,
            ["sh", "-c", "rm -rf /data/* /data/.[!.]*"],
            volumes={mount["Name"]: {"bind": "/data"}},
            network_mode="none",
            remove=True,
        )

    def remove_volume(self, name: str) -> None:
        """Of parts that were removed."""
        self._docker.volumes.get(f"{self.project}_{name}").remove()

    def network(self, name: str) -> Any:
        return self._docker.networks.get(f"{self.project}_{name}")

    def health(self, service: str) -> str:
        state = self.container(service).attrs["State"]
        return str(state.get("Health", {}).get("Status", "none")) if state["Running"] else "down"

    def passes_its_check(self, service: str) -> bool:
        """Runs the container's own health check now, not when the engine would next do so."""
        container = self.container(service)
        kind, *command = container.attrs["Config"]["Healthcheck"]["Test"]
        shell = ["sh", "-c"] if kind == "CMD-SHELL" else []
        try:
            return bool(container.exec_run([*shell, *command]).exit_code == 0)
        except docker.errors.APIError:
            return False  # nothing runs in a container that is down or paused

    def wait_healthy(self, service: str, timeout_s: float = _HEALTHY_TIMEOUT_S) -> None:
        # The engine calls a container unhealthy that was paused, until its next regular check.
        wait_for(
            lambda: self.health(service) == "healthy" or self.passes_its_check(service),
            timeout_s,
            lambda: f"{service} healthy, it is {self.health(service)}\n{self.logs(lines=50)}",
        )

    def run_image(self, service: str, environment: Mapping[str, str]) -> tuple[int, str]:
        """Runs a service's image by itself, without a network; its exit code and stderr."""
        container = self._docker.containers.run(
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


# Straight to the stack, whatever proxy the machine is set to use.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _read(answer: Any) -> tuple[int, dict[str, str], Any]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    body = answer.read()
    is_json = headers.get("content-type", "").startswith("application/json")
    return answer.status, headers, json.loads(body) if is_json else body.decode()


def _is_for_docker(name: str) -> bool:
    return name in {"PATH", "HOME", "XDG_RUNTIME_DIR"} or name.startswith(("DOCKER_", "BUILDKIT_"))
