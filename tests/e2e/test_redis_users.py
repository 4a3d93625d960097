"""Who may do what in Redis, and where the passwords are."""

from __future__ import annotations

import json
import re

import pytest

from stack.parts import ORDER_SERVICES, SERVICES
from stack.waiting import wait_for
from tests.e2e.stack import PYTHON_SERVICES, Stack

# The first argument is the user, the others are commands as JSON lists. Prints what Redis says.
AS_USER = """
import json, redis, sys
from common.redis_connections import with_password_file
url, credentials = with_password_file(
    f"redis://{sys.argv[1]}@redis:6379/0", "/run/secrets/redis/password"
)
client = redis.Redis.from_url(
    url, protocol=2, driver_info=None, decode_responses=True, socket_timeout=5, **credentials
)
for command in sys.argv[2:]:
    try:
        said = client.execute_command(*json.loads(command))
    except redis.RedisError as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
"""

Command = list[str | int]

NOBODYS: list[Command] = [
    ["FLUSHALL"],
    ["FLUSHDB"],
    ["CONFIG", "GET", "dir"],
    ["KEYS", "*"],
    ["SCAN", 0],
    ["ACL", "LIST"],
    ["DEBUG", "SLEEP", "0"],
    ["SHUTDOWN"],
    ["CLIENT", "LIST"],
    ["MONITOR"],
    ["SCRIPT", "FLUSH"],
    ["REPLICAOF", "NO", "ONE"],
    ["GET", "another:key"],
    ["EVAL", "return redis.call('FLUSHALL')", 0],
    ["EVAL", "return redis.call('GET', 'another:key')", 0],
]
NOT_THE_FRONTENDS: list[Command] = [
    ["PUBLISH", "bourse:invalidations", "[]"],
    ["SUBSCRIBE", "another:channel"],
    ["SET", "bourse:other", "1"],
    ["EVAL", "return redis.call('SET', 'another:key', 1)", 0],
]
NOT_THE_ORDER_SIDES: list[Command] = [
    ["PUBLISH", "another:channel", "[]"],
    ["GET", "bourse:cache:generation"],
    ["SUBSCRIBE", "bourse:invalidations"],
    ["EVALSHA", "0" * 40, 0],
    ["PING"],
    ["INFO"],
]


def said_to(stack: Stack, service: str, user: str, *commands: Command) -> list[object]:
    encoded = [json.dumps(command) for command in commands]
    lines = stack.execute(service, "python", "-c", AS_USER, user, *encoded).splitlines()
    return [json.loads(line) for line in lines]


def operator(stack: Stack, *command: str) -> str:
    return stack.execute("redis", "redis-cli", *command).strip()


def users_connected(stack: Stack) -> set[str]:
    return {
        word.removeprefix("user=")
        for word in operator(stack, "client", "list").split()
        if word.startswith("user=")
    }


def cache_header(stack: Stack, stock: str = "stock7") -> str:
    status, headers, _ = stack.get(f"/stocks?stockname={stock}")
    assert status == 200
    return headers["x-cache"]


def trade(stack: Stack) -> None:
    body = {"name": "stock7", "quantity": 1, "type": "SELL"}
    assert stack.request("POST", "/orders", body)[0] == 200


@pytest.mark.parametrize(
    ("service", "user", "denied"),
    [
        ("frontend", "frontend", NOBODYS + NOT_THE_FRONTENDS),
        ("order-2", "order", NOBODYS + NOT_THE_ORDER_SIDES),
    ],
)
def test_a_side_may_do_nothing_else(
    stack: Stack, service: str, user: str, denied: list[Command]
) -> None:
    for command, answer in zip(denied, said_to(stack, service, user, *denied), strict=True):
        assert re.search("Error: .*([Nn]o permissions|not allowed)", str(answer)), (command, answer)


def test_each_side_may_do_its_work(stack: Stack) -> None:
    wait_for(lambda: cache_header(stack) == "HIT", 20, "the cache is used")
    operations = (
        "from frontend.quotes.cache import LRUCache;"
        "from common.redis_connections import connect_redis;"
        "client = connect_redis("
        "    'redis://frontend@redis:6379/0', 5, 2, '/run/secrets/redis/password');"
        "cache = LRUCache(client, 5);"
        "token = cache.get('none').token;"
        "print(cache.put('none', '{}', 1, token), cache.names());"
        "cache.invalidate([('none', 2)]); cache.remove('none'); cache.flush()"
    )
    assert "stored" in stack.execute("frontend", "python", "-c", operations)
    # Every worker of the frontend hears it.
    published = said_to(stack, "order-1", "order", ["PUBLISH", "bourse:invalidations", "[]"])
    assert published == [2]
    trade(stack)
    assert {"frontend", "order"} <= wait_for(lambda: users_connected(stack), 10, "anybody")


AS_NOBODY = """
import socket
for command in (b"FLUSHALL", b"AUTH default x", b"AUTH x"):
    with socket.create_connection(("redis", 6379), timeout=5) as connection:
        connection.sendall(command + b"\\r\\n")
        print(connection.recv(99))
"""


@pytest.mark.parametrize("service", PYTHON_SERVICES)
def test_nobody_gets_anything_without_a_password(stack: Stack, service: str) -> None:
    said = stack.execute(service, "python", "-c", AS_NOBODY)
    assert re.findall(r"-[A-Z]+", said) == ["-NOAUTH", "-WRONGPASS", "-WRONGPASS"]


def test_a_sides_password_is_no_other_sides(stack: Stack) -> None:
    for service, user in (("frontend", "order"), ("order-1", "frontend"), ("order-1", "default")):
        [said] = said_to(stack, service, user, ["PING"])
        assert str(said).startswith("AuthenticationError")


def test_the_operator_is_inside_the_container(stack: Stack) -> None:
    assert operator(stack, "ping") == "PONG"
    assert operator(stack, "acl", "whoami") == "default"
    assert operator(stack, "FLUSHALL") == "OK"
    assert stack.compose("exec", "-T", "redis", "redis-cli", "ping").strip() == "PONG"


SECRETS = (
    "/data/operator-password",
    "/secrets/frontend/password",
    "/secrets/order/password",
)


def test_passwords_are_nowhere_but_in_their_files(stack: Stack) -> None:
    passwords = {stack.execute("redis", "cat", path).strip() for path in SECRETS}
    assert {len(password) for password in passwords} == {64}
    assert len(passwords) == len(SECRETS)
    for service in SERVICES:
        container = stack.container(service)
        environments = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null; true"
        shown = [
            json.dumps(container.attrs),
            json.dumps(container.image.attrs),
            json.dumps(container.image.history()),
            container.logs().decode(),
            stack.execute(service, "sh", "-c", environments),
        ]
        assert not any(password in text for password in passwords for text in shown), service


def test_a_side_sees_its_own_password_only(stack: Stack) -> None:
    assert stack.execute("frontend", "ls", "/run/secrets/redis").split() == ["password"]
    own = stack.execute("frontend", "cat", "/run/secrets/redis/password")
    others = {stack.execute(name, "cat", "/run/secrets/redis/password") for name in ORDER_SERVICES}
    assert len(others) == 1
    assert own not in others
    for service in ("frontend", *ORDER_SERVICES):
        mounts = stack.container(service).attrs["Mounts"]
        [secret] = [mount for mount in mounts if "secret" in mount.get("Name", "")]
        assert not secret["RW"]


def lives(stack: Stack) -> dict[str, str]:
    """When each part that uses Redis was started."""
    return {
        service: stack.container(service).attrs["State"]["StartedAt"]
        for service in ("frontend", *ORDER_SERVICES)
    }


def test_new_passwords_need_no_restart_of_those_who_use_them(stack: Stack) -> None:
    wait_for(lambda: cache_header(stack) == "HIT", 20, "the cache is used")
    before, started_at = stack.execute("redis", "cat", *SECRETS), lives(stack)
    stack.execute("redis", "rm", "-f", *SECRETS[1:])
    for user in ("frontend", "order"):
        stack.execute(
            "redis",
            "sh",
            "-c",
            f"redis-cli client kill user {user}",
        )
    # Without a password Redis cannot be had, and nobody else notices.
    wait_for(lambda: cache_header(stack) == "BYPASS", 20, "the cache is gone without")
    said = stack.logs(since_s=30)
    assert "no password for Redis" in said
    stack.container("redis").restart()
    wait_for(lambda: cache_header(stack) == "HIT", 20, "the cache is used again")

    def publishes() -> bool:
        trade(stack)
        return "order" in users_connected(stack)

    wait_for(publishes, 20, "the leader publishes again")
    assert not set(before.split()) & set(stack.execute("redis", "cat", *SECRETS).split())
    assert lives(stack) == started_at


@pytest.mark.slow
def test_lost_volumes_are_made_anew_in_any_order_of_starts(stack: Stack) -> None:
    users = ("frontend", *ORDER_SERVICES)
    before = stack.execute("redis", "cat", *SECRETS[1:])
    stack.compose("rm", "--stop", "--force", "redis", *users)
    for name in ("redis-frontend-secret", "redis-order-secret"):
        stack.remove_volume(name)
    stack.compose("up", "--detach", "--no-deps", "frontend", "order-1")
    stack.up()
    assert not set(before.split()) & set(stack.execute("redis", "cat", *SECRETS[1:]).split())
    wait_for(lambda: cache_header(stack) == "HIT", 20, "the cache is used")
