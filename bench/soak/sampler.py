"""Samples every container of a running stack, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from docker.errors import DockerException

from bench.copies.meter import Stats, container_stats
from bench.soak import inside
from bench.soak.samples import Moment, Sample
from stack.containers import Containers
from stack.observer import json_lines, remove
from stack.parts import StackError

_SCRIPT = Path(inside.__file__)
_MIB = 2**20
# Empty: the helper has the catalog's image, but is no part of the stack.
_LABELS = {"com.docker.compose.project": "", "com.docker.compose.service": ""}


class Sampler:
    """Inside `with`, a sample of each container is written every so often.

    Args:
        moment: says what time it is in the run.
        write: gets each sample, from a thread of the sampler.
    """

    def __init__(
        self,
        engine: Any,
        containers: Containers,
        every_s: float,
        moment: Callable[[], Moment],
        write: Callable[[Sample], None],
    ) -> None:
        self._engine = engine
        self._project = containers.project
        self._containers = {name: containers.container(name) for name in containers.parts()}
        self._every_s = every_s
        self._moment = moment
        self._write = write
        self._helper: Any = None
        self._failure: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)

    def check(self) -> None:
        """Raises StackError if it cannot go on."""
        if self._failure is not None:
            raise StackError(f"the sampling ended: {self._failure}") from self._failure

    def __enter__(self) -> Self:
        self._helper = self._start()
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        remove(self._helper)
        self._thread.join(10)

    def _start(self) -> Any:
        """A container that sees all processes and, read-only, the volumes; it has no network."""
        ids = [container.id for container in self._containers.values()]
        try:
            return self._engine.containers.run(
                self._containers["catalog"].attrs["Image"],
                ["python", "-c", _SCRIPT.read_text("utf-8"), f"{self._every_s:g}", *ids],
                name=f"{self._project}-sampler",
                labels=_LABELS,
                pid_mode="host",
                # The folder of a process's open files belongs to its user.
                user="0",
                cap_drop=["ALL"],
                cap_add=["DAC_READ_SEARCH"],
                security_opt=["no-new-privileges:true"],
                volumes={
                    volume: {"bind": f"{inside.VOLUMES}/{name}", "mode": "ro"}
                    for name, volume in self._volumes().items()
                },
                network_mode="none",
                read_only=True,
                mem_limit="64m",
                log_config={"type": "json-file", "config": {"max-size": "50m"}},
                detach=True,
            )
        except (DockerException, OSError) as error:
            raise StackError(f"the sampler cannot be started: {error}") from error

    def _volumes(self) -> dict[str, str]:
        return {
            name: mount["Name"]
            for name, container in self._containers.items()
            for mount in container.attrs["Mounts"]
            if (mount["Type"], mount["Destination"]) == ("volume", "/data")
        }

    def _watch(self) -> None:
        try:
            for said in json_lines(self._helper):
                self._sample(said)
            if not self._stopping.is_set():
                raise StackError(self._helper.logs(stdout=False, tail=5).decode("utf-8", "replace"))
        except Exception as error:  # noqa: BLE001 - a thread has no caller; `check` raises it again
            if not self._stopping.is_set():
                self._failure = error

    def _sample(self, said: Mapping[str, Any]) -> None:
        moment = self._moment()
        for name, container in self._containers.items():
            values = {
                **memory(container_stats(container)),
                **said["counts"].get(container.id, {}),
                **in_mib(said["sizes"].get(name, {})),
            }
            self._write(Sample(moment, name, values))


def memory(stats: Stats) -> dict[str, float]:
    """Without the pages of files, which the kernel drops when memory is short.

    Empty for a container that is down.
    """
    said = stats["memory_stats"]
    if "usage" not in said:
        return {}
    held = said["stats"]
    kinds = ("active_file", "inactive_file")
    # cgroup v1 counts the groups below it in `total_` only. v2 counts them always.
    files = sum(held.get(f"total_{kind}", held.get(kind, 0)) for kind in kinds)
    return {"memory_mib": (said["usage"] - files) / _MIB}


def in_mib(sizes: Mapping[str, int]) -> dict[str, float]:
    """`wal_bytes` as `wal_mib`."""
    return {f"{kind.removesuffix('_bytes')}_mib": size / _MIB for kind, size in sizes.items()}
