"""The database of three nodes by itself: it loses no acknowledged row, whichever node dies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from stack.parts import ETCD_SERVICES, POSTGRES_SERVICES, ROOT
from stack.waiting import wait_for
from tests.e2e.hardening import CHECKS
from tests.e2e.stack import Stack

# With a stack of its own, whose nodes are killed in turn.
pytestmark = pytest.mark.slow

NODES = (*POSTGRES_SERVICES, *ETCD_SERVICES)

# Until Patroni notices: by its loop, or by the end of the primary's lease (`ttl`).
PROCESS_S, CONTAINER_S = 15.0, 45.0
# A former primary recovers, is rewound and catches up.
RETURN_S = 90.0

# As a catalog connects. The password is not on the command line.
AS_CATALOG = """
nodes=postgres-1,postgres-2,postgres-3
export PGPASSWORD=$(cat /run/passwords/bourse) PGCONNECT_TIMEOUT=2
exec timeout {wait_s} psql -XAtq -c "$1" \
"host=$nodes user=bourse dbname=bourse target_session_attrs=read-write"
"""
_INSERT = "INSERT INTO tried.rows VALUES ({})"
ON_THIS_NODE = 'exec timeout {wait_s} psql -XAtq -d bourse -c "$1"'


class Database:
    """
    Attributes:
        ready_s: how long `up` took, with images that were built before, and the first row.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._numbers = count(1)
        self.acknowledged: list[int] = []
        self.ready_s = 0.0

    def up(self) -> None:
        self.stack.compose("build", "--quiet", *NODES, "database-passwords", timeout_s=900)
        began = time.monotonic()
        self.stack.compose("up", "--wait", "--wait-timeout", "300", *NODES, timeout_s=400)
        # Not where the catalog has its tables.
        table = "CREATE SCHEMA tried; CREATE TABLE tried.rows (number integer PRIMARY KEY)"
        wait_for(lambda: self.as_catalog(table)[0] == 0, 60, self.roles)
        self.insert()
        self.ready_s = time.monotonic() - began

    # ------------------------------------------------------------ its nodes

    def running(self) -> list[str]:
        return [node for node in POSTGRES_SERVICES if self.stack.status(node) == "running"]

    def roles(self) -> dict[str, str]:
        """What Patroni says of each node, as `Leader running`."""
        # Without what it says of a member of etcd that does not answer.
        script = "patronictl list --format json 2> /dev/null"
        said = self.stack.execute(self.running()[0], "sh", "-c", script)
        return {one["Member"]: f"{one['Role']} {one['State']}" for one in json.loads(said)}

    def primary(self) -> str:
        return self._node_that_is("Leader running")

    def standby(self) -> str:
        """The one that has every acknowledged row."""
        return self._node_that_is("Sync Standby streaming")

    def _node_that_is(self, role: str) -> str:
        return next(node for node, found in self.roles().items() if found == role)

    def is_whole(self) -> bool:
        return sorted(self.roles().values()) == [
            "Leader running",
            "Replica streaming",
            "Sync Standby streaming",
        ]

    def heal(self) -> None:
        for node in NODES:
            self.stack.unpause(node)
            self.stack.start(node)
        wait_for(self.is_whole, RETURN_S, lambda: f"{self.roles()}\n{self.stack.logs(lines=30)}")

    # ------------------------------------------------------------ its rows

    def as_catalog(self, sql: str, wait_s: float = 5) -> tuple[int, str]:
        """At whichever node takes writes, over the network; the exit code and what was printed."""
        return self._shell(self.running()[0], AS_CATALOG.format(wait_s=wait_s), sql)

    def on(self, node: str, sql: str, wait_s: float = 5) -> tuple[int, str]:
        """At that node, as the superuser."""
        return self._shell(node, ON_THIS_NODE.format(wait_s=wait_s), sql)

    def _shell(self, node: str, script: str, argument: str) -> tuple[int, str]:
        return self.stack.attempt(node, "bash", "-c", script, "bash", argument)

    def insert(self, wait_s: float = 5) -> bool:
        """Whether a new row was acknowledged."""
        number = next(self._numbers)
        code, _ = self.as_catalog(_INSERT.format(number), wait_s)
        self.acknowledged += [number] if code == 0 else []
        return code == 0

    def numbers(self, node: str) -> set[int]:
        return {int(line) for line in self.on(node, "SELECT number FROM tried.rows")[1].split()}

    def time_until_written(self, timeout_s: float) -> float:
        began = time.monotonic()
        wait_for(self.insert, timeout_s, lambda: f"{self.roles()}\n{self.stack.logs(lines=30)}")
        return time.monotonic() - began

    def check_nothing_is_lost(self) -> None:
        for node in POSTGRES_SERVICES:
            wait_for(
                lambda node=node: set(self.acknowledged) <= self.numbers(node),  # type: ignore[misc]
                10,
                lambda node=node: f"all of {self.acknowledged} at {node}: {self.numbers(node)}",  # type: ignore[misc]
            )


@pytest.fixture(scope="module")
def started() -> Iterator[Database]:
    stack = Stack(override=ROOT / "compose.ha.yaml")
    try:
        database = Database(stack)
        database.up()
        yield database
    finally:
        stack.down()


@pytest.fixture
def database(started: Database) -> Iterator[Database]:
    """With all its nodes; afterwards each of them has every row that was acknowledged."""
    started.heal()
    yield started
    started.heal()
    started.check_nothing_is_lost()


def test_it_is_ready_in_time(database: Database) -> None:
    print(f"ready after {database.ready_s:.1f} s")
    assert database.ready_s < 60


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("service", NODES)
def test_a_node_can_do_its_work_and_no_more(
    started: Database, service: str, check: Callable[[Stack, str], None]
) -> None:
    check(started.stack, service)


def test_passwords_are_in_files_only(started: Database) -> None:
    stack = started.stack
    script = "cat /run/passwords/*"
    passwords = stack.execute("postgres-1", "sh", "-c", script).split()
    assert len(passwords) == 4
    for service in (*NODES, "database-passwords"):
        container = stack.container(service)
        known = json.dumps([container.attrs, container.image.history()])
        known += container.logs().decode()
        assert [password for password in passwords if password in known] == [], service
    environments = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"
    for service in NODES:
        known = stack.execute(service, "sh", "-c", environments)
        assert [password for password in passwords if password in known] == [], service


def test_nobody_gets_in_without_a_password(started: Database) -> None:
    for role, database, reason in (
        ("postgres", "postgres", "no pg_hba.conf entry"),
        ("postgres", "bourse", "no pg_hba.conf entry"),
        ("rewind", "bourse", "no pg_hba.conf entry"),
        ("bourse", "postgres", "no pg_hba.conf entry"),
        ("bourse", "bourse", "no password supplied"),
        ("rewind", "postgres", "no password supplied"),
    ):
        where = f"host=postgres-2 user={role} dbname={database}"
        code, said = started.stack.attempt("postgres-1", "psql", where, "-c", "SELECT 1")
        assert (code != 0, reason in said) == (True, True), said


RESTART = """
import http.client
node = http.client.HTTPConnection("postgres-2", 8008, timeout=5)
node.request("POST", "/restart", "{}")
print(node.getresponse().status)
"""


def test_nobody_commands_patroni_without_its_password(started: Database) -> None:
    assert started.stack.execute("postgres-1", "python3", "-c", RESTART) == "401"


def test_text_is_sorted_by_its_bytes(started: Database) -> None:
    names = "(VALUES ('b'), ('A'), ('a'), ('B')) AS names(name)"
    sql = f"SELECT string_agg(name, '' ORDER BY name) FROM {names}"  # noqa: S608 - constants
    assert started.as_catalog(sql) == (0, "ABab")


def test_a_row_is_acknowledged_only_when_two_nodes_have_it(database: Database) -> None:
    standbys = sorted(set(POSTGRES_SERVICES) - {database.primary()})
    for node in standbys:
        database.stack.pause(node)
    # From the primary, because the others stand still.
    [primary] = database.running()
    code, _ = database.on(primary, _INSERT.format(-1), wait_s=4)
    assert code == 124  # of `timeout`: it waits
    for node in standbys:
        database.stack.unpause(node)
    assert database.time_until_written(CONTAINER_S) < CONTAINER_S


def test_a_primary_whose_process_died_is_replaced_by_the_standby_that_has_it_all(
    database: Database,
) -> None:
    primary, standby = database.primary(), database.standby()
    database.stack.execute(primary, "sh", "-c", "kill -9 $(head -n 1 /data/pgdata/postmaster.pid)")
    waited_s = database.time_until_written(PROCESS_S)
    print(f"written again after {waited_s:.1f} s")
    assert database.primary() == standby
    wait_for(lambda: database.roles()[primary].endswith("streaming"), RETURN_S, database.roles)


def test_a_primary_whose_container_died_is_replaced(database: Database) -> None:
    primary, standby = database.primary(), database.standby()
    database.stack.kill(primary)
    waited_s = database.time_until_written(CONTAINER_S)
    print(f"written again after {waited_s:.1f} s")
    assert database.primary() == standby
    database.stack.start(primary)
    wait_for(lambda: database.roles()[primary].endswith("streaming"), RETURN_S, database.roles)


def test_a_primary_that_was_replaced_and_does_not_know_acknowledges_nothing(
    database: Database,
) -> None:
    """Its Patroni stands still, and so it goes on to take writes."""
    primary, standby = database.primary(), database.standby()
    with patroni_stopped(database, primary):
        wait_for(lambda: is_primary(database, standby), CONTAINER_S, f"{standby} is promoted")
        assert is_primary(database, primary)
        code, _ = database.on(primary, _INSERT.format(-2), wait_s=5)
        assert code == 124  # of `timeout`: it waits
    wait_for(lambda: database.roles()[primary].endswith("streaming"), RETURN_S, database.roles)
    assert -2 not in database.numbers(primary)
    assert database.insert()


@contextmanager
def patroni_stopped(database: Database, node: str) -> Iterator[None]:
    signal = "grep -lz bin/patron[i] /proc/[0-9]*/cmdline | cut -d / -f 3 | xargs kill -{}"
    database.stack.execute(node, "sh", "-c", signal.format("STOP"))
    try:
        yield
    finally:
        database.stack.execute(node, "sh", "-c", signal.format("CONT"))


def is_primary(database: Database, node: str) -> bool:
    return database.on(node, "SELECT pg_is_in_recovery()") == (0, "f")


def test_writes_go_on_without_a_standby_and_without_a_member_of_etcd(database: Database) -> None:
    database.stack.kill(database.standby())
    assert database.time_until_written(CONTAINER_S) < CONTAINER_S
    database.heal()
    database.stack.kill("etcd-1")
    primary = database.primary()
    for _ in range(10):
        assert database.insert()
        time.sleep(1)
    assert database.primary() == primary


def test_the_database_is_filled_once_and_one_that_was_lost_is_not(database: Database) -> None:
    stack = database.stack
    init = ("run", "--rm", "--no-deps", "database-init")
    stocks = "SELECT count(*) > 0 FROM stocks"
    stack.compose("build", "--quiet", "database-init", timeout_s=900)
    stack.compose(*init)
    assert database.as_catalog(stocks) == (0, "t")
    assert stack.compose(*init) == ""
    assert database.as_catalog("DROP TABLE office, stocks, journal, refusals")[0] == 0
    assert stack.compose(*init) == ""
    code, said = database.as_catalog(stocks)
    assert (code != 0, 'relation "stocks" does not exist' in said) == (True, True), said
