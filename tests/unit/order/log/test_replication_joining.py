"""The in-sync set in the background: followers get missing rows, join, and are checked."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.domain import EMPTY_DIGEST, Order
from common.errors import Unavailable
from common.replicas import ReplicaPeer
from order.leadership.replica import Replica
from stack.waiting import wait_for
from tests.unit.order.fakes import TIMEOUT_S, lead, make_rows, open_parts, refusing_rows
from tests.unit.order.log.replication_world import EPOCH, ROWS, World, open_world
from tests.unit.order.replicas import RunningReplica, peer_of, running_replica


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def wipe(follower: RunningReplica) -> None:
    """As if the follower restarted with an empty volume at the same address."""
    follower.log._writer.execute("DELETE FROM orders")
    follower.log.last_number, follower.log.digest = 0, EMPTY_DIGEST
    follower.node._replica = Replica(follower.replica_id, 0, EMPTY_DIGEST)


def test_followers_are_brought_up_and_join(world: World) -> None:
    world.replicator.start()
    world.wait_in_sync(2, 3)
    assert world.positions() == [5, 5]
    for follower in world.followers.values():
        assert follower.log.rows(0) == ROWS[:5]


def test_a_long_log_is_sent_in_pieces(tmp_path: Path) -> None:
    rows = make_rows(1_200)
    sent: list[list[int]] = []
    with (
        open_parts(tmp_path / "leader", rows) as leader,
        running_replica(tmp_path / "follower", rows[:10], replica_id=2) as follower,
        peer_of(follower) as peers,
    ):
        lead(leader.node, EPOCH)
        follower.servicer.on_rows = sent.append
        world = World(leader, {}, peers)
        world.replicator.start()
        world.wait_in_sync(2)
        world.replicator.stop()
        assert follower.log.digest == leader.log.digest
    # The first message asks for the end of the follower's log. After these four come heartbeats.
    lengths = [len(piece) for piece in sent]
    assert (lengths[:4], sum(lengths)) == ([0, 500, 500, 190], 1190)


def test_who_catches_up_by_itself_is_sent_nothing_until_it_has(world: World) -> None:
    """Otherwise every row would be sent twice, and catching up would take twice as long."""
    follower = world.followers[2]
    follower.is_ready.clear()

    def finish() -> None:
        assert world.asked[2] == [[], []]
        follower.ledger.append(ROWS[:4])
        follower.is_ready.set()

    world.look(world.peers[0], lambda: None, finish)
    assert world.asked[2] == [[], [], [], [5]]
    assert world.replicator.in_sync() == [2]


def test_it_rejoins_only_when_an_append_off_the_path_succeeded(world: World) -> None:
    world.replicator.start()
    world.wait_in_sync(2, 3)
    with refusing_rows(world.followers[2].log):
        world.replicate(world.append())
        tries = len(world.asked[2])
        wait_for(lambda: len(world.asked[2]) > tries + 6, TIMEOUT_S, lambda: world.asked)
        assert world.replicator.in_sync() == [3]  # the follower answers, but appends nothing
        world.replicate(world.append(2))
    world.wait_in_sync(2, 3)
    assert world.positions() == [8, 8]
    assert world.followers[2].log.rows(0) == ROWS[:8]


def test_a_row_that_comes_between_is_sent_before_it_joins(world: World) -> None:
    """A trade commits after the follower had all rows and before it joins the set."""

    def commit() -> None:
        world.ledger.before = lambda: None
        world.replicate(world.append())

    world.ledger.before = commit
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [2]
    assert world.followers[2].log.rows(0) == ROWS[:6]


def test_a_row_that_comes_next_is_sent_to_who_just_joined(world: World) -> None:
    """The follower must be in the set before the log can grow again."""

    def commit() -> None:
        if world.parts.log.last_number == world.followers[2].log.last_number:
            world.ledger.after = lambda: None
            world.replicate(world.append())

    world.ledger.after = commit
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [2]
    assert world.followers[2].log.rows(0) == ROWS[:6]


def test_under_load_no_row_is_missed_while_followers_come_and_go(world: World) -> None:
    """Trades commit while followers get the missing rows to join again."""
    chance = random.Random(5)  # noqa: S311 - repeatable on purpose
    rows = ROWS[:5]
    contact = threading.Semaphore(0)
    to_fail: set[int] = set()
    holes: list[list[int]] = []

    def receive(follower: RunningReplica, given: list[int]) -> None:
        contact.release()
        if given and follower.replica_id in to_fail:
            to_fail.discard(follower.replica_id)
            raise Unavailable("the test wants it so")
        if given and given[0] > follower.log.last_number + 1:
            holes.append(given)

    def commit() -> None:
        rows.extend(make_rows(1, after=rows))
        world.replicate(world.ledger.append(rows[-1:]))

    for follower in world.followers.values():
        follower.servicer.on_rows = lambda given, of=follower: receive(of, given)
    world.replicator.start()
    for turn in range(30):
        to_fail.update([2, 3][turn % 2 :])
        commit()
        while world.replicator.in_sync() != [2, 3]:
            # Only sometimes: with a new row before every check, a follower would never join.
            if contact.acquire(timeout=0.01) and chance.random() < 0.5:
                commit()
    assert len(rows) > 40
    assert world.positions() == [len(rows)] * 2
    assert holes == []


def test_a_member_that_dies_while_nobody_trades_leaves_the_set(world: World) -> None:
    world.replicator.start()
    world.wait_in_sync(2, 3)
    world.followers[2].stop_serving()
    world.wait_in_sync(3)


def test_a_member_that_came_back_empty_is_brought_up_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Without trades, only this check can notice it."""
    world.settle()
    world.look(world.peers[0], lambda: wipe(world.followers[2]))
    assert "replica 2 left the in-sync set: its log ends at 0" in caplog.messages
    assert world.replicator.in_sync() == [2, 3]
    assert world.followers[2].log.rows(0) == ROWS[:5]


def test_a_member_that_has_all_is_left_alone(world: World) -> None:
    world.settle()
    world.look(world.peers[0], lambda: None)
    assert world.replicator.in_sync() == [2, 3]
    assert world.asked == {2: [[], []], 3: []}


def test_a_member_is_not_dropped_for_the_batch_that_is_on_its_way(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.settle()
    rows: list[Order] = []
    world.look(world.peers[0], lambda: rows.extend(world.append()))  # during a check
    world.replicate(rows)
    assert "left the in-sync set" not in caplog.text
    assert world.positions() == [6, 6]


def test_one_that_is_away_does_not_hold_up_the_other(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but not listening
        away = ReplicaPeer(4, f"127.0.0.1:{held.getsockname()[1]}")
        looks: list[str] = []
        call = away.call

        def watched(method: str, request: Any, timeout_s: float) -> Any:
            looks.append(method)
            return call(method, request, timeout_s)

        monkeypatch.setattr(away, "call", watched)
        world.replicator = world.make_replicator([away, world.peers[0]])
        world.replicator.start()
        world.wait_in_sync(2)
        wait_for(lambda: len(looks) >= 3, TIMEOUT_S, lambda: looks)
        world.replicator.stop()
        away.close()
    assert caplog.text.count("cannot be brought up") == 1


def test_a_defect_does_not_end_the_bringing_up(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows, defects = world.parts.log.rows, [ZeroDivisionError("a defect")] * 2

    def defective(after: int, limit: int) -> list[Order]:
        if defects:
            raise defects.pop()
        return rows(after, limit)

    monkeypatch.setattr(world.parts.log, "rows", defective)
    world.replicator.start()
    world.wait_in_sync(2, 3)
    assert "ZeroDivisionError" in caplog.text
