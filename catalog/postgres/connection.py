"""A `Session` with PostgreSQL: statements sent together, bounded waits, no COMMIT in doubt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg

from catalog.decisions import Registration
from catalog.postgres import statements as sql
from catalog.postgres.address import Address, first_line
from catalog.postgres.audit import LOADING, loaded
from catalog.postgres.bounded import Bounded
from catalog.postgres.fitness import NO_STANDBY, Unfit, check_fit, check_version
from catalog.postgres.session import (
    DATA_ERRORS,
    Changes,
    Loaded,
    OfficeRow,
    Opened,
    SessionLost,
)
from catalog.settings import Durability
from common.domain import MAX_ORDER_NUMBER, Order, is_valid_request_id

logger = logging.getLogger(__name__)

# For each round trip; longer than a busy disk or a standby that reconnects takes. A node that is
# slower is worse than none: another one may be faster, and nobody can be while this one is held.
WAIT_S = 3.0

Cursor = psycopg.Cursor[tuple[Any, ...]]


def settings_of_a_session(wait_s: float) -> dict[str, str]:
    """Of PostgreSQL's; a URL, a role or a database may say otherwise, and must not."""
    return {
        "synchronous_commit": "on",
        # What is in doubt is said in a warning.
        "client_min_messages": "warning",
        # A catalog that stands still must not keep the row of the office for ever.
        "idle_in_transaction_session_timeout": "2s",
        # A statement must not wait for a lock when its catalog has given up: it would take effect
        # later. So it gives up before that.
        "statement_timeout": f"{int(wait_s * 800)}ms",
        "client_connection_check_interval": "1s",
    }


def connect(
    address: Address, durability: Durability, avoided: str = "", wait_s: float = WAIT_S
) -> Connection:
    """A session with a node that takes writes; with the avoided one only if there is no other.

    Args:
        avoided: a `Connection.node`; empty for none.
        wait_s: how long each later call may wait for the database.

    Raises:
        SessionLost: no node can be reached.
        Unfit: the database cannot keep what is promised.
    """
    session = settings_of_a_session(wait_s)
    writer = address.connect_any(session, wait_s, avoided)
    try:
        reader = address.connect(_node(writer), session, wait_s)
    except BaseException:
        writer.close()
        raise
    connection = Connection(writer, reader, durability, wait_s)
    try:
        connection.check()
    except BaseException:
        connection.close()
        raise
    return connection


def _node(connection: Bounded) -> str:
    """As an address of `Address.nodes` has it, though psycopg has looked up the host's name."""
    return f"{connection.info.host}:{connection.info.port}"


class Connection:
    """
    Args:
        writer: for the transactions.
        reader: to the same node, for reads beside them.
        wait_s: how long each call may wait for the database.
    """

    def __init__(
        self, writer: Bounded, reader: Bounded, durability: Durability, wait_s: float
    ) -> None:
        self.node = _node(writer)
        self._writer = writer
        self._reader = reader
        self._durability = durability
        self._wait_s = wait_s
        self._reading = threading.Lock()
        self._lost = ""  # why the session is of no more use
        self._warnings: list[str] = []  # since the last COMMIT was sent
        writer.add_notice_handler(self._note)
        for connection in (writer, reader):
            sql.use_one_type_of_integer(connection)

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings.append(notice.message_primary or "a warning without words")

    # ------------------------------------------------------------ the office

    def check(self) -> None:
        """Raises Unfit or SessionLost if this database must not be used, or not over this."""
        with self._reading:
            nodes = [self._server_of(each) for each in (self._writer, self._reader)]
        if nodes[0] != nodes[1]:
            self._lose("the two connections are to different servers")
        with self._using(self._writer):
            check_fit(self._writer, self._durability)
        self.observe()

    def _server_of(self, connection: Bounded) -> object:
        with self._using(connection):
            return _rows(connection.execute("SELECT pg_postmaster_start_time()"))

    def observe(self) -> OfficeRow:
        with self._using(self._writer):
            try:
                found = _rows(self._writer.execute(sql.OBSERVE))
            except psycopg.errors.UndefinedTable as error:
                raise Unfit(
                    "this database has no catalog: `python -m catalog init` makes one in it"
                ) from error
        if len(found) != 1:
            raise Unfit(f"the office has {len(found)} rows: this database is damaged")
        version, *row = found[0]
        check_version(version)
        return OfficeRow(*row)

    def take(self, seen: OfficeRow, beat: int, holder: str) -> bool:
        with self._using(self._writer):
            check_fit(self._writer, self._durability)
        return self._write_alone(sql.TAKE, (beat, holder, seen.generation, seen.beat))

    def release(self, generation: int, beat: int) -> None:
        self._write_alone(sql.RELEASE, (beat, generation))

    def _write_alone(self, statement: str, values: Sequence[Any]) -> bool:
        """A transaction of one statement; returns whether that found its row."""
        with self._using(self._writer):
            self._warnings.clear()
            _, written, ended = self._together(
                self._writer, [(sql.BEGIN, ()), (statement, values), (sql.COMMIT, ())]
            )
            self._confirm(ended)
            return bool(_rows(written))

    def load(self) -> Loaded:
        with self._using(self._writer):
            _, *found, _ = self._together(
                self._writer, [(sql.BEGIN_SNAPSHOT, ()), *LOADING, (sql.COMMIT, ())]
            )
            rows = [_rows(one) for one in found]
        return loaded(*rows)

    # ------------------------------------------------------------ transactions

    def begin(self, generation: int, beat: int, request_ids: Sequence[str]) -> Opened | None:
        # What is no request id was never decided, and may be no text that PostgreSQL can hold.
        asked = list(filter(is_valid_request_id, request_ids))
        finding = [(sql.FIND_ORDERS, (asked,)), (sql.FIND_REFUSALS, (asked,))] if asked else []
        with self._using(self._writer):
            _, beaten, *found = self._together(
                self._writer,
                [(sql.BEGIN, ()), (sql.WRITE_BEAT, (beat, generation)), *finding],
            )
            office = _rows(beaten)
            orders, refusals = [_rows(one) for one in found] if asked else ([], [])
            if office and not (office[0][-1] or self._durability is not Durability.REPLICATED):
                raise Unfit(NO_STANDBY)
        if not office:
            self.roll_back()
            return None
        epoch, leader_id, _ = office[0]
        return Opened(
            Registration(epoch, leader_id),
            sql.orders_by_id(orders),
            sql.refusals_by_id(refusals),
        )

    def commit(self, changes: Changes) -> None:
        with self._using(self._writer):
            self._warnings.clear()
            *_, ended = self._together(self._writer, [*sql.writes(changes), (sql.COMMIT, ())])
            self._confirm(ended)

    def _confirm(self, ended: Cursor) -> None:
        """Loses the session unless the COMMIT is done, and as safe as it must be."""
        if ended.statusmessage != "COMMIT":
            self._lose(f"the server answered {ended.statusmessage} to a COMMIT")
        # Without it, an answered trade may be lost ("warned commit": test_commits.py).
        if self._is_in_doubt():
            self._lose(f"a COMMIT is in doubt: {'; '.join(self._warnings)}")

    def _is_in_doubt(self) -> bool:
        """PostgreSQL says so in a warning when somebody cancels the wait for the standby."""
        return bool(self._warnings)

    def roll_back(self) -> None:
        with self._using(self._writer):
            if self._writer.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
                self._writer.execute(sql.ROLLBACK, prepare=False)

    def delete_refusals(self, until_s: float, limit: int) -> int:
        with self._using(self._writer):
            return self._writer.execute(sql.DELETE_REFUSALS, (until_s, limit)).rowcount

    # ------------------------------------------------------------ reads

    def journal(self, after: int, limit: int) -> list[Order]:
        if after >= MAX_ORDER_NUMBER or limit < 1:
            return []
        with self._reading, self._using(self._reader):
            limit = min(limit, MAX_ORDER_NUMBER)
            found = self._reader.execute(sql.ORDERS_ABOVE, (max(0, after), limit), binary=True)
            return [Order(*row) for row in _rows(found)]

    def digest_of(self, number: int) -> bytes | None:
        if not 1 <= number <= MAX_ORDER_NUMBER:
            return None
        with self._reading, self._using(self._reader):
            found = _rows(self._reader.execute(sql.DIGEST_OF, (number,)))
        return found[0][0] if found else None

    # ------------------------------------------------------------ using the connections

    def close(self) -> None:
        """Call it while no other call but reads is in progress; it waits for those."""
        self._lost = self._lost or "it was closed"
        self._writer.close()
        with self._reading:
            self._reader.close()

    @contextmanager
    def _using(self, connection: Bounded) -> Iterator[None]:
        """Whatever goes wrong inside ends the session, but for data that PostgreSQL refuses."""
        if self._lost:
            connection.close()
            raise SessionLost(f"{self.node}: {self._lost}")
        connection.allow(self._wait_s)
        try:
            yield
        except DATA_ERRORS:
            self._undo(connection)
            raise
        except SessionLost as error:
            self._lost = self._lost or error.message
            connection.close()
            raise
        except psycopg.Error as error:
            connection.close()
            self._lose(first_line(error), error)
        except BaseException:
            self._lost = "it was interrupted"
            connection.close()
            raise

    def _undo(self, connection: Bounded) -> None:
        """Rolls back what PostgreSQL refused: it did nothing of what was sent after that."""
        if connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
            return
        try:
            connection.execute(sql.ROLLBACK, prepare=False)
        except psycopg.Error as error:
            connection.close()
            self._lose(first_line(error), error)

    def _lose(self, why: str, error: Exception | None = None) -> NoReturn:
        self._lost = self._lost or why
        raise SessionLost(f"{self.node}: {self._lost}") from error

    def _together(self, connection: Bounded, what: Iterable[sql.Statement]) -> list[Cursor]:
        """Sends the statements in one round trip. If one fails, the server skips all after it."""
        try:
            with connection.pipeline():  # its end waits for the answers
                return [connection.execute(text, values or None) for text, values in what]
        except psycopg.errors.PipelineAborted as error:
            # That is of a statement that was skipped.
            if isinstance(error.__context__, psycopg.Error):
                raise error.__context__ from None
            raise


def _rows(cursor: Cursor) -> list[tuple[Any, ...]]:
    return cursor.fetchall()
