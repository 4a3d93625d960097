"""A session with a real PostgreSQL: what a transaction keeps, and which database it takes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from catalog.decisions import Refusal, Registration
from catalog.postgres.address import Address
from catalog.postgres.connection import Connection, connect
from catalog.postgres.fitness import Unfit
from catalog.postgres.session import Changes, OfficeRow, SessionLost
from catalog.settings import Durability
from catalog.stock import Stock
from common.domain import EMPTY_DIGEST, Order
from common.errors import Damaged
from tests.integration.postgres.sessions import (
    NOTHING,
    NOW_S,
    STOCKS,
    Connecting,
    assert_lost,
    beat,
    bought,
    order,
    orders,
)
from tests.support.link import Link
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


# --------------------------------------------------------------- the office


def test_a_new_database_is_free_to_take(session: Connection) -> None:
    row = session.observe()
    assert (row.generation, row.holder, row.released) == (0, "", True)
    assert session.take(row, 7, "host/1")
    assert session.observe() == OfficeRow(1, 7, "host/1", False)


def test_only_one_of_those_that_saw_the_same_takes_it(connecting: Connecting) -> None:
    first, second = connecting(), connecting()
    seen = [first.observe(), second.observe()]
    assert first.take(seen[0], 1, "first")
    assert not second.take(seen[1], 2, "second")
    assert second.observe() == OfficeRow(1, 1, "first", False)


def test_a_beat_since_then_is_no_longer_as_seen(active: Connection, connecting: Connecting) -> None:
    other = connecting()
    seen = other.observe()
    beat(active)
    assert not other.take(seen, 13, "other")
    assert other.take(other.observe(), 13, "other")


def test_many_at_once_make_one_generation(connecting: Connecting) -> None:
    sessions = [connecting() for _ in range(6)]
    seen = [session.observe() for session in sessions]
    taken: list[bool] = []
    threads = [
        threading.Thread(target=lambda each=each, row=row: taken.append(each.take(row, 1, "")))
        for each, row in zip(sessions, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 5 + [True]
    assert sessions[0].observe().generation == 1


def test_the_deposed_find_that_out_before_they_write(
    active: Connection, connecting: Connecting
) -> None:
    other = connecting()
    assert other.take(other.observe(), 21, "other")
    assert active.begin(1, 13, ["id1"]) is None
    assert active.begin(1, 13, []) is None  # no transaction was left open
    assert active.observe() == OfficeRow(2, 21, "other", False)


def test_who_takes_it_waits_for_the_transaction_in_progress(
    active: Connection, connecting: Connecting
) -> None:
    other = connecting()
    seen = other.observe()
    taken: list[bool] = []
    assert active.begin(1, 13, []) is not None
    taking = threading.Thread(target=lambda: taken.append(other.take(seen, 21, "other")))
    taking.start()
    active.commit(bought(orders(1)))
    taking.join()
    assert taken == [False]
    assert active.observe().beat == 13


def test_release_is_for_the_own_generation_only(active: Connection, connecting: Connecting) -> None:
    other = connecting()
    active.release(1, 14)
    assert other.observe() == OfficeRow(1, 14, "first", True)
    assert other.take(other.observe(), 21, "other")
    active.release(1, 15)
    assert other.observe() == OfficeRow(2, 21, "other", False)


# ------------------------------------------------------------- transactions


def test_what_was_committed_is_loaded(active: Connection, connecting: Connecting) -> None:
    rows = orders(3)
    refusal = Refusal("Z", "BUY", 1_000, 0)
    beat(active, bought(rows)._replace(refusals=[("r1", refusal)]))
    beat(active, NOTHING._replace(registration=Registration(1, 3)))
    found = connecting().load()
    assert found.registration == Registration(1, 3)
    assert found.stocks == [STOCKS[0], Stock("Z", Decimal("25.78"), 97, 3)]
    assert (found.last_number, found.digest, found.refusals) == (3, rows[-1].digest, 1)
    assert len(found.cluster_id) == 36


def test_an_empty_catalog_is_loaded(session: Connection) -> None:
    found = session.load()
    assert found.stocks == STOCKS
    assert (found.registration, found.last_number, found.digest) == ((0, 0), 0, EMPTY_DIGEST)


def test_a_transaction_begins_with_the_earlier_decisions(active: Connection) -> None:
    rows, refusal = orders(2), Refusal("nosuch", "SELL", 2, -1)
    beat(active, bought(rows)._replace(refusals=[("r1", refusal)]))
    opened = active.begin(1, 13, ["id2", "r1", "other", "id2"])
    assert opened is not None
    assert opened.registration == Registration(0, 0)
    assert opened.orders == {"id2": rows[1]}
    assert opened.refusals == {"r1": refusal}
    active.roll_back()


def test_what_is_no_request_id_does_not_spoil_the_others(active: Connection) -> None:
    beat(active, bought(orders(1)))
    opened = active.begin(1, 13, ["a\0b", "id1", "\ud800", "", "x" * 300])
    assert opened is not None
    assert list(opened.orders) == ["id1"]
    active.commit(NOTHING)


def test_what_is_rolled_back_never_was(active: Connection) -> None:
    seen = active.observe()
    active.begin(1, 13, [])
    active.roll_back()
    active.roll_back()
    assert active.observe() == seen


@pytest.mark.parametrize(
    "changes",
    [
        bought([*orders(2), order(2)]),
        bought([order(2**70)]),
        bought([Order(1, "a\0b", "Z", "BUY", 1, 1, 1, bytes(32))]),
        bought([Order(1, "a", "Z", "HOLD", 1, 1, 1, bytes(32))]),
        bought([Order(1, "a", "Z", "BUY", 1, 1, 1, b"short")]),
        bought(orders(1))._replace(stocks=[Stock("Z", Decimal(1), -1, 1)]),
        bought(orders(1))._replace(stocks=[Stock("nosuch", Decimal(1), 1, 1)]),
        bought(orders(1))._replace(refusals=[("r", Refusal("Z", "BUY", 1, 5))]),
    ],
)
def test_data_that_it_refuses_leaves_nothing_and_the_session_goes_on(
    active: Connection, changes: Changes
) -> None:
    seen = active.observe()
    active.begin(1, 13, [])
    with pytest.raises((psycopg.DataError, psycopg.IntegrityError)):
        active.commit(changes)
    assert active.observe() == seen
    assert active.load().stocks == STOCKS
    beat(active, bought(orders(1)))
    assert active.load().last_number == 1


def test_the_oldest_refusals_go_first(active: Connection) -> None:
    refusal = Refusal("Z", "BUY", 1_000, 0)
    for age in (3, 1, 2):
        beat(active, Changes([], [], [(f"r{age}", refusal)], NOW_S - age, None))
    active.begin(1, 13, [])
    assert active.delete_refusals(NOW_S - 1, 2) == 2
    assert active.delete_refusals(NOW_S - 2, 2) == 0
    active.commit(NOTHING)
    opened = active.begin(1, 14, ["r1", "r2", "r3"])
    assert opened is not None
    assert list(opened.refusals) == ["r1"]


# -------------------------------------------------------------------- reads


def test_reads_see_what_was_committed_and_go_on_beside_a_transaction(active: Connection) -> None:
    rows = orders(5)
    beat(active, bought(rows))
    active.begin(1, 13, [])
    assert active.journal(0, 3) == rows[:3]
    assert active.journal(3, 10**30) == rows[3:]
    assert active.journal(-(10**30), 1) == rows[:1]
    assert active.journal(0, 0) == active.journal(2**63, 1) == []
    assert active.digest_of(2) == rows[1].digest
    assert [active.digest_of(number) for number in (0, -1, 6, 2**63)] == [None] * 4
    active.commit(NOTHING)


# ------------------------------------------------- what it must not be used as


def test_an_empty_database_is_not_taken_for_a_new_one(server: PostgresServer) -> None:
    name = server.new_database()
    with pytest.raises(Unfit, match="python -m catalog init"):
        connect(Address(server.url(name)), Durability.SINGLE)
    server.drop(name)


@pytest.mark.parametrize("version", [0, 2])
def test_another_schema_is_not_used(
    server: PostgresServer, database: str, admin: psycopg.Connection[Any], version: int
) -> None:
    admin.execute("UPDATE office SET schema_version = %s", (version,))
    with pytest.raises(Unfit, match=f"schema version {version}"):
        connect(Address(server.url(database)), Durability.SINGLE)


def test_replicated_needs_a_standby(server: PostgresServer, database: str) -> None:
    address = Address(server.url(database))
    with pytest.raises(Unfit, match="no synchronous standby"):
        connect(address, Durability.REPLICATED)
    connect(address, Durability.MANAGED).close()


@pytest.mark.parametrize("durability", list(Durability))
def test_an_active_one_looks_for_the_standby_at_each_transaction(
    active: Connection, durability: Durability
) -> None:
    active._durability = durability
    if durability is Durability.REPLICATED:
        with pytest.raises(Unfit, match="no synchronous standby"):
            active.begin(1, 13, [])
        assert_lost(active)
    else:
        beat(active)


def test_a_database_that_sorts_by_language_is_refused(server: PostgresServer) -> None:
    with closing(server.admin()) as connection:
        connection.execute(
            "CREATE DATABASE sorted TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'"
        )
    with pytest.raises(Unfit, match="sort by bytes"):
        connect(Address(server.url("sorted")), Durability.SINGLE)
    server.drop("sorted")


def test_the_order_is_that_of_the_bytes(admin: psycopg.Connection[Any]) -> None:
    found = admin.execute("SELECT name FROM stocks ORDER BY name").fetchall()
    assert found == [("Z",), ("stock2",)]


CHANGES = {
    "a digest": ("UPDATE journal SET digest = sha256('') WHERE number = 3", "order 3 does not"),
    "a field": ("UPDATE journal SET quantity = 2 WHERE number = 1", "order 1 does not follow"),
    "a gap": ("DELETE FROM journal WHERE number = 2", "order 3 does not follow order 1"),
    "the end": ("DELETE FROM journal WHERE number = 4", "Z has version 4, but version 3"),
    "a volume": ("UPDATE stocks SET version = 9 WHERE name = 'Z'", "Z has version 9"),
    "a stock": ("DELETE FROM stocks WHERE name = 'Z'", "Z has version None"),
    "a price": ("UPDATE stocks SET price_cents = 1 WHERE name = 'stock2'", "price .* 'stock2'"),
    "the fence": ("UPDATE office SET epoch = 7", "the fence"),
    "the cluster": ("UPDATE office SET cluster_id = 'other'", "the cluster's id"),
    "the office": ("DELETE FROM office", "the office is gone"),
}


@pytest.mark.parametrize(("statement", "what"), CHANGES.values(), ids=CHANGES)
def test_what_contradicts_itself_is_not_served(
    active: Connection, admin: psycopg.Connection[Any], statement: str, what: str
) -> None:
    beat(active, bought(orders(4)))
    active.load()
    admin.execute(statement)
    with pytest.raises(Damaged, match=what):
        active.load()


def test_only_the_tail_is_audited(active: Connection, admin: psycopg.Connection[Any]) -> None:
    """A takeover has no time for more."""
    rows = orders(1_005)
    for start in (0, 1_000):
        active.begin(1, 12, [])
        part = rows[start : start + 1_000]
        stock = Stock("Z", Decimal(1), 5, rows[start + len(part) - 1].version)
        active.commit(NOTHING._replace(orders=part, stocks=[stock]))
    admin.execute("UPDATE journal SET quantity = 2 WHERE number = 5")
    assert active.load().digest == rows[-1].digest
    admin.execute("UPDATE journal SET quantity = 2 WHERE number = 6")
    with pytest.raises(Damaged, match="order 6 does not follow order 5"):
        active.load()


def test_who_waits_for_the_row_gives_up_before_it_could_be_in_doubt(
    active: Connection, connecting: Connecting
) -> None:
    other = connecting()
    seen = other.observe()
    active.begin(1, 13, [])
    with pytest.raises(SessionLost, match="statement timeout"):
        other.take(seen, 21, "other")
    active.roll_back()
    assert active.observe() == seen


class Distant(Link):
    """Each answer takes so long."""

    delay_s = 0.0

    async def _pump(self, source: socket.socket, sink: socket.socket, gate: asyncio.Event) -> None:
        while data := await self._loop.sock_recv(source, 65_536):
            await asyncio.sleep(self.delay_s if gate is self._answers_pass else 0)
            await self._loop.sock_sendall(sink, data)


def test_a_batch_is_two_round_trips(server: PostgresServer, database: str) -> None:
    with closing(Distant(free_ports(1), server.port)) as link:
        address = Address(f"postgresql://bourse@127.0.0.1:{link.port}/{database}")
        with closing(connect(address, Durability.SINGLE)) as session:
            assert session.take(session.observe(), 11, "first")
            beat(session, bought(orders(1)))  # so that its statements are prepared
            link.delay_s = 0.5
            began_s = time.monotonic()
            session.begin(1, 12, ["id1", "id2"])
            begun_s = time.monotonic()
            session.commit(NOTHING._replace(refusals=[("r1", Refusal("Z", "BUY", 1, 0))]))
            ended_s = time.monotonic()
    assert link.delay_s <= begun_s - began_s < 1.9 * link.delay_s
    assert link.delay_s <= ended_s - begun_s < 1.9 * link.delay_s
