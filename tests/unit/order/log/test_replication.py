"""The in-sync set during trades: who gets the rows, who is waited for, and who is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.order.fakes import TIMEOUT_S, make_rows, refusing_rows
from tests.unit.order.log.replication_world import EPOCH, ROWS, World, open_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def test_followers_have_the_rows_when_replicate_returns(world: World) -> None:
    world.settle()
    world.replicate(world.append(3))
    assert world.positions() == [8, 8]
    assert world.replicator.in_sync() == [2, 3]
    for follower in world.followers.values():
        assert follower.log.rows(0) == ROWS[:8]
        view = follower.node.view()
        assert (view.leader_id, view.epoch) == (1, EPOCH)  # the follower also knows the leader


def test_without_rows_nobody_is_asked(world: World) -> None:
    world.settle()
    world.replicate([])
    assert world.asked == {2: [], 3: []}


def test_who_is_not_in_sync_is_not_waited_for(world: World) -> None:
    world.replicate(world.append())
    assert world.asked == {2: [], 3: []}
    assert world.replicator.in_sync() == []


def test_followers_are_asked_at_once(world: World) -> None:
    """Each follower answers only after the other one was asked too."""
    world.settle()
    both = threading.Barrier(2, timeout=TIMEOUT_S / 2)
    for follower in world.followers.values():
        follower.servicer.on_rows = lambda _numbers: both.wait() and None
    world.replicate(world.append())
    assert world.replicator.in_sync() == [2, 3]


def test_a_follower_that_is_too_slow_leaves_the_set(world: World) -> None:
    world.replicator = world.make_replicator(world.peers, timeout_s=0.1)
    world.settle()
    may_answer = threading.Event()
    world.followers[2].servicer.on_rows = lambda _numbers: may_answer.wait(TIMEOUT_S) and None
    started = time.monotonic()
    world.replicate(world.append())
    assert time.monotonic() - started < TIMEOUT_S / 2
    assert world.replicator.in_sync() == [3]
    world.replicate(world.append())  # does not wait for that follower any more
    may_answer.set()
    assert world.followers[3].node.view().position == 7


def test_a_follower_that_fails_leaves_the_set_and_the_other_stays(world: World) -> None:
    world.settle()
    with refusing_rows(world.followers[2].log):
        world.replicate(world.append())
    assert world.replicator.in_sync() == [3]
    assert world.positions() == [5, 6]
    world.asked[2].clear()
    world.replicate(world.append())
    assert world.asked == {2: [], 3: [[6], [7]]}


def test_a_follower_that_is_gone_leaves_the_set(world: World) -> None:
    world.settle()
    world.followers[3].stop_serving()
    world.replicate(world.append())
    assert world.replicator.in_sync() == [2]


def test_a_follower_whose_log_ends_earlier_leaves_the_set(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The follower answers that rows are missing."""
    world.settle()
    world.append()
    world.replicate(world.append())  # the row before was never sent
    assert world.replicator.in_sync() == []
    assert "replica 2 left the in-sync set: its log ends at 5" in caplog.messages


def test_a_follower_whose_log_is_ahead_stays_in_the_set(world: World) -> None:
    world.settle()
    world.followers[2].ledger.append(ROWS[5:8])
    world.replicate(world.append())
    assert world.replicator.in_sync() == [2, 3]
    assert world.positions() == [8, 6]


def test_a_follower_whose_log_contradicts_the_rows_leaves_the_set(world: World) -> None:
    world.settle()
    world.followers[2].ledger.append(make_rows(1, after=ROWS[:5], epoch=77))
    world.replicate(world.append())
    assert world.replicator.in_sync() == [3]


def test_another_replicas_answer_is_not_believed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.settle()
    world.followers[2].servicer._replica_id = 3  # as if the addresses were swapped
    world.replicate(world.append())
    assert world.replicator.in_sync() == [3]
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [3]
    assert "replica 2 cannot be brought up: answered by replica 3" in caplog.messages
