"""How each fault is done to a service, and undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_LOST_SHARE = 0.2


class Containers(Protocol):
    def kill(self, service: str) -> None: ...
    def stop(self, service: str) -> int: ...
    def start(self, service: str) -> None: ...
    def pause(self, service: str) -> None: ...
    def unpause(self, service: str) -> None: ...
    def wipe(self, service: str) -> None: ...
    def execute(self, service: str, *command: str) -> str: ...


class Links(Protocol):
    def cut_off(self, service: str) -> None: ...
    def cut_from(self, service: str, other: str) -> None: ...
    def lose(self, service: str, share: float) -> str: ...
    def heal(self, service: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Breakage:
    """`strike` may say something about what it did. `heal` may be called when nothing is broken."""

    strike: Callable[[str], str | None]
    heal: Callable[[str], None]
    impairs: bool = True  # what it hits does not count as living


def breakages(stack: Containers, network: Links) -> dict[str, Breakage]:
    """By the names of `faults.schedule.TARGETS`; a rolling restart is a stop of one service."""

    def wipe(service: str) -> None:
        stack.kill(service)
        stack.wipe(service)

    def stop(service: str) -> None:
        stack.stop(service)

    def flush(service: str) -> None:
        stack.execute(service, "redis-cli", "FLUSHALL")

    def drop_subscribers(service: str) -> str:
        dropped = stack.execute(service, "redis-cli", "CLIENT", "KILL", "TYPE", "pubsub")
        return f"{dropped} connections"

    def lose(service: str) -> str:
        return network.lose(service, _LOST_SHARE)

    def stays(_service: str) -> None:
        """It was over as soon as it was done."""

    return {
        "kill": Breakage(stack.kill, stack.start),
        "stop": Breakage(stop, stack.start),
        "rolling": Breakage(stop, stack.start),
        "pause": Breakage(stack.pause, stack.unpause),
        "partition": Breakage(network.cut_off, network.heal),
        "partition-catalog": Breakage(
            lambda service: network.cut_from(service, "catalog"), network.heal
        ),
        "lossy": Breakage(lose, network.heal),
        "wipe": Breakage(wipe, stack.start),
        "flush": Breakage(flush, stays, impairs=False),
        "pubsub": Breakage(drop_subscribers, stays, impairs=False),
    }
