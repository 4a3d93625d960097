"""Who holds an office at this moment, as the parts themselves say it.

With compose.ha.yaml, one catalog of two is active, and of the database's nodes one is the primary
and one its synchronous standby. On a stack without these parts nobody holds any office.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from stack.containers import Containers
from stack.parts import CATALOG_SERVICE, CATALOGS, POSTGRES_SERVICES

ACTIVE, STANDBY_CATALOG = "catalog-active", "catalog-standby"
PRIMARY, STANDBY = "postgres-primary", "postgres-standby"
OFFICES = (ACTIVE, STANDBY_CATALOG, PRIMARY, STANDBY)

_IS_ACTIVE = ("python", "-m", "common.health", "127.0.0.1:50051", CATALOG_SERVICE)
# Patroni's own list of the nodes. A node that does not reach etcd may take long to answer.
_CLUSTER = (
    "timeout",
    "3",
    "bash",
    "-c",
    r"exec 3<>/dev/tcp/127.0.0.1/8008 && printf 'GET /cluster HTTP/1.0\r\n\r\n' >&3 && cat <&3",
)
# The first line of this file is the number of the first process of PostgreSQL.
_KILL_POSTGRES = ("sh", "-c", "kill -9 $(head -n 1 /data/pgdata/postmaster.pid)")
_LEADER, _SYNC_STANDBY = "leader", "sync_standby"
_WHOLE = ["leader running", "replica streaming", "sync_standby streaming"]

_Asked = TypeVar("_Asked")
_Said = TypeVar("_Said")


class Offices:
    """Each method asks anew, inside the containers. It raises StackError if that is impossible."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def holders(self) -> dict[str, str]:
        """Each office that somebody holds, with the part that does."""
        return {**self._catalogs(), **self._nodes_in_office()}

    def members(self) -> dict[str, str]:
        """What Patroni says of each node of the database, as `sync_standby streaming`.

        Empty if no node names a primary.
        """
        running = self._running(POSTGRES_SERVICES)
        answers = [one for one in _each(self._cluster, running) if one]
        # One that was cut off can still tell of the primary before. Each promotion adds to the
        # timeline.
        newest = max(answers, key=_timeline) if answers else []
        return {one["name"]: f"{one['role']} {one['state']}" for one in newest}

    def primary(self) -> str | None:
        """As `holders` has it, without asking the catalogs."""
        return self._nodes_in_office().get(PRIMARY)

    def database_is_whole(self) -> bool:
        """Three nodes that work, in each office one."""
        return sorted(self.members().values()) == _WHOLE

    def _catalogs(self) -> dict[str, str]:
        if not self._containers.containers(CATALOGS[1]):
            return {}  # the only one has no office
        running = self._running(CATALOGS)
        active = [
            name for name, so in zip(running, _each(self._is_active, running), strict=True) if so
        ]
        standby = [name for name in CATALOGS if name not in active]
        return {ACTIVE: active[0], STANDBY_CATALOG: standby[0]} if len(active) == 1 else {}

    def _nodes_in_office(self) -> dict[str, str]:
        titles = {_LEADER: PRIMARY, _SYNC_STANDBY: STANDBY}
        roles = {name: said.partition(" ")[0] for name, said in self.members().items()}
        return {titles[role]: name for name, role in roles.items() if role in titles}

    def _is_active(self, catalog: str) -> bool:
        return self._containers.attempt(catalog, *_IS_ACTIVE)[0] == 0

    def _cluster(self, node: str) -> list[Mapping[str, Any]]:
        """The nodes as that one knows them; none if it does not answer or knows no primary."""
        code, said = self._containers.attempt(node, *_CLUSTER)
        _, _, body = said.replace("\r", "").partition("\n\n")
        if code != 0 or not body.startswith("{"):
            return []
        members: list[Mapping[str, Any]] = json.loads(body).get("members", [])
        return members if any(one["role"] == _LEADER for one in members) else []

    def _running(self, services: Sequence[str]) -> list[str]:
        running = self._containers.running_services()
        return [name for name in services if name in running]


def crash_postgres(containers: Containers, node: str) -> None:
    """Kills PostgreSQL alone; Patroni starts it again. Raises StackError."""
    containers.execute(node, *_KILL_POSTGRES)


def _timeline(members: Sequence[Mapping[str, Any]]) -> int:
    return max(int(one.get("timeline", 0)) for one in members if one["role"] == _LEADER)


def _each(ask: Callable[[_Asked], _Said], of: Sequence[_Asked]) -> list[_Said]:
    """Asks all at the same time."""
    with ThreadPoolExecutor(len(of) or 1) as executor:
        return list(executor.map(ask, of))
