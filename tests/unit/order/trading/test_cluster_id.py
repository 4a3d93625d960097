"""A leader's catalog is replaced by another one, which has registered the same epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from catalog.sqlite.store import SqliteStore
from common.errors import Contradiction
from common.rpc_client import Peer
from order.trading.catalog_client import CatalogClient
from proto import bourse_pb2_grpc
from tests.support.mechanisms import taken_out
from tests.unit.catalog.calls import open_store, serving
from tests.unit.order.fakes import TIMEOUT_S, make_trade

EPOCH = 1


class World:
    """Two catalogs, and the client of a leader that the first one registered."""

    def __init__(self, directory: Path, resources: ExitStack) -> None:
        self.stores: list[SqliteStore] = []
        self.peers: list[Peer] = []
        for name in ("its own", "the other"):
            store = resources.enter_context(open_store(directory / name))
            address = resources.enter_context(serving(lambda store=store: store))
            peer = Peer(name, address, bourse_pb2_grpc.CatalogServiceStub)
            resources.callback(peer.close)
            self.stores.append(store)
            self.peers.append(peer)
        self.client = CatalogClient(self.peers[0], TIMEOUT_S)
        assert self.client.fence(EPOCH, 3, TIMEOUT_S).accepted
        assert self.stores[1].fence(EPOCH, 2).accepted  # another replica leads there

    def replace_the_catalog(self) -> None:
        self.client._updates._peer = self.peers[1]

    def trade(self, request_id: str) -> None:
        self.client.update_batch(EPOCH, [make_trade(request_id)], TIMEOUT_S)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as resources:
        yield World(tmp_path, resources)


def test_another_catalog_decides_none_of_its_trades(world: World) -> None:
    world.trade("a")
    world.replace_the_catalog()
    with pytest.raises(Contradiction, match=world.stores[0].cluster_id):
        world.trade("b")
    assert [len(store.journal(0)) for store in world.stores] == [1, 0]


def test_without_the_cluster_id_it_decides_them(world: World) -> None:
    world.trade("a")
    world.replace_the_catalog()
    with taken_out("cluster id"):
        world.trade("b")
    (row,) = world.stores[1].journal(0)
    assert row.request_id == "b"
