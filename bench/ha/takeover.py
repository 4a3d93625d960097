"""`takeover`: how long no trade is acknowledged when the active catalog or the primary is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from bench.copies.project import Images, Project
from bench.failover import (
    FailoverResults,
    FailoverSettings,
    Kind,
    Strikes,
    broken,
    leader_of_all,
)
from bench.measuring.wrk import Wrk
from stack.containers import Containers
from stack.observer import Observer
from stack.offices import ACTIVE, OFFICES, PRIMARY, Offices, crash_postgres
from stack.parts import CATALOGS, HA_FILES
from stack.waiting import wait_for

CATALOG_KILLED = Kind("catalog-kill", "kill of the active catalog", 2.0, after_s=6.0)
CATALOG_PAUSED = Kind("catalog-pause", "pause of the active catalog", 2.0, after_s=6.0)
PROCESS_KILLED = Kind(
    "process-kill", "kill of the primary's process", 3.0, after_s=12.0, may_refuse=True
)
# As long as Patroni may take (`ttl`, and then some), and what follows.
NODE_KILLED = Kind(
    "node-kill", "kill of the primary's container", 30.0, after_s=40.0, may_refuse=True
)
NODE_PAUSED = Kind(
    "node-pause", "pause of the primary's container", 40.0, after_s=50.0, may_refuse=True
)

# A former primary recovers, is rewound and catches up.
_WHOLE_WITHIN_S = 120.0


def times(catalogs: int, processes: int, nodes: int) -> dict[Kind, int]:
    return {
        CATALOG_KILLED: catalogs,
        CATALOG_PAUSED: catalogs,
        PROCESS_KILLED: processes,
        NODE_KILLED: nodes,
        NODE_PAUSED: nodes,
    }


def run(
    engine: Any, wrk: Wrk, settings: FailoverSettings, say: Callable[[str], None]
) -> FailoverResults:
    """Raises StackError, WrkFailed, NoAnswer, Malformed."""
    images = Images(engine, say, files=HA_FILES)
    with images.built() as base:
        project = Project(engine, images, base, say)
        with project.up(), Observer(engine, project.name, lambda _seen: None) as observer:

            def breaking(kind: Kind) -> tuple[str, AbstractContextManager[None]]:
                leader_of_all(observer)
                return breaking_of(kind, project.containers, whole(project.containers))

            return Strikes(project.url(), wrk, say, breaking).run(settings)


def whole(containers: Containers) -> Mapping[str, str]:
    """Who holds each office, as soon as both catalogs and all nodes work. Raises StackError."""
    offices = Offices(containers)
    holders: dict[str, str] = {}

    def found() -> bool:
        holders.update(offices.holders())
        return (
            holders.keys() >= set(OFFICES)
            and offices.database_is_whole()
            and all(containers.passes_its_check(catalog) for catalog in CATALOGS)
        )

    wait_for(found, _WHOLE_WITHIN_S, lambda: f"{holders}, nodes: {offices.members()}")
    return holders


def breaking_of(
    kind: Kind, containers: Containers, holders: Mapping[str, str]
) -> tuple[str, AbstractContextManager[None]]:
    """What is struck, and inside it is broken."""
    if kind is PROCESS_KILLED:
        return holders[PRIMARY], _without_process(containers, holders[PRIMARY])
    struck = holders[ACTIVE if kind in (CATALOG_KILLED, CATALOG_PAUSED) else PRIMARY]
    is_killed = kind in (CATALOG_KILLED, NODE_KILLED)
    return struck, broken(containers, struck, is_killed=is_killed)


@contextmanager
def _without_process(containers: Containers, node: str) -> Iterator[None]:
    """Nothing is to be undone: Patroni starts another one by itself."""
    crash_postgres(containers, node)
    yield
