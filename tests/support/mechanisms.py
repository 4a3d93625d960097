"""The mechanisms that the promises rest on, each with what stands in for it when it is taken out.

A test that claims a mechanism is needed runs without it and must turn red. The code names those
tests next to each mechanism.
"""

from __future__ import annotations

import itertools
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import psycopg

import frontend.quotes.cache
from catalog.decisions import Decision, OpenBatch
from catalog.leases import Leases
from catalog.postgres.store import PostgresStore
from catalog.stock import DONE, Stock
from catalog.store import Store
from common.domain import EMPTY_DIGEST, LEASE_MS, Order, Trade
from common.errors import BourseError, NotActive, Unavailable
from common.pulls import Rows
from order.leadership.promotion import Promotion
from order.leadership.replica import Replica, Role
from order.log.log import OrderLog
from order.log.replication import Follower, Replicator
from order.trading.pipeline import Pipeline
from tests.support.points import find


@dataclass(frozen=True)
class Mechanism:
    where: str  # module:name or module:Class.name
    stand_in: Any


# ---------------------------------------------------------------- the catalog


class UnfencedBatch(OpenBatch):
    """Takes batches of any epoch."""

    def _check_epoch(self) -> None:
        pass


@contextmanager
def each_statement_by_itself(_connection: sqlite3.Connection) -> Iterator[None]:
    yield


@contextmanager
def committed_by_the_next(connection: sqlite3.Connection) -> Iterator[None]:
    if connection.in_transaction:
        connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    yield


# ---------------------------------------------------------------- a catalog's term

_update = PostgresStore.update


def answer_repeats_by_a_query(
    store: PostgresStore, epoch: int, trades: Sequence[Trade], cluster_id: str = ""
) -> list[Decision]:
    with store._using_session(NotActive):
        found = store._session.find_orders([trade.request_id for trade in trades])  # type: ignore[attr-defined]
    if all(trade.request_id in found for trade in trades):
        return [Decision(DONE, found[trade.request_id], replayed=True) for trade in trades]
    return _update(store, epoch, trades, cluster_id)


def look_into_the_database(store: PostgresStore, name: str) -> Stock | None:
    with store._using_session(NotActive):
        return store._session.every_stock().get(name)  # type: ignore[attr-defined, no-any-return]


def count_in_the_database(store: PostgresStore) -> int:
    with store._using_session(NotActive):
        return store._session.count_orders()  # type: ignore[attr-defined, no-any-return]


class CountedBeats:
    def __init__(self) -> None:
        self._count = itertools.count()

    def fresh(self) -> int:
        return next(self._count)


def read_then_lease(store: Store, name: str, will_fill: bool) -> Stock | None:
    stock = store.lookup(name)
    if will_fill:
        store.leases.grant(name)
    return stock


# ---------------------------------------------------------------- the replicas


def split_without_order(replica: Replica, numbers: Iterable[int]) -> tuple[list[int], list[int]]:
    position, ordered = replica.view().position, sorted(set(numbers))
    return [n for n in ordered if n <= position], [n for n in ordered if n > position]


def believe_hearsay(replica: Replica, leader_id: int, epoch: int) -> bool:
    view = replica.view()
    if leader_id == view.replica_id and epoch > view.epoch and view.role is Role.FOLLOWER:
        replica._role, replica._epoch, replica._leader_id = Role.LEADER, epoch, leader_id
    return False


def take_a_refusal_for_yes(promotion: Promotion, asked: int) -> int:
    replica_id = promotion._node.view().replica_id
    try:
        answer = promotion._registry.fence(asked, replica_id, 1.0)
    except BourseError:
        raise Unavailable from None
    if answer.leader_id != replica_id:
        raise Unavailable
    promotion._node.step(lambda replica: setattr(replica, "_asked_epoch", answer.epoch))
    promotion._accepted(answer.epoch)
    return answer.epoch


_append = Pipeline._append
_FOLLOWERS_JOIN_WITHIN_S = 2.0


def append_with_followers(pipeline: Pipeline, rows: Rows, epoch: int) -> list[Order]:
    replicator: Replicator = pipeline._wake_followers.__self__  # type: ignore[attr-defined]
    give_up_at = time.monotonic() + _FOLLOWERS_JOIN_WITHIN_S
    while not replicator.in_sync():
        if time.monotonic() > give_up_at:
            raise Unavailable("no follower would have the rows")
        time.sleep(0.05)
    return _append(pipeline, rows, epoch)


def call_in_sync(_follower: Follower, _epoch: int) -> bool:
    return True


def believe_the_log(log: OrderLog, _check: object) -> tuple[int, bytes]:
    sql = "SELECT number, digest FROM orders ORDER BY number DESC LIMIT 1"
    found = log._writer.execute(sql).fetchone()
    return found or (0, EMPTY_DIGEST)


# ---------------------------------------------------------------- the cache and its leases


def scripts_without(old: str, new: str, only: str = "") -> Callable[[str], str]:
    """The cache's scripts, all of them or one, without something."""

    def text_of(name: str) -> str:
        text = _script_text(name)
        if only not in ("", name):
            return text
        assert text.count(old) == 1, f"{old!r} is not in {name}.lua"
        return text.replace(old, new)

    return text_of


_script_text = frontend.quotes.cache.script_text
_make_leases = Leases.__init__


def lease_nothing_at_first(
    leases: Leases, clock: Callable[[], float], *arguments: Any, **options: Any
) -> None:
    _make_leases(leases, clock, *arguments, **options)
    leases._all_expire_s = clock()


# ---------------------------------------------------------------- the frontend


def take_for_confirmed(*_: object) -> bool:
    return True


def send_at_once(connection: socket.socket, data: bytes, flags: int = 0) -> None:
    socket.socket.sendall(connection, data, flags)


def only_the_highest(last_numbers: Mapping[int, int]) -> list[int]:
    return [max(last_numbers)] if last_numbers else []


def _nothing(*_: Any, **__: Any) -> None:
    pass


MECHANISMS: Mapping[str, Mechanism] = {
    "fence check": Mechanism("catalog.sqlite.store:OpenBatch", UnfencedBatch),
    "recorded rows": Mechanism("catalog.sqlite.schema:find_order", _nothing),
    "recorded refusals": Mechanism("catalog.sqlite.schema:insert_refusal", _nothing),
    "one transaction": Mechanism("catalog.sqlite.store:transaction", each_statement_by_itself),
    "cluster id": Mechanism("catalog.sqlite.store:SqliteStore._check_cluster", _nothing),
    "commit before answer": Mechanism("catalog.sqlite.store:transaction", committed_by_the_next),
    "generation check": Mechanism(
        "tests.unit.catalog.postgres.database:may_write", lambda _office, _generation: True
    ),
    "repeats write too": Mechanism(
        "catalog.postgres.store:PostgresStore.update", answer_repeats_by_a_query
    ),
    "over when in doubt": Mechanism("catalog.postgres.store:PostgresStore._end_in_doubt", _nothing),
    "a warning is a doubt": Mechanism(
        "tests.unit.catalog.postgres.database:Cluster.warnings_are_success", True
    ),
    "shown from memory": Mechanism(
        "catalog.postgres.store:PostgresStore.lookup", look_into_the_database
    ),
    "acknowledged rows": Mechanism(
        "catalog.postgres.store:PostgresStore._journal_end", count_in_the_database
    ),
    "digests compared": Mechanism("catalog.postgres.store:check_beginning", _nothing),
    "rows compared": Mechanism("order.log.ledger:Ledger._check_known", _nothing),
    "validity": Mechanism(
        "catalog.postgres.tenure:Tenure.is_valid",
        lambda tenure, generation, _now_s: tenure.holds(generation),
    ),
    "patience": Mechanism("catalog.postgres.tenure:PATIENCE", 0.4),
    "random beat": Mechanism("catalog.postgres.candidate:Beats", CountedBeats),
    "lease before the read": Mechanism("catalog.service:_find", read_then_lease),
    "in-order append": Mechanism("order.leadership.replica:Replica.split", split_without_order),
    "no leader by hearsay": Mechanism("order.leadership.replica:Replica.hear_of", believe_hearsay),
    "a refusal is a refusal": Mechanism(
        "order.leadership.promotion:Promotion._ask_fence", take_a_refusal_for_yes
    ),
    "pull before leading": Mechanism("order.leadership.promotion:Promotion._pull", _nothing),
    "in sync by time": Mechanism("order.log.replication:Follower.is_in_sync", call_in_sync),
    "no trade waits for followers": Mechanism(
        "order.trading.pipeline:Pipeline._append", append_with_followers
    ),
    "wait for a takeover": Mechanism("order.trading.pipeline:TAKEOVER_S", 0.0),
    "reads wait too": Mechanism("frontend.catalog_client:TAKEOVER_S", 0.0),
    "go on to the next": Mechanism("common.catalogs:Catalogs._go_on_from", _nothing),
    "one cluster only": Mechanism("common.catalogs:Cluster.check", _nothing),
    "log lock": Mechanism("order.__main__:lock_file", _nothing),
    "log verified at start": Mechanism("order.log.log:OrderLog._verify", believe_the_log),
    "repeat at the next leader": Mechanism("frontend.trading.leader:_FINAL", (BourseError,)),
    "a repeat's time": Mechanism("frontend.trading.leader:_LATEST_S", 0.0),
    "the next candidate": Mechanism("frontend.trading.election:order_candidates", only_the_highest),
    "whole answers": Mechanism("frontend.http.connection:Connection.sendall", send_at_once),
    "lease wait": Mechanism(
        "frontend.trading.invalidation:CacheInvalidation.invalidate", take_for_confirmed
    ),
    "bounded wait": Mechanism("catalog.postgres.bounded:Bounded.wait", psycopg.Connection.wait),
    "no flush": Mechanism(
        "catalog.postgres.bounded:_Pipeline._exit_gen", psycopg.Pipeline._exit_gen
    ),
    "sent as one": Mechanism(
        "catalog.postgres.bounded:_Pipeline._communicate_gen", psycopg.Pipeline._communicate_gen
    ),
    "warned commit": Mechanism("catalog.postgres.connection:Connection._is_in_doubt", _nothing),
    "lease after a restart": Mechanism("catalog.leases:Leases.__init__", lease_nothing_at_first),
    "floor": Mechanism(
        "frontend.quotes.cache:script_text",
        scripts_without("floor > tonumber(version)", "false", only="put"),
    ),
    "generation": Mechanism(
        "frontend.quotes.cache:script_text",
        scripts_without("generation ~= token_generation", "false", only="put"),
    ),
    "replication id": Mechanism(
        "frontend.quotes.cache:script_text",
        scripts_without("string.match(generation, '^%x+') ~= replication_id", "false"),
    ),
    "primary check": Mechanism(
        "frontend.quotes.cache:script_text",
        scripts_without("not string.find(replication, 'role:master', 1, true)", "false"),
    ),
    "token expiry": Mechanism(
        "frontend.quotes.cache:script_text",
        scripts_without("tonumber(ARGV[5])", "now_ms()", only="put"),
    ),
    "clock margin": Mechanism("frontend.quotes.cache:ENTRY_MS", LEASE_MS),
}


def take_out(name: str) -> None:
    """For the rest of this process."""
    mechanism = MECHANISMS[name]
    setattr(*find(mechanism.where), mechanism.stand_in)


@contextmanager
def taken_out(name: str) -> Iterator[None]:
    mechanism = MECHANISMS[name]
    with mock.patch.object(*find(mechanism.where), mechanism.stand_in):
        yield
