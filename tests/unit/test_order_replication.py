"""The in-sync set of a leader, with followers that really serve."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.errors import Unavailable
from common.records import EMPTY_DIGEST, Order
from common.replicas import ReplicaPeer
from order.ledger import Ledger
from order.node import Node
from order.replica import Replica
from order.replication import Replicator
from tests.unit.order_fakes import (
    TIMEOUT_S,
    Parts,
    RunningReplica,
    eventually,
    lead,
    make_rows,
    numbers,
    open_parts,
    peer_of,
    refusing_rows,
    running_replica,
)

EPOCH = 3
ROWS = make_rows(10)


class RacingLedger(Ledger):
    """Lets something happen right before the log stands still, or right after it did."""

    before: Callable[[], None] = staticmethod(lambda: None)
    after: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def standing_still(self) -> Iterator[int]:
        self.before()
        with super().standing_still() as position:
            yield position
        self.after()


class Rounds(threading.Event):
    """Lets the thread that keeps a follower up look once, and once more after each of these."""

    def __init__(self, between: Sequence[Callable[[], object]]) -> None:
        super().__init__()
        self._left: list[Callable[[], object]] = [lambda: None, *between]

    def wait(self, timeout: float | None = None) -> bool:
        if not self._left:
            return True
        self._left.pop(0)()
        return False


@dataclass
class World:
    """Replica 1 leads epoch 3 with five rows; replicas 2 and 3 follow it, with none."""

    parts: Parts
    followers: dict[int, RunningReplica]
    peers: list[ReplicaPeer]
    asked: dict[int, list[list[int]]] = field(default_factory=dict)  # what each was sent
    replicators: list[Replicator] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = RacingLedger(self.parts.log, self.parts.node)
        self.replicator = self.make_replicator(self.peers)
        for replica_id, follower in self.followers.items():
            self.asked[replica_id] = []
            follower.servicer.on_rows = self.asked[replica_id].append

    @property
    def node(self) -> Node:
        return self.parts.node

    def make_replicator(
        self, peers: Sequence[ReplicaPeer], timeout_s: float = TIMEOUT_S
    ) -> Replicator:
        replicator = Replicator(
            self.node,
            self.parts.log,
            self.ledger,
            peers,
            replication_timeout_s=timeout_s,
            catch_up_timeout_s=TIMEOUT_S,
            interval_s=0.002,
        )
        self.replicators.append(replicator)
        return replicator

    def wait_in_sync(self, *replica_ids: int) -> None:
        eventually(lambda: self.replicator.in_sync() == list(replica_ids), self.replicator.in_sync)

    def settle(self) -> None:
        """Both followers are in sync; nobody brings them up again by itself."""
        for peer in self.peers:
            self.look(peer)
        assert self.replicator.in_sync() == [2, 3]
        for sent in self.asked.values():
            sent.clear()

    def look(self, peer: ReplicaPeer, *between: Callable[[], object]) -> None:
        """What the thread that keeps this follower up does, round by round, in this thread."""
        stopping = self.replicator._stopping
        self.replicator._stopping = Rounds(between)
        try:
            self.replicator._keep_up(peer)
        finally:
            self.replicator._stopping = stopping

    def append(self, count: int = 1) -> list[Order]:
        """What the pipeline does before it replicates."""
        position = self.node.view().position
        return self.ledger.append(ROWS[position : position + count])

    def replicate(self, rows: Sequence[Order]) -> None:
        self.replicator.replicate(rows, self.node.view().epoch)

    def positions(self) -> list[int]:
        return [follower.node.view().position for follower in self.followers.values()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        parts = stack.enter_context(open_parts(tmp_path / "leader", ROWS[:5]))
        followers = {
            replica_id: stack.enter_context(
                running_replica(tmp_path / str(replica_id), replica_id=replica_id)
            )
            for replica_id in (2, 3)
        }
        peers = stack.enter_context(peer_of(*followers.values()))
        lead(parts.node, EPOCH)
        world = World(parts, followers, peers)
        yield world
        for replicator in world.replicators:
            replicator.stop()


def wipe(follower: RunningReplica) -> None:
    """It comes back with an empty volume, at the same address."""
    follower.log._writer.execute("DELETE FROM orders")
    follower.log.last_number, follower.log.digest = 0, EMPTY_DIGEST
    follower.node._replica = Replica(follower.replica_id, 0, EMPTY_DIGEST)


# ------------------------------------------------------------ on the trades' path


def test_followers_have_the_rows_when_replicate_returns(world: World) -> None:
    world.settle()
    world.replicate(world.append(3))
    assert world.positions() == [8, 8]
    assert world.replicator.in_sync() == [2, 3]
    for follower in world.followers.values():
        assert follower.log.rows(0) == ROWS[:8]
        view = follower.node.view()
        assert (view.leader_id, view.epoch) == (1, EPOCH)  # and it knows whom from


def test_without_rows_nobody_is_asked(world: World) -> None:
    world.settle()
    world.replicate([])
    assert world.asked == {2: [], 3: []}


def test_who_is_not_in_sync_is_not_waited_for(world: World) -> None:
    world.replicate(world.append())
    assert world.asked == {2: [], 3: []}
    assert world.replicator.in_sync() == []


def test_followers_are_asked_at_once(world: World) -> None:
    """Each answers only when the other has been asked, too."""
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
    world.replicate(world.append())  # does not wait for it any more
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
    """It takes what it gets, and says that rows are missing."""
    world.settle()
    world.append()
    world.replicate(world.append())  # the row between was never sent
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
    world.followers[2].servicer._replica_id = 3  # the addresses have been swapped
    world.replicate(world.append())
    assert world.replicator.in_sync() == [3]
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [3]
    assert "replica 2 cannot be brought up: replica 2: answered by replica 3" in caplog.messages


# ------------------------------------------------------------ off the trades' path


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
    assert [len(piece) for piece in sent] == [0, 500, 500, 190]


def test_it_rejoins_only_when_an_append_off_the_path_succeeded(world: World) -> None:
    world.replicator.start()
    world.wait_in_sync(2, 3)
    with refusing_rows(world.followers[2].log):
        world.replicate(world.append())
        tries = len(world.asked[2])
        eventually(lambda: len(world.asked[2]) > tries + 6, lambda: world.asked)
        assert world.replicator.in_sync() == [3]  # it answers, but takes nothing
        world.replicate(world.append(2))
    world.wait_in_sync(2, 3)
    assert world.positions() == [8, 8]
    assert world.followers[2].log.rows(0) == ROWS[:8]


def test_a_row_that_comes_between_is_sent_before_it_joins(world: World) -> None:
    """The follower has said that it has all; then, before it is let in, a trade commits."""

    def commit() -> None:
        world.ledger.before = lambda: None
        world.replicate(world.append())

    world.ledger.before = commit
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [2]
    assert world.followers[2].log.rows(0) == ROWS[:6]


def test_a_row_that_comes_next_is_sent_to_who_just_joined(world: World) -> None:
    """The moment the log may move again, the follower must be in the set already."""

    def commit() -> None:
        if world.parts.log.last_number == world.followers[2].log.last_number:
            world.ledger.after = lambda: None
            world.replicate(world.append())

    world.ledger.after = commit
    world.look(world.peers[0])
    assert world.replicator.in_sync() == [2]
    assert world.followers[2].log.rows(0) == ROWS[:6]


def test_under_load_no_row_is_missed_while_followers_come_and_go(world: World) -> None:
    """Trades commit just while those who want to rejoin are being brought up."""
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
            # Not each time: one that lacks a row whenever it is looked at is never let in.
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
    """Nobody trades, so nobody else would notice."""
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
    world.look(world.peers[0], lambda: rows.extend(world.append()))  # looked at in this moment
    world.replicate(rows)
    assert "left the in-sync set" not in caplog.text
    assert world.positions() == [6, 6]


def test_one_that_is_away_does_not_hold_up_the_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "order.replication")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        away = ReplicaPeer(4, f"127.0.0.1:{held.getsockname()[1]}")
        world.replicator = world.make_replicator([away, world.peers[0]])
        world.replicator.start()
        world.wait_in_sync(2)

        def levels() -> list[int]:
            return [one.levelno for one in caplog.records if "cannot be brought up" in one.message]

        eventually(lambda: len(levels()) >= 3, levels)
        world.replicator.stop()
        away.close()
    assert levels()[:3] == [logging.WARNING, logging.DEBUG, logging.DEBUG]  # said once


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


# ------------------------------------------------------------ offices


def test_out_of_office_nobody_is_in_sync(world: World) -> None:
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


def test_a_new_office_begins_with_nobody_in_sync(world: World) -> None:
    """Its followers may have missed rows of the office between."""
    world.settle()
    elect_again(world)
    assert world.replicator.in_sync() == []
    world.replicate(world.append())
    assert world.asked == {2: [], 3: []}
    world.look(world.peers[1])
    assert world.replicator.in_sync() == [3]  # not replica 2 of the office before
    assert world.positions() == [5, 6]


def test_a_batch_of_an_old_office_is_nobodys(world: World) -> None:
    world.settle()
    elect_again(world)
    world.look(world.peers[0])
    world.asked[2].clear()
    world.replicator.replicate(world.append(), EPOCH)
    assert world.asked == {2: [], 3: []}


@pytest.mark.parametrize("new_office_has_followers", [True, False])
def test_who_was_brought_up_for_an_old_office_is_not_in_the_new_one(
    world: World, new_office_has_followers: bool
) -> None:
    def meanwhile(_numbers: list[int]) -> None:
        elect_again(world)
        world.followers[3].servicer.on_rows = lambda _numbers: None
        if new_office_has_followers:
            world.look(world.peers[0])

    world.followers[3].servicer.on_rows = meanwhile
    world.look(world.peers[1])
    assert world.replicator.in_sync() == ([2] if new_office_has_followers else [])
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


def test_bringing_up_ends_with_the_office(tmp_path: Path) -> None:
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
    assert numbers(world.append()) == [6]  # and nobody holds the log
