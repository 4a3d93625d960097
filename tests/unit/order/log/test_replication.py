"""One loop for each follower: what it is sent, when it is in sync, and when it is not."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.domain import EMPTY_DIGEST, Order
from common.errors import Busy, Contradiction, Unavailable, WrongPeer
from order.leadership.replica import Replica
from stack.waiting import wait_for
from tests.unit.order.fakes import (
    CLUSTER,
    OTHER_CLUSTER,
    TIMEOUT_S,
    lead,
    make_rows,
    open_parts,
    refusing_rows,
)
from tests.unit.order.log.replication_world import EPOCH, ROWS, World, open_world
from tests.unit.order.replicas import RunningReplica, peer_of, running_replica


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def wipe(follower: RunningReplica) -> None:
    """It comes back with an empty volume, at the same address."""
    follower.log._writer.execute("DELETE FROM orders")
    follower.log.last_number, follower.log.digest = 0, EMPTY_DIGEST
    follower.node._replica = Replica(follower.replica_id, 0, EMPTY_DIGEST)


# ---------------------------------------------------------------- what is sent


def test_it_asks_where_a_log_ends_and_sends_what_is_above(world: World) -> None:
    world.followers[2].ledger.append(ROWS[:3])
    world.send(2, 2)
    assert world.asked[2] == [[], [4, 5]]
    follower = world.followers[2]
    assert follower.log.rows(0) == ROWS[:5]
    view = follower.node.view()
    assert (view.leader_id, view.epoch) == (1, EPOCH)  # and it knows whom from


def test_new_rows_travel_together(world: World) -> None:
    world.settle()
    world.append()
    world.append(3)
    world.send(2)
    assert world.asked[2] == [[6, 7, 8, 9]]


def test_a_long_log_is_sent_in_pieces(tmp_path: Path) -> None:
    rows = make_rows(2_300)
    sent: list[list[int]] = []
    with (
        open_parts(tmp_path / "leader", rows) as leader,
        running_replica(tmp_path / "follower", rows[:10], replica_id=2) as follower,
        peer_of(follower) as peers,
    ):
        lead(leader.node, EPOCH)
        follower.servicer.on_rows = sent.append
        world = World(leader, {}, peers)
        world.send(2, 2, 2, 2)
        assert follower.log.digest == leader.log.digest
    assert [len(piece) for piece in sent] == [0, 1_000, 1_000, 290]


def test_who_catches_up_by_itself_is_sent_nothing_until_it_has(world: World) -> None:
    """Else every row would come twice, and catching up would take twice as long."""
    follower = world.followers[2]
    follower.is_ready.clear()
    world.send(2, 2)
    follower.ledger.append(ROWS[:4])
    follower.is_ready.set()
    world.send(2, 2)
    assert world.asked[2] == [[], [], [], [5]]


def test_one_that_came_back_empty_gets_everything_again(world: World) -> None:
    world.settle()
    wipe(world.followers[2])
    world.send(2)
    assert world.replicator.in_sync() == [3]
    world.send(2)
    assert world.followers[2].log.rows(0) == ROWS[:5]
    assert world.replicator.in_sync() == [2, 3]


def test_rows_that_did_not_arrive_are_sent_again(world: World) -> None:
    world.settle()
    world.append()
    with refusing_rows(world.followers[2].log), pytest.raises(Unavailable):
        world.send(2)
    world.send(2)
    assert world.followers[2].log.rows(0) == ROWS[:6]


# ---------------------------------------------------------------- in sync


def test_in_sync_is_who_had_everything_a_second_ago(world: World) -> None:
    world.settle()
    assert world.replicator.in_sync() == [2, 3]
    world.clock.pass_by(0.9)
    world.append()
    world.send(2)
    assert world.replicator.in_sync() == [2, 3]  # replica 3 lacks a row, but not for long
    world.clock.pass_by(0.2)
    assert world.replicator.in_sync() == [2]


def test_under_steady_load_a_follower_stays_in_sync(world: World) -> None:
    """It never has everything at the moment when it answers."""
    world.settle()
    world.followers[2].servicer.on_rows = lambda _numbers: world.append() and None
    for _ in range(4):
        world.clock.pass_by(0.6)
        world.send(2)
        assert 2 in world.replicator.in_sync()


def test_a_long_way_behind_is_not_in_sync(tmp_path: Path) -> None:
    rows = make_rows(2_100)
    with (
        open_parts(tmp_path / "leader", rows) as leader,
        running_replica(tmp_path / "follower", replica_id=2) as follower,
        peer_of(follower) as peers,
    ):
        lead(leader.node, EPOCH)
        world = World(leader, {}, peers)
        for expected in ([], [], [], [2]):
            world.send(2)
            assert world.replicator.in_sync() == expected


def test_in_sync_ends_with_the_leadership(world: World) -> None:
    world.settle()
    world.node.step(lambda replica: replica.step_down(EPOCH))
    assert world.replicator.in_sync() == []
    world.node.step(lambda replica: replica.stand(EPOCH + 2))
    world.node.step(lambda replica: replica.fence_accepted(EPOCH + 2))
    assert world.replicator.in_sync() == []


def test_a_new_epoch_begins_with_nobody_in_sync(world: World) -> None:
    """Its followers may have lost rows meanwhile, so they are asked again."""
    world.settle()
    world.elect_again()
    assert world.replicator.in_sync() == []
    world.append()
    world.send(3)
    assert world.asked == {2: [], 3: [[]]}
    world.send(3)
    assert world.replicator.in_sync() == [3]


def test_an_answer_of_an_old_epoch_is_not_for_the_new_one(world: World) -> None:
    def meanwhile(_numbers: list[int]) -> None:
        world.elect_again()
        world.followers[3].servicer.on_rows = lambda _numbers: None

    world.followers[3].servicer.on_rows = meanwhile
    world.send(2, 2)
    world.send(3)
    assert world.replicator.in_sync() == []


# ---------------------------------------------------------------- trouble


def test_a_follower_that_contradicts_the_rows_is_not_in_sync(world: World) -> None:
    world.settle()
    world.followers[2].ledger.append(make_rows(1, after=ROWS[:5], epoch=77))
    world.append()
    with pytest.raises(Contradiction):
        world.send(2)


def test_one_that_is_denied_by_the_catalog_is_not_in_sync_though_its_log_is_longer(
    world: World,
) -> None:
    world.settle()
    world.followers[2].ledger.append(make_rows(4, after=ROWS[:5], epoch=77))
    world.followers[2].is_ready.clear()
    world.send(2, 2)
    assert world.replicator.in_sync() == [3]


def test_a_followers_log_takes_over_the_id_of_its_leaders(world: World) -> None:
    world.parts.ledger.join_cluster(CLUSTER)
    world.settle()
    assert {follower.ledger.cluster_id for follower in world.followers.values()} == {CLUSTER}


def test_a_follower_of_another_cluster_is_not_in_sync(world: World) -> None:
    world.settle()
    world.parts.ledger.join_cluster(CLUSTER)
    world.followers[2].ledger.join_cluster(OTHER_CLUSTER)
    with pytest.raises(Contradiction, match=CLUSTER):
        world.send(2)
    assert world.followers[2].log.rows(0) == ROWS[:5]


def test_another_replicas_answer_is_not_believed(world: World) -> None:
    world.followers[2].servicer._replica_id = 3  # the addresses have been swapped
    with pytest.raises(WrongPeer):
        world.send(2)
    assert world.replicator.in_sync() == []


# ---------------------------------------------------------------- the loops


@pytest.fixture
def running(world: World) -> World:
    world.replicator = world.replicator_with(time.monotonic)
    world.replicator.start(world.loops)
    world.wait_in_sync(2, 3)
    return world


def test_followers_get_everything(running: World) -> None:
    running.append(3)
    running.replicator.wake()
    wait_for(lambda: running.positions() == [8, 8], TIMEOUT_S, running.positions)
    for follower in running.followers.values():
        assert follower.log.rows(0) == ROWS[:8]


def test_rows_are_sent_at_once_and_not_only_when_an_idle_follower_is_asked(world: World) -> None:
    world.replicator = world.replicator_with(time.monotonic)
    for follower in world.replicator._followers:
        follower._idle_s = TIMEOUT_S
    world.replicator.start(world.loops)
    world.replicator.wake()
    world.wait_in_sync(2, 3)
    world.append()
    world.replicator.wake()
    wait_for(lambda: world.positions() == [6, 6], TIMEOUT_S / 2, world.positions)


def test_one_that_is_gone_leaves_and_does_not_hold_up_the_other(
    running: World, caplog: pytest.LogCaptureFixture
) -> None:
    running.followers[2].stop_serving()
    running.wait_in_sync(3)
    running.append()
    running.replicator.wake()
    wait_for(lambda: running.positions()[1] == 6, TIMEOUT_S, running.positions)
    assert caplog.text.count("replica 2 is not kept in sync") == 1


def test_one_that_takes_nothing_leaves_and_comes_back_when_it_does(
    running: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with refusing_rows(running.followers[2].log):
        running.append()
        running.replicator.wake()
        running.wait_in_sync(3)
    running.wait_in_sync(2, 3)
    assert running.positions() == [6, 6]
    assert "replica 2 can be kept in sync again" in caplog.messages


def test_one_that_takes_nothing_for_long_is_told_of_once(
    running: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk stays full for days. The follower still answers where its log ends."""
    asked = running.asked[2]
    with refusing_rows(running.followers[2].log):
        running.append()
        running.replicator.wake()
        wait_for(lambda: asked.count([6]) >= 5, TIMEOUT_S, lambda: asked)
    assert caplog.text.count("replica 2 is not kept in sync") == 1


def test_under_load_no_row_is_missed_while_followers_come_and_go(running: World) -> None:
    chance = random.Random(5)  # noqa: S311 - repeatable on purpose
    rows = ROWS[:5]
    holes: list[list[int]] = []

    def receive(follower: RunningReplica, given: list[int]) -> None:
        if given and given[0] > follower.log.last_number + 1:
            holes.append(given)
        if given and chance.random() < 0.5:
            raise Busy("the test wants it so")

    for follower in running.followers.values():
        follower.servicer.on_rows = lambda given, of=follower: receive(of, given)
    for _ in range(100):
        rows.extend(make_rows(chance.randint(1, 3), after=rows))
        running.parts.ledger.append(rows[-3:])
        running.replicator.wake()
    wait_for(lambda: running.positions() == [len(rows)] * 2, TIMEOUT_S, running.positions)
    assert holes == []


def test_a_defect_does_not_end_the_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows, defects = world.parts.log.rows, [ZeroDivisionError("a defect")] * 2

    def defective(after: int, limit: int) -> list[Order]:
        if defects:
            raise defects.pop()
        return rows(after, limit)

    monkeypatch.setattr(world.parts.log, "rows", defective)
    world.replicator = world.replicator_with(time.monotonic)
    world.replicator.start(world.loops)
    world.wait_in_sync(2, 3)
    assert "ZeroDivisionError" in caplog.text


def test_who_does_not_lead_sends_nothing(world: World) -> None:
    world.node.step(lambda replica: replica.step_down(EPOCH))
    looked = threading.Semaphore(0)
    view = world.node.view

    def watched() -> object:
        looked.release()
        return view()

    world.node.view = watched  # type: ignore[method-assign, assignment]
    world.replicator.start(world.loops)
    for _ in range(6):
        assert looked.acquire(timeout=TIMEOUT_S)
    world.loops.stop(TIMEOUT_S)
    assert world.asked == {2: [], 3: []}


def test_stopping_ends_the_threads(world: World) -> None:
    before = set(threading.enumerate())
    world.replicator.start(world.loops)
    world.loops.stop(TIMEOUT_S)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("follower-")}
