"""The in-sync set belongs to one epoch, and ends with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.order.fakes import TIMEOUT_S, lead, make_rows, numbers, open_parts
from tests.unit.order.log.replication_world import EPOCH, World, open_world
from tests.unit.order.replicas import peer_of, running_replica


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def test_without_a_leader_nobody_is_in_sync(world: World) -> None:
    world.settle()
    assert world.replicator.in_sync() == [2, 3]
    world.node.step(lambda replica: replica.step_down(EPOCH))
    assert world.replicator.in_sync() == []
    world.node.step(lambda replica: replica.stand(EPOCH + 2))
    world.node.step(lambda replica: replica.fence_accepted(EPOCH + 2))
    assert world.replicator.in_sync() == []


def elect_again(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    lead(world.node, EPOCH + 2)


def test_a_new_epoch_begins_with_nobody_in_sync(world: World) -> None:
    """Followers may have missed rows of the epoch in between."""
    world.settle()
    elect_again(world)
    assert world.replicator.in_sync() == []
    world.replicate(world.append())
    assert world.asked == {2: [], 3: []}
    world.look(world.peers[1])
    assert world.replicator.in_sync() == [3]  # not replica 2 of the earlier epoch
    assert world.positions() == [5, 6]


def test_a_batch_of_an_old_epoch_is_nobodys(world: World) -> None:
    world.settle()
    elect_again(world)
    world.look(world.peers[0])
    world.asked[2].clear()
    world.replicator.replicate(world.append(), EPOCH)
    assert world.asked == {2: [], 3: []}


@pytest.mark.parametrize("new_epoch_has_followers", [True, False])
def test_who_was_brought_up_for_an_old_epoch_is_not_in_the_new_one(
    world: World, new_epoch_has_followers: bool
) -> None:
    def meanwhile(_numbers: list[int]) -> None:
        elect_again(world)
        world.followers[3].servicer.on_rows = lambda _numbers: None
        if new_epoch_has_followers:
            world.look(world.peers[0])

    world.followers[3].servicer.on_rows = meanwhile
    world.look(world.peers[1])
    assert world.replicator.in_sync() == ([2] if new_epoch_has_followers else [])
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [2]


def test_a_follower_brings_nobody_up(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    looked = threading.Semaphore(0)
    view = world.node.view

    def watched() -> object:
        looked.release()
        return view()

    world.node.view = watched  # type: ignore[method-assign, assignment]
    world.replicator.start()
    for _ in range(6):
        assert looked.acquire(timeout=TIMEOUT_S)
    world.replicator.stop()
    assert world.asked == {2: [], 3: []}


def test_bringing_up_ends_with_the_epoch(tmp_path: Path) -> None:
    rows = make_rows(1_200)
    with (
        open_parts(tmp_path / "leader", rows) as leader,
        running_replica(tmp_path / "follower", replica_id=2) as follower,
        peer_of(follower) as peers,
    ):
        lead(leader.node, EPOCH)
        world = World(leader, {}, peers)

        def depose(given: list[int]) -> None:
            if given:
                leader.node.step(lambda replica: replica.step_down(EPOCH))

        follower.servicer.on_rows = depose
        world.look(peers[0])
        assert follower.node.view().position == 500
        lead(leader.node, EPOCH + 1)
        assert world.replicator.in_sync() == []


def test_stopping_ends_the_threads(world: World) -> None:
    before = set(threading.enumerate())
    world.replicator.start()
    world.wait_in_sync(2, 3)
    world.replicator.stop()
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("catch-up")}
    assert numbers(world.append()) == [6]  # no thread holds the lock of the log
