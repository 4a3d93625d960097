"""How each fault is done to a service, and undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stack.containers import Containers
from stack.network import Network
from stack.offices import crash_postgres
from stack.parts import CATALOGS

_LOST_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Breakage:
    """`strike` may return a detail for people. `heal` is harmless when nothing is broken."""

    strike: Callable[[str], str | None]
    heal: Callable[[str], None]
    impairs: bool = True  # whether the parts that it hits count as not available


def breakages(containers: Containers, network: Network) -> dict[str, Breakage]:
    """One for each name in `faults.targets.TARGETS`. "Rolling" stops a single service."""

    def wipe(service: str) -> None:
        containers.kill(service)
        containers.wipe(service)

    def stop(service: str) -> None:
        containers.stop(service)

    def flush(service: str) -> None:
        containers.execute(service, "redis-cli", "FLUSHALL")

    def drop_subscribers(service: str) -> str:
        dropped = containers.execute(service, "redis-cli", "CLIENT", "KILL", "TYPE", "pubsub")
        return f"{dropped} connections"

    def lose(service: str) -> str:
        return network.lose(service, _LOST_SHARE)

    def crash(node: str) -> None:
        crash_postgres(containers, node)

    def cut_from_catalogs(service: str) -> None:
        there = [name for name in CATALOGS if containers.containers(name)]
        network.cut_from(service, *there)

    def stays(_service: str) -> None:
        """Does nothing: the fault is over at once, so there is nothing to heal."""

    return {
        "kill": Breakage(containers.kill, containers.start),
        "stop": Breakage(stop, containers.start),
        "rolling": Breakage(stop, containers.start),
        "pause": Breakage(containers.pause, containers.unpause),
        "partition": Breakage(network.cut_off, network.heal),
        "partition-catalog": Breakage(cut_from_catalogs, network.heal),
        "lossy": Breakage(lose, network.heal),
        "wipe": Breakage(wipe, containers.start),
        "flush": Breakage(flush, stays, impairs=False),
        "pubsub": Breakage(drop_subscribers, stays, impairs=False),
        "crash": Breakage(crash, stays),
        "zombie": Breakage(containers.pause, containers.unpause),
    }
