"""Two frontends and the order replicas, each behind a link to Redis that can be cut."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from client.api import Answer, BourseClient, RetryPolicy
from common.domain import LEASE_MS
from stack.local import service_parts
from stack.processes import Part
from stack.waiting import wait_for
from tests.support.cluster import Cluster
from tests.support.link import Link, Mode
from tests.support.ports import free_ports
from tests.support.rigged_cluster import rigged

LEASE_S = LEASE_MS / 1000
A, B = FRONTENDS = ("frontend-a", "frontend-b")
ORDERS = "orders"  # the link that the replicas share

_WORKERS = 2
_ONCE = RetryPolicy(attempts=1)
# In a row and each on a connection of its own, so that no worker is left out.
_LOOKUPS_TO_SETTLE = 10


class LeaseCluster(Cluster):
    """A cluster with two frontends of two workers each, and three links to Redis.

    Args:
        without: the mechanism of `tests.support.mechanisms` that its services lack.
    """

    def __init__(self, directory: Path, without: str = "") -> None:
        settings = {"WEB_CONCURRENCY": str(_WORKERS), "WEB_THREADS": "16"}
        rig = {"BOURSE_RIG_WITHOUT": without} if without else {}
        super().__init__(directory, {**settings, **rig})
        self.catalog_away: list[tuple[float, float]] = []  # monotonic, from the kill to ready
        ports = self._unused_ports(len(FRONTENDS) + 3)
        redis_port = self.parts["redis"].port
        self.links = {name: Link(next(ports), redis_port) for name in (*FRONTENDS, ORDERS)}
        self._put_behind_links(ports)
        if without:
            self.parts = {
                name: part if name == "redis" else rigged(part) for name, part in self.parts.items()
            }
        self.urls = {name: f"http://127.0.0.1:{self.parts[name].port}" for name in FRONTENDS}

    def _unused_ports(self, count: int) -> Iterator[int]:
        taken = {part.port for part in self.parts.values()}
        while taken & set(ports := range(first := free_ports(count), first + count)):
            pass
        return iter(ports)

    def _put_behind_links(self, ports: Iterator[int]) -> None:
        del self.parts["frontend"]
        for name, part in self.parts.items():
            if name.startswith("order-"):
                self.parts[name] = self._behind_link(part, ORDERS)
        for name in FRONTENDS:
            parts = service_parts(next(ports), self.parts["catalog"].port, self.directory)
            self.parts[name] = self._behind_link(replace(parts[-1], name=name), name)

    def _behind_link(self, part: Part, link: str) -> Part:
        url = f"redis://127.0.0.1:{self.links[link].port}/0"
        return replace(part, environment={**part.environment, "REDIS_URL": url})

    # ------------------------------------------------------------ faults

    def cut(self, *names: str, mode: Mode) -> None:
        for name in names:
            self.links[name].set(mode)

    def join(self) -> None:
        """Every link is open."""
        self.cut(*self.links, mode=Mode.OPEN)

    def restart(self, *names: str) -> None:
        """Kills the parts and starts them again; returns when they are ready."""
        killed_at = time.monotonic()
        self.kill(*names)
        for name in names:
            self.start(name, wait=False)
        for name in names:
            self.wait_ready(name)
        if "catalog" in names:
            self.catalog_away.append((killed_at, time.monotonic()))

    def heal(self) -> None:
        self.join()
        super().heal()

    def settle(self) -> None:
        """Everything runs, every worker uses the cache, and both frontends know the leader."""
        self.heal()
        for name in FRONTENDS:
            wait_for(lambda name=name: self._uses_the_cache(name), 20, f"{name} bypasses Redis")
            assert self.trade(name, "stock10").status == 200

    def wait_out_restart_lease(self) -> None:
        """Until not every stock counts as leased because the catalog is new."""
        ready_at = max((ready for _, ready in self.catalog_away), default=self._started_at)
        time.sleep(max(0.0, ready_at + LEASE_S - time.monotonic()))

    def _uses_the_cache(self, name: str) -> bool:
        answers = (self.lookup(name, "stock10") for _ in range(_LOOKUPS_TO_SETTLE))
        return all(answer.headers["X-Cache"] in ("HIT", "MISS") for answer in answers)

    def start_all(self) -> None:
        super().start_all()
        self._started_at = time.monotonic()

    def close(self) -> None:
        super().close()
        for link in self.links.values():
            link.close()

    # ------------------------------------------------------------ requests

    def lookup(self, frontend: str, name: str) -> Answer:
        """On a connection of its own, and without repeats."""
        with BourseClient(self.urls[frontend], retry=_ONCE) as client:
            return client.lookup(name)

    def trade(self, frontend: str, name: str) -> Answer:
        """Buys one share, on a connection of its own, and without repeats."""
        with BourseClient(self.urls[frontend], retry=_ONCE) as client:
            return client.trade(name, 1, "BUY")


@contextmanager
def running_lease_cluster(directory: Path, without: str = "") -> Iterator[LeaseCluster]:
    cluster = LeaseCluster(directory, without)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.close()
