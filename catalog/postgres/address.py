"""Where the database is, and how to open a connection to a node of it that takes writes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from catalog.postgres.bounded import Bounded
from catalog.postgres.session import SessionLost

# Of one node. psycopg takes less for this.
_CONNECT_S = 2

# A connection whose other side is gone is noticed without waiting for what a statement may take.
_ALWAYS: Mapping[str, Any] = {
    "application_name": "bourse catalog",
    "connect_timeout": _CONNECT_S,
    "target_session_attrs": "read-write",
    "load_balance_hosts": "random",  # a host name can have several addresses
    "keepalives": 1,
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 3_000,
}


class NotAnAddress(ValueError):
    """It quotes nothing of the text, in which there can be a password."""


@dataclass(frozen=True)
class Address:
    """A PostgreSQL URL, which may name several nodes.

    Args:
        url: `postgresql://user:password@host:port,host:port/database?parameter=value`.
        password_file: has the password of the URL's user, and is read at each connection. Empty:
            the URL has it, or none is needed.

    Raises:
        NotAnAddress
    """

    url: str = field(repr=False)
    password_file: str = ""

    def __post_init__(self) -> None:
        self._parameters()

    def nodes(self) -> list[str]:
        """`host:port` of each."""
        parameters = self._parameters()
        hosts = str(parameters.get("host") or "localhost").split(",")
        ports = str(parameters.get("port") or "").split(",")
        if len(ports) == 1:
            ports *= len(hosts)
        return [f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=True)]

    def _parameters(self) -> dict[str, Any]:
        try:
            return dict(conninfo_to_dict(self.url))
        except psycopg.Error:
            raise NotAnAddress("it is not a PostgreSQL URL") from None

    def connect(self, node: str, session: Mapping[str, str], wait_s: float) -> Bounded:
        """A connection to that node, on which each statement is a transaction of its own.

        Args:
            node: one of `nodes`, or an address of one of them.
            session: settings of PostgreSQL's, for this connection.
            wait_s: how long the first statement may take.

        Raises:
            SessionLost: it cannot be reached, or takes no writes.
        """
        host, _, port = node.rpartition(":")
        try:
            parameters = {**self._parameters(), **_ALWAYS, "host": host, "port": port}
            if self.password_file:
                password = Path(self.password_file).read_text("utf-8")
                parameters["password"] = password.removesuffix("\n")
            connection = Bounded.connect(autocommit=True, prepare_threshold=0, **parameters)
            connection.allow(wait_s)
            connection.execute(_settings(session), prepare=False)
        except (psycopg.Error, OSError) as error:
            raise SessionLost(f"cannot connect to {node}: {first_line(error)}") from error
        return connection

    def connect_any(self, session: Mapping[str, str], wait_s: float, avoided: str = "") -> Bounded:
        """A connection to any node that takes writes; to the avoided one if it is the only one.

        The order is random: a node that is always tried first, and fails slowly, would make each
        attempt slow.

        Raises:
            SessionLost: there is none; the message tells of the last one that was tried.
        """
        nodes = self.nodes()
        random.shuffle(nodes)
        nodes.sort(key=lambda node: node == avoided)
        for node in nodes[:-1]:
            try:
                return self.connect(node, session, wait_s)
            except SessionLost:
                continue
        return self.connect(nodes[-1], session, wait_s)


def _settings(session: Mapping[str, str]) -> sql.Composed:
    return sql.SQL("; ").join(
        sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in session.items()
    )


def first_line(error: BaseException) -> str:
    """What an error says, as a part of a line of the log."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
