"""The mechanisms that the promises rest on, each with what stands in for it when it is taken out.

A test that claims a mechanism is needed runs without it and must turn red. The code names those
tests next to each mechanism.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import frontend.quotes.cache
from catalog.decisions import OpenBatch
from catalog.leases import Leases
from common.domain import EMPTY_DIGEST, LEASE_MS, Order
from common.errors import BourseError, Unavailable
from common.pulls import Rows
from order.leadership.promotion import Promotion
from order.leadership.replica import Replica, Role
from order.log.log import OrderLog
from order.log.replication import Follower
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
    give_up_at = time.monotonic() + _FOLLOWERS_JOIN_WITHIN_S
    while not pipeline._followers.in_sync():  # type: ignore[attr-defined]
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
    "cluster id": Mechanism("catalog.sqlite.store:CatalogStore._check_cluster", _nothing),
    "commit before answer": Mechanism("catalog.sqlite.store:transaction", committed_by_the_next),
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
