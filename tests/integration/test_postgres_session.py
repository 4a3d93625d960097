"""A session with a real PostgreSQL: what a transaction keeps, and when a COMMIT is believed."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from catalog.decisions import Refusal, Registration
from catalog.postgres import migrations
from catalog.postgres.address import Address
from catalog.postgres.bounded import Bounded
from catalog.postgres.connection import Connection, connect
from catalog.postgres.fitness import Unfit
from catalog.postgres.session import Changes, OfficeRow, SessionLost
from catalog.postgres.statements import FIND_ORDERS
from catalog.settings import Durability
from catalog.stock import Stock
from common.domain import EMPTY_DIGEST, Order, next_digest
from common.errors import Damaged
from stack.waiting import wait_for
from tests.support.link import Link
from tests.support.mechanisms import taken_out
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer, running_server

pytestmark = pytest.mark.postgres

# As sorting by bytes has them, and by the rules of no language.
STOCKS = [Stock("stock2", Decimal("0.10"), 50), Stock("Z", Decimal("25.78"), 100)]
WAIT_S = 1.0
NOW_S = 1_700_000_000.0
NOTHING = Changes()


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


Connecting = Callable[[], Connection]


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


def order(number: int, previous: bytes = EMPTY_DIGEST, name: str = "Z", version: int = 0) -> Order:
    row = Order(number, f"id{number}", name, "BUY", 1, version or number, 1)
    return Order(number, row.request_id, name, "BUY", 1, row.version, 1, next_digest(previous, row))


def orders(count: int) -> list[Order]:
    made: list[Order] = []
    for number in range(1, count + 1):
        made.append(order(number, made[-1].digest if made else EMPTY_DIGEST))
    return made


def bought(rows: list[Order]) -> Changes:
    after = Stock("Z", Decimal("25.78"), 100 - len(rows), len(rows))
    return NOTHING._replace(orders=rows, stocks=[after], now_s=NOW_S)


def beat(session: Connection, changes: Changes = NOTHING, generation: int = 1) -> None:
    assert session.begin(generation, 12, []) is not None
    session.commit(changes)


def assert_lost(session: Connection) -> None:
    """Whatever is asked of it."""
    for call in (session.observe, session.load, session.roll_back, lambda: session.journal(0, 1)):
        with pytest.raises(SessionLost):
            call()


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


# --------------------------------------------------- when a COMMIT is not one


def test_a_server_that_is_gone_ends_the_session(server: PostgresServer, active: Connection) -> None:
    active.begin(1, 13, [])
    server.kill()
    try:
        with pytest.raises(SessionLost):
            active.commit(bought(orders(1)))
        assert_lost(active)
    finally:
        server.start()


def test_a_server_that_dies_during_the_commit_leaves_it_in_doubt(
    server: PostgresServer, active: Connection, connecting: Connecting
) -> None:
    active.begin(1, 13, [])
    with server.paused():
        outcome = in_background(lambda: active.commit(bought(orders(1))))
        time.sleep(0.1)
        server.kill()
    try:
        assert isinstance(outcome(), SessionLost)
        assert_lost(active)
    finally:
        server.start()
    assert connecting().load().last_number in (0, 1)


def in_background(act: Callable[[], object]) -> Callable[[], object]:
    """Runs it; the result is what waits for it and returns what it raised or returned."""
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(act())
        except Exception as error:
            outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def outcome() -> object:
        thread.join(30)
        (found,) = outcomes
        return found

    return outcome


@contextmanager
def waiting_for_a_standby(server: PostgresServer) -> Iterator[None]:
    """Every COMMIT waits for a standby that does not exist."""
    server.set("synchronous_standby_names", "nobody")
    try:
        server.wait_until_commits_wait()
        yield
    finally:
        server.set("synchronous_standby_names", "")


def cancel_waiting_commits(admin: psycopg.Connection[Any]) -> None:
    sql = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    found = wait_for(lambda: admin.execute(sql).fetchall(), 10, "no COMMIT waits for a standby")
    for (process,) in found:
        admin.execute("SELECT pg_cancel_backend(%s)", (process,))


WRITES: dict[str, Callable[[Connection], object]] = {
    "commit": lambda session: session.commit(bought(orders(1))),
    "replay": lambda session: session.commit(NOTHING),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_commit_whose_wait_was_cancelled_is_in_doubt(
    server: PostgresServer,
    active: Connection,
    admin: psycopg.Connection[Any],
    write: Callable[[Connection], object],
) -> None:
    active.begin(1, 13, [])
    with waiting_for_a_standby(server):
        outcome = in_background(lambda: write(active))
        cancel_waiting_commits(admin)
        error = outcome()
    assert isinstance(error, SessionLost)
    assert "in doubt: canceling wait for synchronous replication" in error.message
    assert_lost(active)
    assert admin.execute("SELECT beat FROM office").fetchone() == (13,)  # though it is here


def test_an_office_taken_so_is_not_taken(
    server: PostgresServer, session: Connection, admin: psycopg.Connection[Any]
) -> None:
    seen = session.observe()
    with waiting_for_a_standby(server):
        outcome = in_background(lambda: session.take(seen, 7, ""))
        cancel_waiting_commits(admin)
        assert isinstance(outcome(), SessionLost)


def test_without_looking_at_the_warning_it_is_taken_for_done(
    server: PostgresServer, active: Connection, admin: psycopg.Connection[Any]
) -> None:
    active.begin(1, 13, [])
    with taken_out("warned commit"), waiting_for_a_standby(server):
        outcome = in_background(lambda: active.commit(bought(orders(1))))
        cancel_waiting_commits(admin)
        assert outcome() is None


def test_a_commit_that_nobody_confirms_is_late(server: PostgresServer, active: Connection) -> None:
    active.begin(1, 13, [])
    with waiting_for_a_standby(server):
        began_s = time.monotonic()
        with pytest.raises(SessionLost, match="did not answer in time"):
            active.commit(NOTHING)
        assert WAIT_S <= time.monotonic() - began_s < WAIT_S + 3
    assert_lost(active)


CALLS: dict[str, Callable[[Connection], object]] = {
    "observe": Connection.observe,
    "take": lambda session: session.take(OfficeRow(0, 0, "", True), 1, ""),
    "load": Connection.load,
    "begin": lambda session: session.begin(1, 1, ["a"]),
    "journal": lambda session: session.journal(0, 1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_server_that_stands_still_is_late(
    server: PostgresServer, session: Connection, call: Callable[[Connection], object]
) -> None:
    with server.paused():
        began_s = time.monotonic()
        with pytest.raises(SessionLost, match="did not answer in time"):
            call(session)
        assert time.monotonic() - began_s < WAIT_S + 3
    assert_lost(session)


def test_without_the_bound_it_waits_as_long_as_that(
    server: PostgresServer, active: Connection
) -> None:
    with taken_out("bounded wait"):
        with server.paused():
            outcome = in_background(active.observe)
            time.sleep(2 * WAIT_S)
        assert isinstance(outcome(), OfficeRow)


def test_a_catalog_that_stands_still_does_not_keep_the_row(
    active: Connection, connecting: Connecting
) -> None:
    active.begin(1, 13, [])
    taken = wait_for(lambda: try_to_take(connecting), 10, "the row is still locked")
    assert taken.observe() == OfficeRow(2, 21, "other", False)
    with pytest.raises(SessionLost):
        active.commit(bought(orders(1)))
    assert taken.load().last_number == 0


def test_without_an_end_free_of_flushes_it_does(active: Connection, connecting: Connecting) -> None:
    """Not each time: the server can read the Flush before it begins to count."""
    holder = active
    for generation in range(1, 6):
        other = connecting()
        seen = other.observe()
        with taken_out("no flush"):
            holder.begin(generation, 13, [])
        time.sleep(3)  # longer than it may be idle in a transaction
        if "statement timeout" in why_not_taken(other, seen):
            return
        holder = other
    raise AssertionError("the row was free each time")


def test_a_catalog_that_stands_still_between_two_statements_does_not_keep_the_row(
    active: Connection, connecting: Connecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert taken_between_two_statements(active, connecting(), monkeypatch) == ""


def test_with_each_statement_sent_by_itself_it_does(
    active: Connection, connecting: Connecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken_out("sent as one"):
        said = taken_between_two_statements(active, connecting(), monkeypatch)
    assert "statement timeout" in said


def taken_between_two_statements(
    active: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Begins a transaction, and lets another catalog try to take the office in the midst of that.

    Empty if it could.
    """
    seen, said = other.observe(), []
    execute = Bounded.execute

    def stand_still(connection: Bounded, text: str, *values: Any, **options: Any) -> Any:
        if text == FIND_ORDERS:
            time.sleep(0.2)  # the server has done what it has by now
            said.append(why_not_taken(other, seen))
        return execute(connection, text, *values, **options)

    monkeypatch.setattr(Bounded, "execute", stand_still)
    with suppress(SessionLost):  # after so long a pause its time may be over
        active.begin(1, 13, ["a"])
    [found] = said
    return found


def why_not_taken(session: Connection, seen: OfficeRow) -> str:
    """Empty if it was taken."""
    try:
        return "" if session.take(seen, 21, "other") else "not as seen"
    except SessionLost as error:
        return error.message


def try_to_take(connecting: Connecting) -> Connection | None:
    session = connecting()
    try:
        return session if session.take(session.observe(), 21, "other") else None
    except SessionLost:  # it waited as long as it may
        return None


def test_an_interrupted_commit_is_in_doubt(
    server: PostgresServer, active: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C: nothing cancels it, and nobody takes it for done."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    active.begin(1, 13, [])
    monkeypatch.setattr(psycopg.waiting, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        active.commit(bought(orders(1)))
    monkeypatch.undo()
    assert_lost(active)


def test_a_server_that_takes_writes_no_more_ends_the_session(
    active: Connection, admin: psycopg.Connection[Any]
) -> None:
    beat(active)
    admin.execute("ALTER TABLE office RENAME beat TO pulse")
    with pytest.raises(SessionLost, match="beat"):
        active.begin(1, 14, [])
    assert_lost(active)


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
