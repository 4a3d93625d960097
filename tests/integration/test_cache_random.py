"""Many workers, trades and Redis faults at random: no lookup is older than an acknowledged trade.

The same run with one mechanism taken out must find a stale lookup.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import redis

from frontend.model import CacheResult
from tests.support.cache_world import CatalogInMemory, Worker
from tests.support.link import Link, Mode
from tests.support.mechanisms import taken_out
from tests.support.ports import free_ports
from tests.support.redis_server import closed_port, running_redis

LEASE_MS = 300
LEASE_S = LEASE_MS / 1000
REDIS_TIMEOUT_S = 0.05
STOCKS = [f"stock{number}" for number in range(1, 13)]
WORKERS = 3


class History:
    """The newest acknowledged version of each stock, and every lookup that was older."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acknowledged = dict.fromkeys(STOCKS, 1)
        self.stale: list[str] = []
        self.trades = 0
        self.results: Counter[CacheResult] = Counter()

    def acknowledged(self, name: str) -> int:
        with self._lock:
            return self._acknowledged[name]

    def acknowledge(self, name: str, version: int) -> None:
        with self._lock:
            self.trades += 1
            self._acknowledged[name] = max(self._acknowledged[name], version)

    def looked_up(self, name: str, version: int, at_least: int, result: CacheResult) -> None:
        with self._lock:
            self.results[result] += 1
            if version < at_least:
                self.stale.append(f"{name}: {result} v{version}, v{at_least} was acknowledged")


class Pair:
    """A primary and a replica. Workers reach the primary by the link `name`."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.primary, self.replica = (
            stack.enter_context(running_redis(directory=directory / one)) for one in "ab"
        )
        port = free_ports(2)
        self.name, self._replication = (Link(port + n, self.primary.port) for n in range(2))
        stack.callback(self.name.close)
        stack.callback(self._replication.close)
        self.replica.replicate(self._replication.port)

    def fail_over(self, lag_s: float) -> None:
        """Stops the replication for that time, and then promotes the replica."""
        old, new = self.primary, self.replica
        self._replication.set(Mode.SILENT)
        time.sleep(lag_s)
        old.demote()
        new.promote()
        self.primary, self.replica = new, old
        self.name.target_port = self._replication.target_port = new.port
        time.sleep(lag_s)
        self._replication.set(Mode.OPEN)
        old.replicate(self._replication.port)


class Run:
    """Threads that look up, trade and inject faults until they are stopped."""

    def __init__(self, pair: Pair, workers: list[Worker], catalog: CatalogInMemory) -> None:
        self.history = History()
        self._pair = pair
        self._workers = workers
        self._catalog = catalog
        self._stopping = threading.Event()
        self._errors: list[BaseException] = []
        # Without a seed: the threads make each run different anyway.
        self._random = random.Random()  # noqa: S311 - guards nothing

    def until_stale(self, longest_s: float) -> list[str]:
        """Runs until the first stale lookup, or for that time. Returns the stale lookups."""
        threads = [
            threading.Thread(target=self._repeat, args=(activity,), daemon=True)
            for activity in self._activities()
        ]
        self._catalog.before_answer = self._overtake
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + longest_s
        while not (self.history.stale or self._errors) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stopping.set()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        return self.history.stale

    def _activities(self) -> Iterator[Callable[[], None]]:
        yield self._break_things
        for worker in self._workers:
            for _ in range(3):
                yield partial(self._look_up, worker)
            for _ in range(2):
                yield partial(self._trade, worker)

    def _repeat(self, activity: Callable[[], None]) -> None:
        try:
            while not self._stopping.is_set():
                activity()
        except BaseException as error:  # the thread of the test raises it again
            self._errors.append(error)

    def _look_up(self, worker: Worker) -> None:
        name = self._random.choice(STOCKS)
        for _ in range(2):  # the second one hits the entry that the first one filled
            self._look_up_one(worker, name)

    def _look_up_one(self, worker: Worker, name: str) -> None:
        at_least = self.history.acknowledged(name)
        quote, result = worker.quotes.find(name)
        assert quote is not None
        self.history.looked_up(name, quote.version, at_least, result)

    def _trade(self, worker: Worker) -> None:
        name = self._random.choice(STOCKS)
        self.history.acknowledge(name, worker.trade(name))
        self._wait(2)

    def _overtake(self, name: str) -> None:
        """Sometimes trades while a lookup has read the stock but not answered yet.

        It does so rarely: some mechanisms are needed only if a fill is later than its lease and
        finds neither a floor nor a new generation. For that, trades of one stock, and flushes, must
        be more than a lease apart.
        """
        if self._random.random() > 0.05:
            return
        rival = self._random.choice(self._workers)
        self.history.acknowledge(name, rival.trade(name))
        kind = self._random.random()
        if kind < 0.1:
            self._flush()
        elif kind < 0.6:
            time.sleep(self._random.uniform(0.5, 2) * LEASE_S)

    def _break_things(self) -> None:
        faults = [
            self._pause,
            self._restart,
            self._restart_from_a_snapshot,
            self._fail_over,
            self._cut_off,
            self._flush,
            self._catalog.restart,
        ]
        self._random.shuffle(faults)
        for fault in faults:
            if not self._stopping.is_set():
                fault()
                self._wait(2)

    def _wait(self, leases: float) -> None:
        """Waits for a random time, at most this many leases."""
        time.sleep(self._random.uniform(0, leases) * LEASE_S)

    def _pause(self) -> None:
        self._pair.primary.pause()
        self._wait(2)
        self._pair.primary.resume()

    def _restart(self) -> None:
        self._pair.primary.kill()
        time.sleep(self._random.choice([0, LEASE_S]))
        self._pair.primary.start()

    def _restart_from_a_snapshot(self) -> None:
        """Restarts Redis from a snapshot with a quote that, in most cases, is outdated by then."""
        name = self._random.choice(STOCKS)
        self._workers[0].quotes.find(name)
        self._pair.primary.save()
        self.history.acknowledge(name, self._random.choice(self._workers).trade(name))
        self._pair.primary.restart()
        self._look_up_one(self._workers[0], name)

    def _fail_over(self) -> None:
        self._pair.fail_over(self._random.uniform(0, 0.5) * LEASE_S)

    def _flush(self) -> None:
        # A server that is down, or was just demoted, refuses a flush.
        with suppress(redis.RedisError):
            self._pair.primary.flush()

    def _cut_off(self) -> None:
        worker = self._random.choice(self._workers)
        worker.cache.is_cut_off = True
        self._wait(2)
        worker.cache.is_cut_off = False


@contextmanager
def workers_around_redis() -> Iterator[Run]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pair = Pair(stack, directory)
        url = f"redis://127.0.0.1:{pair.name.port}/0"
        unused_port = stack.enter_context(closed_port())
        catalog = CatalogInMemory(STOCKS, LEASE_MS)
        workers = [
            Worker(catalog, url, unused_port, LEASE_MS, REDIS_TIMEOUT_S) for _ in range(WORKERS)
        ]
        for worker in workers:
            stack.callback(worker.close)
        yield Run(pair, workers, catalog)


@pytest.mark.slow
def test_no_lookup_is_older_than_an_acknowledged_trade() -> None:
    with workers_around_redis() as run:
        assert run.until_stale(longest_s=8) == []
    assert run.history.trades > 0
    assert all(run.history.results[result] for result in CacheResult)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mechanism", ["floor", "generation", "replication id", "token expiry", "lease wait"]
)
def test_without_one_mechanism_some_lookup_is(mechanism: str) -> None:
    with taken_out(mechanism), workers_around_redis() as run:
        assert run.until_stale(longest_s=120), run.history.results
