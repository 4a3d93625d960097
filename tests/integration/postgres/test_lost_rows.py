"""A forced failover to a standby that lacks acknowledged orders, with real processes.

The catalog goes on there, and by itself its database is whole. Only the replicas' logs tell.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import psycopg
import pytest

from catalog.decisions import Registration
from catalog.postgres import migrations
from catalog.postgres.address import Address
from catalog.stock_file import read_stocks
from common.domain import Order, Trade
from common.wire import trade_to_request
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.loss import (
    APART,
    assert_no_order_is_served,
    assert_no_trade_is_acknowledged,
    assert_nobody_is_ready,
    client_of,
    nothing_is_set_aside,
    ready_again,
    said_since,
    trade,
)
from tests.support.postgres import PostgresServer, running_server
from tests.support.rigged_cluster import RiggedCluster

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

KEPT, LOST = 4, 4  # orders that the standby has, and that it lacks
LOOK = "leader before look"
# mechanism → as a pattern: what fails without it
FAILURES = {
    "rows compared": "acknowledged twice",
    "digests compared": "lost orders' numbers go to others",
}
EVERYBODY = ("catalog", "order-1", "order-2", "order-3")


@dataclass(frozen=True)
class World:
    """A cluster over the primary of two nodes. No COMMIT waits for the other one."""

    cluster: RiggedCluster
    primary: PostgresServer
    standby: PostgresServer

    def cut_off_standby(self) -> None:
        """It keeps the orders that are in the journal now, and gets no more."""
        with closing(self.standby.admin()) as standby, closing(self.primary.admin()) as primary:
            wait_for(lambda: _has(standby, "journal", KEPT), 10, "the standby has no orders")
            self.standby.set("primary_conninfo", "")
            wait_for(lambda: _has(primary, "pg_stat_replication", 0), 10, "it still streams")

    def force_failover(self) -> list[Order]:
        """Waits until the catalog is active on the standby. Returns the journal that it has."""
        self.primary.kill()
        with closing(self.standby.admin()) as connection:
            connection.execute("SELECT pg_promote()")
        return self._journal_when_active()

    def bring_primary_back(self) -> None:
        self.standby.kill()
        self.primary.start()
        self._journal_when_active()

    def _journal_when_active(self) -> list[Order]:
        return wait_for(self._journal, 20, lambda: self.cluster.log("catalog"))

    def _journal(self) -> list[Order] | None:
        try:
            return self.cluster.journal()
        except grpc.RpcError:
            return None


def _has(connection: psycopg.Connection, table: str, count: int) -> bool:
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - ours
    return found == (count,)


@contextmanager
def running_world(directory: Path, without: str = "") -> Iterator[World]:
    with ExitStack() as opened:
        primary = opened.enter_context(running_server())
        standby = opened.enter_context(running_server(primary=primary))
        nodes = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        settings = {
            "DATABASE_URL": f"postgresql://bourse@{nodes}/postgres",
            "DATABASE_DURABILITY": "single",
        }
        cluster = RiggedCluster(directory, settings, without)
        opened.callback(cluster.close)
        with migrations.changing(Address(primary.url("postgres"))) as connection:
            stocks = read_stocks(directory / "stocks.txt")
            migrations.create(connection, stocks, Registration(0, 0))
        cluster.start_all()
        yield World(cluster, primary, standby)


def lose_rows(world: World) -> dict[str, int]:
    """Returns what was acknowledged: request id → order number. Until `LOOK` is released, the
    leader does not compare its log with the journal that it trades on."""
    cluster = world.cluster
    acknowledged = trade(cluster, KEPT)
    world.cut_off_standby()
    acknowledged |= trade(cluster, LOST)
    cluster.arm(LOOK, "HOLD")
    cluster.wait_fired(LOOK)
    assert len(world.force_failover()) == KEPT
    return acknowledged


def no_number_is_given_twice(cluster: RiggedCluster, acknowledged: dict[str, int]) -> None:
    """First the leader trades on under its epoch, which this journal has too. When it has stepped
    down, nobody gets another epoch."""
    with client_of(cluster) as client:
        answer = client.trade("stock5", 1, "BUY", str(uuid.uuid4()))
    is_new = answer.status != 200 or answer.data["transaction_number"] not in acknowledged.values()
    assert is_new, f"acknowledged twice: {answer.data}"
    assert answer.status == 503, answer.body
    cluster.release(LOOK)
    # This catalog has decided it, but the leader's log refused it: it was told to nobody.
    journal = cluster.journal()
    assert len(journal) == KEPT + 1
    assert_no_trade_is_acknowledged(cluster)
    assert cluster.journal() == journal, "lost orders' numbers go to others"


def pass_the_logs(cluster: RiggedCluster) -> None:
    """The journal gets other orders, until it is longer than the logs."""
    journal = cluster.journal()
    trades = [Trade(f"other-{n}", "stock5", "BUY", 2) for n in range(LOST + 3)]
    request = bourse_pb2.UpdateBatchRequest(
        epoch=journal[-1].epoch, trades=map(trade_to_request, trades)
    )
    with cluster.catalog() as catalog:
        catalog.call("UpdateBatch", request)
    assert len(cluster.journal()) > KEPT + LOST
    denial = f"up to order {KEPT + LOST} that log has digest"
    wait_for(lambda: denial in cluster.log("catalog"), 10, lambda: cluster.log("catalog"))


def everybody_says_so(cluster: RiggedCluster) -> None:
    for name in EVERYBODY:
        wait_for(partial(said_since, cluster, name, 0, APART), 10, partial(cluster.log, name))


def test_nobody_goes_on_with_a_database_that_lost_orders(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        cluster = world.cluster
        acknowledged = lose_rows(world)
        no_number_is_given_twice(cluster, acknowledged)
        assert_nobody_is_ready(cluster)
        everybody_says_so(cluster)
        assert_no_order_is_served(cluster, acknowledged)
        pass_the_logs(cluster)
        assert_no_trade_is_acknowledged(cluster)
        assert_nobody_is_ready(cluster)
        world.bring_primary_back()
        ready_again(cluster)
        cluster.check_promises(acknowledged | trade(cluster, 2))
        assert nothing_is_set_aside(cluster)


@pytest.mark.parametrize("mechanism", FAILURES)
def test_without_the_comparison_lost_numbers_go_to_others(tmp_path: Path, mechanism: str) -> None:
    with running_world(tmp_path, without=mechanism) as world:
        acknowledged = lose_rows(world)
        with pytest.raises(AssertionError, match=FAILURES[mechanism]):
            no_number_is_given_twice(world.cluster, acknowledged)
