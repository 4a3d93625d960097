"""Each operation of the cache, against a real Redis: the newest one here and an old one."""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from common.redis_connections import connect_redis
from frontend.quotes.cache import Hit, LRUCache, Miss, PutOutcome, Token
from stack.waiting import wait_for
from tests.support.redis_server import (
    RedisServer,
    bundled_redis_executable,
    redis_executable,
    running_redis,
)

TIMEOUT_S = 20.0

# Long enough that nothing expires by itself while a test runs.
LONG_MS = 600_000
SHORT_MS = 300


@pytest.fixture(scope="module", params=[redis_executable, bundled_redis_executable])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running_redis(request.param()) as running:
        yield running


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    server.flush()
    with connect_redis(server.url, timeout_s=5, max_connections=4) as connected:
        yield connected


@pytest.fixture
def cache(client: redis.Redis) -> LRUCache:
    return LRUCache(client, size=3, lease_ms=LONG_MS)


def token_for(cache: LRUCache, name: str) -> Token:
    found = cache.get(name)
    assert isinstance(found, Miss)
    return found.token


def fill(cache: LRUCache, name: str, version: int = 1) -> None:
    outcome = cache.put(name, f"{name}@{version}", version, token_for(cache, name))
    assert outcome is PutOutcome.STORED


def fill_shortly(client: redis.Redis, name: str, size: int = 3) -> None:
    """Stores an entry that expires soon. Tries again if the token expired before the fill."""
    cache = LRUCache(client, size, SHORT_MS)
    while cache.put(name, "soon gone", 1, token_for(cache, name)) is not PutOutcome.STORED:
        pass


def wait_until_gone(cache: LRUCache, name: str) -> None:
    wait_for(lambda: name not in cache.names(), TIMEOUT_S, lambda: f"no {name} in {cache.names()}")


def test_a_miss_carries_the_token_for_a_fill(cache: LRUCache) -> None:
    token = token_for(cache, "stock1")
    assert cache.put("stock1", "a quote", 7, token) is PutOutcome.STORED
    assert cache.get("stock1") == Hit("a quote")


def test_every_token_of_one_life_names_the_same_generation(cache: LRUCache) -> None:
    assert token_for(cache, "stock1").generation == token_for(cache, "stock2").generation


def test_a_flush_begins_another_generation(cache: LRUCache, server: RedisServer) -> None:
    seen = [token_for(cache, "stock1").generation]
    for flush in (server.flush, cache.flush):
        flush()
        seen.append(token_for(cache, "stock1").generation)
    assert len(set(seen)) == len(seen)


def test_a_start_begins_another_generation_and_a_snapshot_brings_nothing_back(
    server: RedisServer, tmp_path: Path
) -> None:
    with (
        running_redis(server.executable, tmp_path) as own,
        connect_redis(own.url, timeout_s=5, max_connections=1) as client,
    ):
        cache = LRUCache(client, size=3, lease_ms=LONG_MS)
        token = token_for(cache, "b")
        fill(cache, "a")
        own.save()
        own.restart()
        assert client.hkeys("bourse:cache:values") == ["a"]
        assert cache.names() == []
        assert cache.put("b", "b@1", 1, token) is PutOutcome.GENERATION
        assert token_for(cache, "b").generation != token.generation


def test_what_is_under_another_generation_is_dropped_by_every_operation(
    client: redis.Redis, cache: LRUCache
) -> None:
    token = token_for(cache, "b")
    operations: list[Callable[[], object]] = [
        lambda: cache.get("b"),
        lambda: cache.put("b", "b@1", 1, token),
        lambda: cache.invalidate([("b", 1)]),
        lambda: cache.remove("b"),
        cache.flush,
        cache.names,
    ]
    for operation in operations:
        fill(cache, "a")
        client.set("bourse:cache:generation", "0" * 40 + ":1.2")
        operation()
        assert client.hkeys("bourse:cache:values") == []


def test_a_replica_refuses_every_operation(server: RedisServer) -> None:
    with (
        running_redis(server.executable) as own,
        connect_redis(own.url, timeout_s=5, max_connections=1) as client,
    ):
        cache = LRUCache(client, size=3, lease_ms=LONG_MS)
        fill(cache, "a")
        client.replicaof("127.0.0.1", 1)
        # A replica must refuse these also when it accepts writes.
        for read_only in ("yes", "no"):
            client.config_set("replica-read-only", read_only)
            for operation in (lambda: cache.get("a"), cache.flush, cache.names):
                with pytest.raises(redis.ReadOnlyError, match="replica"):
                    operation()


def test_the_least_recently_used_goes_first(cache: LRUCache) -> None:
    for name in ("a", "b", "c"):
        fill(cache, name)
    assert cache.get("a") == Hit("a@1")
    fill(cache, "d")
    assert cache.names() == ["c", "a", "d"]
    assert isinstance(cache.get("b"), Miss)
    assert cache.names() == ["c", "a", "d"], "a miss uses nothing"


def test_a_newer_value_replaces_and_counts_as_a_use(cache: LRUCache) -> None:
    fill(cache, "a", 1)
    fill(cache, "b", 1)
    token = token_for(cache, "c")
    assert cache.put("a", "a@2", 2, token) is PutOutcome.STORED
    assert cache.names() == ["b", "a"]
    assert cache.get("a") == Hit("a@2")


def test_expired_entries_go_before_a_live_one_that_is_older(
    client: redis.Redis, cache: LRUCache
) -> None:
    fill(cache, "oldest")
    fill_shortly(client, "expired 1")
    fill_shortly(client, "expired 2")
    wait_until_gone(cache, "expired 1")
    wait_until_gone(cache, "expired 2")
    fill(cache, "newest")
    assert cache.names() == ["oldest", "newest"]
    assert set(client.hkeys("bourse:cache:values")) == {"oldest", "newest"}


def test_a_cache_of_one(client: redis.Redis) -> None:
    cache = LRUCache(client, 1, LONG_MS)
    fill(cache, "a")
    fill(cache, "b")
    assert cache.names() == ["b"]
    assert cache.get("b") == Hit("b@1")


def test_workers_that_differ_in_size_share_it(client: redis.Redis) -> None:
    large, small = LRUCache(client, 5, LONG_MS), LRUCache(client, 2, LONG_MS)
    for name in ("a", "b", "c", "d", "e"):
        fill(large, name)
    fill(small, "f")
    assert large.names() == ["e", "f"]
    fill(large, "g")
    assert large.names() == ["e", "f", "g"]


def test_an_entry_dies_with_its_lease_and_hits_do_not_extend_it(
    client: redis.Redis, cache: LRUCache
) -> None:
    fill_shortly(client, "a")
    wait_for(lambda: not isinstance(cache.get("a"), Hit), TIMEOUT_S, "the entry is dead")
    assert cache.names() == []
    fill(cache, "a", 1)  # dead, so it is no obstacle to its own version


def test_the_lease_counts_from_the_token_not_from_the_fill(client: redis.Redis) -> None:
    cache = LRUCache(client, 3, SHORT_MS)
    token = token_for(cache, "a")
    time.sleep(2 * SHORT_MS / 1000)
    assert cache.put("a", "late", 1, token) is PutOutcome.EXPIRED
    assert cache.names() == []


def test_a_fill_from_another_generation_is_refused(cache: LRUCache, server: RedisServer) -> None:
    token = token_for(cache, "a")
    server.flush()
    assert cache.put("a", "old", 1, token) is PutOutcome.GENERATION, "there is none"
    token_for(cache, "a")
    assert cache.put("a", "old", 1, token) is PutOutcome.GENERATION, "there is another"


def test_a_live_entry_at_least_as_new_stays(cache: LRUCache) -> None:
    token = token_for(cache, "a")
    fill(cache, "a", 5)
    assert cache.put("a", "same", 5, token) is PutOutcome.NEWER
    assert cache.put("a", "older", 4, token) is PutOutcome.NEWER
    assert cache.get("a") == Hit("a@5")


def test_an_invalidation_drops_older_entries_only(cache: LRUCache) -> None:
    for name in ("a", "b", "c"):
        fill(cache, name, 5)
    cache.invalidate([("a", 6), ("b", 5), ("c", 4), ("absent", 1)])
    assert cache.names() == ["b", "c"]


def test_a_floor_refuses_older_fills_and_never_falls(cache: LRUCache) -> None:
    token = token_for(cache, "a")
    cache.invalidate([("a", 5)])
    cache.invalidate([("a", 3)])
    assert cache.put("a", "a@4", 4, token) is PutOutcome.FLOOR
    assert cache.put("a", "a@5", 5, token) is PutOutcome.STORED


def test_a_floor_lives_one_lease(client: redis.Redis, cache: LRUCache) -> None:
    LRUCache(client, 3, SHORT_MS).invalidate([("a", 5)])
    assert 0 < client.pttl("bourse:cache:floor:a") <= SHORT_MS
    token = token_for(cache, "a")
    wait_for(
        lambda: cache.put("a", "a@4", 4, token) is not PutOutcome.FLOOR,
        TIMEOUT_S,
        "the floor is gone",
    )
    assert cache.names() == ["a"]


def test_versions_are_exact_up_to_their_limit(cache: LRUCache) -> None:
    greatest = 2**53 - 1
    token = token_for(cache, "a")
    cache.invalidate([("a", greatest - 1)])
    cache.invalidate([("a", greatest - 2)])
    assert cache.put("a", "older", greatest - 2, token) is PutOutcome.FLOOR
    assert cache.put("a", "equal", greatest - 1, token) is PutOutcome.STORED
    cache.invalidate([("a", greatest)])
    assert cache.names() == []


@pytest.mark.parametrize("name", ["with space", '"quoted"', "Börse 株", "%s{}:*", "x" * 64])
def test_any_name_and_any_value(cache: LRUCache, name: str) -> None:
    value = f'{{"{name}": "\\u00e9\r\n"}}'
    assert cache.put(name, value, 1, token_for(cache, name)) is PutOutcome.STORED
    assert cache.get(name) == Hit(value)
    cache.invalidate([(name, 2)])
    assert cache.names() == []


def test_remove_drops_one_entry(cache: LRUCache) -> None:
    fill(cache, "a")
    fill(cache, "b")
    cache.remove("a")
    cache.remove("absent")
    assert cache.names() == ["b"]


def test_flush_drops_all_and_refuses_fills_under_way(cache: LRUCache) -> None:
    fill(cache, "a")
    token = token_for(cache, "b")
    cache.flush()
    assert cache.names() == []
    assert cache.put("b", "b@1", 1, token) is PutOutcome.GENERATION
    fill(cache, "b")


def test_scripts_that_redis_forgot_travel_again(client: redis.Redis, cache: LRUCache) -> None:
    fill(cache, "a")
    client.script_flush()
    assert cache.get("a") == Hit("a@1")


def test_every_key_has_the_prefix(client: redis.Redis, cache: LRUCache) -> None:
    fill(cache, "a")
    cache.invalidate([("b", 1)])
    assert all(key.startswith("bourse:cache:") for key in client.scan_iter("*"))


class ModelLRU:
    """The cache as a plain Python object: one command at a time, and nothing expires."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def get(self, name: str) -> Hit | None:
        if name not in self._entries:
            return None
        self._entries.move_to_end(name)
        return Hit(self._entries[name][0])

    def put(self, name: str, value: str, version: int) -> PutOutcome:
        if name in self._entries and self._entries[name][1] >= version:
            return PutOutcome.NEWER
        self._entries[name] = (value, version)
        self._entries.move_to_end(name)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)
        return PutOutcome.STORED

    def names(self) -> list[str]:
        return list(self._entries)


class BusyWorker(threading.Thread):
    """Gets and fills at random over one connection, and keeps every answer in order."""

    def __init__(self, server: RedisServer, seed: int) -> None:
        super().__init__(name=f"worker {seed}")
        self._random = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
        self._client = connect_redis(server.url, timeout_s=5, max_connections=1)
        self._cache = LRUCache(self._client, size=3, lease_ms=LONG_MS)
        self.address = str(self._client.client_info()["addr"])
        self.answers: list[Hit | PutOutcome | None] = []

    def run(self) -> None:
        with self._client:
            for step in range(200):
                name, version = self._random.choice("abcdef"), self._random.randint(1, 3)
                found = self._cache.get(name)
                self.answers.append(found if isinstance(found, Hit) else None)
                if isinstance(found, Miss):
                    value = f"{name}@{version}-by-{self.name[-1]}-at-{step}"
                    self.answers.append(self._cache.put(name, value, version, found.token))


def test_the_order_is_exact_under_concurrency(server: RedisServer, cache: LRUCache) -> None:
    """Replays the commands in the order of Redis on a plain LRU: all answers must be the same."""
    cache.put("absent", "loads the script", 1, token_for(cache, "absent"))
    cache.flush()
    workers = [BusyWorker(server, seed) for seed in range(6)]
    with server.client() as watcher, watcher.monitor() as monitor:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        executed = list(evalsha_calls(server, monitor))

    model = ModelLRU(size=3)
    answers = {worker.address: iter(worker.answers) for worker in workers}
    for address, arguments in executed:
        if len(arguments) == 1:  # get: name
            expected: Hit | PutOutcome | None = model.get(arguments[0])
        else:  # put: name, value, version, token, life, size
            expected = model.put(arguments[0], arguments[1], int(arguments[2]))
        assert next(answers[address]) == expected, arguments
    assert all(next(rest, "none left") == "none left" for rest in answers.values())
    assert cache.names() == model.names()


def evalsha_calls(
    server: RedisServer, monitor: redis.client.Monitor
) -> Iterator[tuple[str, list[str]]]:
    """The address and arguments of each script call that the monitor has seen so far."""
    with server.client() as marker:
        marker.echo("that is all")
    while True:
        seen = monitor.next_command()  # type: ignore[no-untyped-call] # redis-py's
        if seen["command"] == "ECHO that is all":
            return
        if seen["command"].startswith("EVALSHA "):
            _evalsha, _digest, _keys, *arguments = seen["command"].split(" ")
            yield f"{seen['client_address']}:{seen['client_port']}", arguments
