"""The processor time that requests take, as the engine's own accounting of containers has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from docker.errors import DockerException

from bench.measuring.wrk import Measured
from stack.parts import StackError

Stats = dict[str, Any]


class Meter:
    """
    Args:
        containers: by the part that they are. They run as long as this is used.
    """

    def __init__(self, containers: Mapping[str, Sequence[Any]]) -> None:
        self._containers = containers

    def around(self, measure: Callable[[], Measured]) -> Measured:
        """What it measures, with the time that each part took meanwhile. Raises StackError."""
        before = self._read_s()
        measured = measure()
        return replace(measured, processor_s=self._since(before))

    def idle(self, seconds: float) -> dict[str, float]:
        """The time that each part takes in one second while nobody asks. Raises StackError."""
        began_s, before = time.monotonic(), self._read_s()
        time.sleep(seconds)
        took_s = self._since(before)
        elapsed_s = time.monotonic() - began_s
        return {part: part_s / elapsed_s for part, part_s in took_s.items()}

    def _since(self, before: Mapping[str, float]) -> dict[str, float]:
        return {part: now_s - before[part] for part, now_s in self._read_s().items()}

    def _read_s(self) -> dict[str, float]:
        """Since the containers were started."""
        return {
            part: sum(_processor_s(one) for one in containers)
            for part, containers in self._containers.items()
        }


def container_stats(container: Any) -> Stats:
    """As of now. Raises StackError."""
    try:
        said: Stats = container.stats(stream=False, one_shot=True)
    except DockerException as error:
        raise StackError(f"the figures of {container.name}: {error}") from error
    return said


def _processor_s(container: Any) -> float:
    return float(container_stats(container)["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
