"""Fixtures of the tests on a real PostgreSQL: a catalog in a new database, and sessions with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from catalog.decisions import Registration
from catalog.postgres import migrations
from catalog.postgres.address import Address
from catalog.postgres.connection import Connection, connect
from catalog.settings import Durability
from tests.integration.postgres.sessions import STOCKS, WAIT_S, Connecting
from tests.support.postgres import PostgresServer, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_server() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    name = new_catalog(server)
    yield name
    server.drop(name)


def new_catalog(server: PostgresServer) -> str:
    name = server.new_database()
    with migrations.changing(Address(server.url(name))) as connection:
        migrations.create(connection, STOCKS, Registration(0, 0))
    return name


@pytest.fixture
def connecting(server: PostgresServer, database: str) -> Iterator[Connecting]:
    made: list[Connection] = []

    def make() -> Connection:
        address = Address(server.url(database))
        made.append(connect(address, Durability.SINGLE, wait_s=WAIT_S))
        return made[-1]

    yield make
    for session in made:
        session.close()


@pytest.fixture
def session(connecting: Connecting) -> Connection:
    return connecting()


@pytest.fixture
def active(session: Connection) -> Connection:
    """It has taken generation 1."""
    assert session.take(session.observe(), 11, "first")
    return session


@pytest.fixture
def admin(server: PostgresServer, database: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(server.admin(database)) as connection:
        yield connection
