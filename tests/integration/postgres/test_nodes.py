"""A PostgreSQL of several nodes: which one a session goes to, and what a standby's absence does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal

import pytest

from catalog.decisions import Registration
from catalog.postgres import migrations
from catalog.postgres.address import Address
from catalog.postgres.connection import Connection, connect
from catalog.postgres.fitness import Unfit
from catalog.postgres.session import Changes, SessionLost
from catalog.settings import Durability
from catalog.stock import Stock
from stack.waiting import wait_for
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer, running_server

pytestmark = pytest.mark.postgres

WAIT_S = 1.0
NOTHING = Changes()


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with running_server() as server:
        with migrations.changing(Address(server.url("postgres"))) as connection:
            migrations.create(
                connection, [Stock("stock1", Decimal("25.78"), 100)], Registration(0, 0)
            )
        yield server


@contextmanager
def standby_of(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Every COMMIT of the primary waits for it."""
    with running_server({"hot_standby": "on"}, primary) as standby:
        primary.set("synchronous_standby_names", "standby")
        wait_for(lambda: is_synchronous(primary), 10, "the standby does not stream")
        yield standby


def is_synchronous(primary: PostgresServer) -> bool:
    with closing(primary.admin()) as connection:
        found = connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall()
    return found == [("sync",)]


def address_of(*ports: int) -> Address:
    nodes = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Address(f"postgresql://bourse@{nodes}/postgres")


def open_session(address: Address, avoided: str = "") -> Connection:
    return connect(address, Durability.REPLICATED, avoided, WAIT_S)


def test_a_session_goes_to_the_node_that_takes_writes(primary: PostgresServer) -> None:
    nobody = free_ports(1)
    with standby_of(primary) as standby:
        address = address_of(nobody, standby.port, primary.port)
        assert len(address.nodes()) == 3
        writable = f"127.0.0.1:{primary.port}"
        for avoided in ("", writable, address.nodes()[0]):
            with closing(open_session(address, avoided)) as session:
                assert session.node == writable
        with pytest.raises(SessionLost, match=f"cannot connect to 127.0.0.1:{standby.port}"):
            open_session(address_of(standby.port))


def test_the_node_that_failed_is_tried_last(primary: PostgresServer) -> None:
    primary.set("synchronous_standby_names", "")
    with running_server() as other:
        with migrations.changing(Address(other.url("postgres"))) as connection:
            migrations.create(
                connection, [Stock("stock1", Decimal("25.78"), 100)], Registration(0, 0)
            )
        address = address_of(primary.port, other.port)
        for avoided, chosen in (address.nodes(), reversed(address.nodes())):
            for _ in range(5):
                with closing(connect(address, Durability.SINGLE, avoided)) as session:
                    assert session.node == chosen


def test_what_is_committed_is_on_the_standby_too(primary: PostgresServer) -> None:
    with standby_of(primary) as standby:
        with closing(open_session(address_of(primary.port))) as session:
            assert session.take(session.observe(), 7, "host/1")
            session.begin(1, 8, [])
            session.commit(NOTHING._replace(registration=Registration(1, 3)))
        primary.kill()
        with closing(standby.admin()) as connection:
            connection.execute("SELECT pg_promote()")
            sql = "SELECT generation, beat, epoch, leader_id FROM office"
            assert connection.execute(sql).fetchone() == (1, 8, 1, 3)
        with closing(connect(address_of(standby.port), Durability.SINGLE)) as session:
            assert session.load().registration == Registration(1, 3)
            assert session.take(session.observe(), 9, "host/2")


def test_without_the_standby_no_commit_is_believed(primary: PostgresServer) -> None:
    with standby_of(primary) as standby:
        session = open_session(address_of(primary.port))
        assert session.take(session.observe(), 7, "host/1")
        assert session.begin(1, 8, []) is not None
        standby.kill()
        began_s = time.monotonic()
        with pytest.raises(SessionLost):
            session.commit(NOTHING)  # no more than the beat: a repeat that was decided before
        assert time.monotonic() - began_s < WAIT_S + 3
        session.close()
        wait_for(lambda: not is_synchronous(primary), 10, "the standby is still counted on")
        with pytest.raises(Unfit, match="no synchronous standby"):
            open_session(address_of(primary.port))
