"""A client leaves an address at once when another service answers there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import Unavailable, WrongPeer
from common.replicas import ReplicaPeer
from common.rpc_client import Peer
from proto import bourse_pb2
from tests.support import replica_fakes
from tests.support.clock import Clock
from tests.support.replica_fakes import FakeReplica
from tests.unit.common.rpc.rpc_services import (
    CATALOG,
    TIMEOUT_S,
    Catalog,
    TwoAddresses,
    fail,
    lookup,
    peer_at,
    serving,
)


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[TwoAddresses]:
    """The first is the catalog's, the second a replica's."""
    addresses = TwoAddresses(tmp_path)
    with (
        serving(Catalog(), addresses.first),
        replica_fakes.serving(FakeReplica(1), addresses.second),
    ):
        yield addresses


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(addresses: TwoAddresses, clock: Clock) -> Iterator[Peer]:
    with peer_at(addresses.first, clock) as peer:
        yield peer


def test_a_replica_at_the_catalogs_address_is_left_at_once(
    addresses: TwoAddresses, catalog: Peer
) -> None:
    addresses.swap()
    with pytest.raises(Unavailable, match="another service answered"):
        lookup(catalog)
    addresses.swap()
    assert lookup(catalog).name == "stock1"


def test_a_replica_that_answers_a_stream_is_left_at_once(
    addresses: TwoAddresses, catalog: Peer
) -> None:
    addresses.swap()
    with pytest.raises(WrongPeer):
        list(catalog.stream("Journal", bourse_pb2.SyncRequest(), TIMEOUT_S))
    addresses.swap()
    assert lookup(catalog).name == "stock1"


def test_a_healthy_replica_is_no_catalog(addresses: TwoAddresses, catalog: Peer) -> None:
    addresses.swap()
    assert not catalog.is_serving(CATALOG, TIMEOUT_S)
    addresses.swap()
    assert catalog.is_serving(CATALOG, TIMEOUT_S)


def test_a_catalog_at_a_replicas_address_is_left_at_once(addresses: TwoAddresses) -> None:
    with closing(ReplicaPeer(1, addresses.second)) as replica:
        addresses.swap()
        with pytest.raises(Unavailable, match="another service answered"):
            replica.call("IsAlive", bourse_pb2.Empty(), TIMEOUT_S)
        addresses.swap()
        assert replica.call("IsAlive", bourse_pb2.Empty(), TIMEOUT_S).replica_id == 1


def test_a_wrong_service_is_logged_once(
    addresses: TwoAddresses, catalog: Peer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    addresses.swap()
    for _ in range(10):
        fail(catalog, WrongPeer)
        clock.pass_by(0.2)
    addresses.swap()
    lookup(catalog)
    assert [record.message for record in caplog.records] == [
        "the catalog: another service answered, connecting anew",
        "the catalog answers again",
    ]
