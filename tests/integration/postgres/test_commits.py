"""A session with a real PostgreSQL, when a COMMIT is not one: in doubt, late, or never sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from catalog.postgres.bounded import Bounded
from catalog.postgres.connection import Connection
from catalog.postgres.session import OfficeRow, SessionLost
from catalog.postgres.statements import FIND_ORDERS
from stack.waiting import wait_for
from tests.integration.postgres.sessions import (
    NOTHING,
    WAIT_S,
    Connecting,
    assert_lost,
    beat,
    bought,
    orders,
)
from tests.support.mechanisms import taken_out
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


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
