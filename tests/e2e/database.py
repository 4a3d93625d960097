"""The database of three nodes, for tests to write to and to break."""

from __future__ import annotations

import time
from itertools import count

from stack.offices import PRIMARY, STANDBY, Offices
from stack.parts import DATABASE_SERVICES, POSTGRES_SERVICES
from stack.waiting import wait_for
from tests.e2e.stack import Stack

# A former primary recovers, is rewound and catches up.
RETURN_S = 90.0

# As a catalog connects. The password is not on the command line.
AS_CATALOG = """
nodes=postgres-1,postgres-2,postgres-3
export PGPASSWORD=$(cat /run/passwords/bourse) PGCONNECT_TIMEOUT=2
exec timeout {wait_s} psql -XAtq -c "$1" \
"host=$nodes user=bourse dbname=bourse target_session_attrs=read-write"
"""
INSERT = "INSERT INTO tried.rows VALUES ({})"
ON_THIS_NODE = 'exec timeout {wait_s} psql -XAtq -d bourse -c "$1"'


class Database:
    """
    Attributes:
        ready_s: how long `up` took, with images that were built before, and the first row.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._offices = Offices(stack)
        self._numbers = count(1)
        self.acknowledged: list[int] = []
        self.ready_s = 0.0

    def up(self) -> None:
        self.stack.compose(
            "build", "--quiet", *DATABASE_SERVICES, "database-passwords", timeout_s=900
        )
        began = time.monotonic()
        self.stack.compose(
            "up", "--wait", "--wait-timeout", "300", *DATABASE_SERVICES, timeout_s=400
        )
        # Not where the catalog has its tables.
        table = "CREATE SCHEMA tried; CREATE TABLE tried.rows (number integer PRIMARY KEY)"
        wait_for(lambda: self.as_catalog(table)[0] == 0, 60, self.roles)
        self.insert()
        self.ready_s = time.monotonic() - began

    # ------------------------------------------------------------ its nodes

    def running(self) -> list[str]:
        return [node for node in POSTGRES_SERVICES if self.stack.status(node) == "running"]

    def roles(self) -> dict[str, str]:
        """What Patroni says of each node, as `leader running`."""
        return self._offices.members()

    def primary(self) -> str:
        return self._offices.holders()[PRIMARY]

    def standby(self) -> str:
        """The one that has every acknowledged row."""
        return self._offices.holders()[STANDBY]

    def streams(self, node: str) -> bool:
        """Whether it follows the primary. Patroni forgets a node that it has not heard of."""
        return self.roles().get(node, "").endswith("streaming")

    def heal(self) -> None:
        for node in DATABASE_SERVICES:
            self.stack.unpause(node)
            self.stack.start(node)
        wait_for(
            self._offices.database_is_whole,
            RETURN_S,
            lambda: f"{self.roles()}\n{self.stack.logs(lines=30)}",
        )

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
        code, _ = self.as_catalog(INSERT.format(number), wait_s)
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
