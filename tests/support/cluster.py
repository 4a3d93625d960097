"""The whole service as real processes of this machine, for tests to kill, pause and examine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import redis

from common.domain import EMPTY_DIGEST, Order, next_digest
from common.wire import orders_from_items
from proto import bourse_pb2, bourse_pb2_grpc
from stack.local import find_redis, redis_part, redis_port, service_parts
from stack.parts import ORDER_IDS as REPLICAS
from stack.processes import Part, kill_group, started
from stack.waiting import wait_for
from tests.support.ports import free_ports

_START_TIMEOUT_S = 60.0
_RPC_TIMEOUT_S = 5.0


class Cluster:
    """Redis, catalog, three replicas and a frontend, under the names that compose gives them.

    Args:
        directory: for data and logs (`<part>.log`).
        settings: on top of the defaults, for every part.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        first_port = free_ports(len(REPLICAS) + 3)
        http_port = first_port + len(REPLICAS) + 2
        self.url = f"http://127.0.0.1:{http_port}"
        executable, _ = find_redis()
        parts = [
            redis_part(executable, redis_port(first_port), directory),
            *service_parts(http_port, first_port, directory),
        ]
        self.parts: dict[str, Part] = {part.name: part for part in parts}
        # Enough of each stock that no test runs out of it.
        self.initial_volumes = {f"stock{number}": 1_000_000 for number in range(1, 11)}
        stocks_file = directory / "stocks.txt"
        rows = [f"{name},25.78,{volume}\n" for name, volume in self.initial_volumes.items()]
        stocks_file.write_text("stockname,price,currvol\n" + "".join(rows))
        self._settings = {"STOCKS_FILE": str(stocks_file), **(settings or {})}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._paused: set[str] = set()

    # ------------------------------------------------------------ processes

    def start_all(self) -> None:
        for name in self.parts:
            self.start(name, wait=False)
        for name in self.parts:
            self.wait_ready(name)

    def start(self, name: str, *, wait: bool = True, **settings: str) -> None:
        """Starts a part that does not run."""
        if name in self._running:
            return
        part = self.parts[name]
        part = replace(part, environment={**part.environment, **settings})
        environment = {**_clean_environment(), **self._settings}
        with (self.directory / f"{name}.log").open("ab") as log:
            self._running[name] = started(part, environment, output=log)
        if wait:
            self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        process = self._running[name]

        def is_ready() -> bool:
            assert process.poll() is None, f"{name} ended: {self.log(name)}"
            return self.parts[name].is_ready()

        wait_for(is_ready, _START_TIMEOUT_S, lambda: self.log(name))

    def kill(self, *names: str) -> None:
        """kill -9 of each part and of the processes it started."""
        for name in names:
            self._paused.discard(name)
            kill_group(self._running.pop(name))

    def stop(self, name: str) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(name, signal.SIGTERM)
        return self.wait(name)

    def signal(self, name: str, number: int) -> None:
        self._running[name].send_signal(number)

    def wait(self, name: str) -> int:
        """Until a part that was told to end has done so; returns its exit code."""
        return self._running.pop(name).wait(timeout=30)

    def catches(self, name: str, number: int) -> bool:
        """Whether the process has come so far as to handle that signal itself."""
        status = Path(f"/proc/{self._running[name].pid}/status").read_text()
        [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
        return bool(int(caught, 16) >> (number - 1) & 1)

    def pause(self, *names: str) -> None:
        for name in names:
            os.killpg(self._running[name].pid, signal.SIGSTOP)
            self._paused.add(name)

    def resume(self, *names: str) -> None:
        for name in names:
            os.killpg(self._running[name].pid, signal.SIGCONT)
            self._paused.discard(name)

    def heal(self) -> None:
        """Everything runs again."""
        self.resume(*self._paused.copy())
        for name in self.parts:
            self.start(name, wait=False)
        for name in self.parts:
            self.wait_ready(name)

    def close(self) -> None:
        self.kill(*self._running.copy())

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def data(self, name: str) -> Path:
        return self.directory / name

    def wipe(self, name: str) -> None:
        """Empties the volume of a part that does not run."""
        assert name not in self._running
        shutil.rmtree(self.data(name))

    def flush_redis(self) -> None:
        with redis.Redis(port=self.parts["redis"].port) as client:
            client.flushall()

    def save_redis(self) -> None:
        """What is in it now comes back with its next start."""
        with redis.Redis(port=self.parts["redis"].port) as client:
            client.save()

    # ------------------------------------------------------------ what they say

    def replica(self, replica_id: int) -> RpcClient:
        """Close it, or use it in a `with`."""
        return RpcClient(
            f"127.0.0.1:{self.parts[f'order-{replica_id}'].port}", bourse_pb2_grpc.OrderServiceStub
        )

    def catalog(self) -> RpcClient:
        address = f"127.0.0.1:{self.parts['catalog'].port}"
        return RpcClient(address, bourse_pb2_grpc.CatalogServiceStub)

    def status(self, replica_id: int) -> bourse_pb2.StatusResponse | None:
        """None when the replica does not answer."""
        with self.replica(replica_id) as replica:
            try:
                return replica.call("Status", bourse_pb2.Empty(), timeout_s=1.0)
            except grpc.RpcError:
                return None

    def statuses(self) -> dict[int, bourse_pb2.StatusResponse | None]:
        return {replica_id: self.status(replica_id) for replica_id in REPLICAS}

    def leader_id(self) -> int:
        """The replica that leads the newest epoch; waits until one does."""

        def newest() -> bourse_pb2.StatusResponse | None:
            leading = [one for one in self.statuses().values() if one and one.role == "leader"]
            return max(leading, key=lambda one: one.epoch, default=None)

        return int(wait_for(newest, 15, self.statuses).replica_id)

    def journal(self) -> list[Order]:
        with self.catalog() as catalog:
            chunks = catalog.stream("Journal", bourse_pb2.SyncRequest())
            return [order for chunk in chunks for order in orders_from_items(chunk.rows)]

    def order(self, number: int) -> Order:
        """One row of the journal."""
        with self.catalog() as catalog:
            request = bourse_pb2.SyncRequest(last_number=number - 1, limit=1)
            (chunk,) = catalog.stream("Journal", request)
            return orders_from_items(chunk.rows)[0]

    def replica_log(self, replica_id: int) -> list[Order]:
        with self.replica(replica_id) as replica:
            return orders_from_items(replica.stream("SyncOrderDB", bourse_pb2.SyncRequest()))

    def volumes(self) -> dict[str, int]:
        with self.catalog() as catalog:
            stocks = catalog.call("ListStocks", bourse_pb2.Empty()).stocks
        return {stock.name: stock.volume for stock in stocks}

    # ------------------------------------------------------------ what must hold

    def check_promises(self, acknowledged: Mapping[str, int]) -> list[Order]:
        """G1, G2, G3, G5, G7 and G9, with everything running; returns the journal.

        Args:
            acknowledged: request id → the order number that its 200 named.
        """
        journal = self.journal()
        numbers = [row.number for row in journal]
        assert numbers == list(range(1, len(journal) + 1)), "order numbers are not 1, 2, 3, …"
        by_request = {row.request_id: row.number for row in journal}
        assert len(by_request) == len(journal), "a request id was executed twice"
        lost = {key: n for key, n in acknowledged.items() if by_request.get(key) != n}
        assert not lost, f"acknowledged, but not so in the journal: {lost}"
        epochs = [row.epoch for row in journal]
        assert epochs == sorted(epochs), "a deposed leader had a trade committed"
        self._check_books(journal)
        self._check_replicas(journal)
        return journal

    def _check_books(self, journal: list[Order]) -> None:
        volumes = dict(self.initial_volumes)
        for row in journal:
            volumes[row.name] += row.quantity if row.type == "SELL" else -row.quantity
            assert volumes[row.name] >= 0, f"more was sold than there was: {row}"
        assert volumes == self.volumes(), "the books do not balance"

    def _check_replicas(self, journal: list[Order]) -> None:
        digest = EMPTY_DIGEST
        for row in journal:
            digest = next_digest(digest, row)
            assert row.digest == digest, f"the chain is broken at {row}"
        self.wait_in_sync(len(journal), digest)
        for replica_id in REPLICAS:
            assert self.replica_log(replica_id) == journal, f"replica {replica_id} differs"

    def wait_in_sync(self, last_number: int, digest: bytes) -> None:
        def agree() -> bool:
            statuses = self.statuses().values()
            return all(
                one is not None and (one.last_number, one.digest) == (last_number, digest)
                for one in statuses
            )

        wait_for(agree, 20, lambda: f"all at {last_number}: {self.statuses()}")


class RpcClient:
    """A channel for a few calls from a test."""

    def __init__(self, address: str, stub: Callable[[grpc.Channel], Any]) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = stub(self._channel)

    def call(self, method: str, request: Any, timeout_s: float = _RPC_TIMEOUT_S) -> Any:
        return getattr(self._stub, method)(request, timeout=timeout_s)

    def stream(self, method: str, request: Any, timeout_s: float = 60.0) -> Iterator[Any]:
        yield from getattr(self._stub, method)(request, timeout=timeout_s)

    def __enter__(self) -> RpcClient:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._channel.close()


@contextmanager
def running_cluster(
    directory: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    with ExitStack() as stack:
        cluster = Cluster(directory, settings)
        stack.callback(cluster.close)
        cluster.start_all()
        yield cluster


def _clean_environment() -> dict[str, str]:
    """Without the settings that a person may have set for their own service."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in kept if name in os.environ}
