"""The database of three nodes loses no acknowledged row, whichever node dies.

Most tests run it by itself, and one runs the whole service on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.history import Fault, read_history
from stack.offices import ACTIVE, PRIMARY, crash_postgres
from stack.parts import CATALOGS, DATABASE_SERVICES, POSTGRES_SERVICES, ROOT, SERVICES
from stack.waiting import wait_for
from tests.e2e.database import INSERT, RETURN_S, Database
from tests.e2e.hardening import CHECKS
from tests.e2e.injector import played
from tests.e2e.stack import Stack

# With a stack of its own, whose nodes are killed in turn.
pytestmark = pytest.mark.slow

# Until Patroni notices: by its loop, or by the end of the primary's lease (`ttl`).
PROCESS_S, CONTAINER_S = 15.0, 45.0


@pytest.fixture(scope="module")
def started() -> Iterator[Database]:
    stack = Stack(overrides=[ROOT / "compose.ha.yaml"])
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
@pytest.mark.parametrize("service", DATABASE_SERVICES)
def test_a_node_can_do_its_work_and_no_more(
    started: Database, service: str, check: Callable[[Stack, str], None]
) -> None:
    check(started.stack, service)


def test_passwords_are_in_files_only(started: Database) -> None:
    stack = started.stack
    script = "cat /run/passwords/*"
    passwords = stack.execute("postgres-1", "sh", "-c", script).split()
    assert len(passwords) == 4
    for service in (*DATABASE_SERVICES, "database-passwords"):
        container = stack.container(service)
        known = json.dumps([container.attrs, container.image.history()])
        known += container.logs().decode()
        assert [password for password in passwords if password in known] == [], service
    environments = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"
    for service in DATABASE_SERVICES:
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
    code, _ = database.on(primary, INSERT.format(-1), wait_s=4)
    assert code == 124  # of `timeout`: it waits
    for node in standbys:
        database.stack.unpause(node)
    assert database.time_until_written(CONTAINER_S) < CONTAINER_S


def test_without_synchronous_mode_one_node_is_enough(database: Database) -> None:
    """The mechanism of the test before, taken out: such a row would be lost with its node."""
    with without_synchronous_mode(database):
        standbys = sorted(set(POSTGRES_SERVICES) - {database.primary()})
        for node in standbys:
            database.stack.pause(node)
        [primary] = database.running()
        assert database.on(primary, INSERT.format(-3), wait_s=4)[0] == 0
        for node in standbys:
            database.stack.unpause(node)
    assert database.time_until_written(CONTAINER_S) < CONTAINER_S


@contextmanager
def without_synchronous_mode(database: Database) -> Iterator[None]:
    set_to = "patronictl edit-config --force --quiet --set synchronous_mode={}"
    database.stack.execute("postgres-1", "sh", "-c", set_to.format("false"))
    try:
        wait_for(lambda: waits_for(database) == (0, ""), CONTAINER_S, "nobody is waited for")
        yield
    finally:
        database.stack.execute("postgres-1", "sh", "-c", set_to.format("true"))


def waits_for(database: Database) -> tuple[int, str]:
    return database.on(database.primary(), "SHOW synchronous_standby_names")


def test_a_primary_whose_process_died_is_replaced_by_the_standby_that_has_it_all(
    database: Database,
) -> None:
    primary, standby = database.primary(), database.standby()
    crash_postgres(database.stack, primary)
    waited_s = database.time_until_written(PROCESS_S)
    print(f"written again after {waited_s:.1f} s")
    assert database.primary() == standby
    wait_for(lambda: database.streams(primary), RETURN_S, database.roles)


def test_a_primary_whose_container_died_is_replaced(database: Database) -> None:
    primary, standby = database.primary(), database.standby()
    database.stack.kill(primary)
    waited_s = database.time_until_written(CONTAINER_S)
    print(f"written again after {waited_s:.1f} s")
    assert database.primary() == standby
    database.stack.start(primary)
    wait_for(lambda: database.streams(primary), RETURN_S, database.roles)


def test_a_primary_that_was_replaced_and_does_not_know_acknowledges_nothing(
    database: Database,
) -> None:
    """Its Patroni stands still, and so it goes on to take writes."""
    primary, standby = database.primary(), database.standby()
    with patroni_stopped(database, primary):
        wait_for(lambda: is_primary(database, standby), CONTAINER_S, f"{standby} is promoted")
        assert is_primary(database, primary)
        code, _ = database.on(primary, INSERT.format(-2), wait_s=5)
        assert code == 124  # of `timeout`: it waits
    wait_for(lambda: database.streams(primary), RETURN_S, database.roles)
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


def test_the_service_keeps_its_promises_while_the_offices_change_hands(
    database: Database, tmp_path: Path
) -> None:
    database.stack.up()
    faults = [f"crash:{PRIMARY}", f"kill:{ACTIVE}", f"zombie:{PRIMARY}"]
    schedule = " ".join(f"--fault {fault}" for fault in faults)
    schedule += " --every 15 --lasts 5 --for 44 --seed 1 --rate 40"
    done = played(database.stack, schedule, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    [history] = tmp_path.glob("*/history.jsonl")
    told = [one for one in read_history(history) if isinstance(one, Fault)]
    recovered = [one for one in told if one.step == "recovered"]
    assert [f"{one.fault}:{one.target}" for one in recovered] == faults
    crash, kill, zombie = recovered
    assert crash.offices[PRIMARY] != zombie.offices[PRIMARY]  # it was replaced after the crash
    assert kill.hits == (kill.offices[ACTIVE],)
    assert "another was the primary" in [one.detail for one in told]
    database.stack.compose("stop", "--timeout", "1", *SERVICES, CATALOGS[1])


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
