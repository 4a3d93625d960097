"""Catching up at start, from real replicas."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import BourseError, Contradiction, Damaged, Unavailable
from common.replicas import ReplicaPeer
from order.leadership.replica import Role
from order.log.catchup import catch_up
from proto import bourse_pb2
from tests.unit.order.fakes import (
    CLUSTER,
    OTHER_CLUSTER,
    TIMEOUT_S,
    Parts,
    make_rows,
    open_parts,
    refusing_rows,
)
from tests.unit.order.replicas import RunningReplica, peer_of, running_replica

ROWS = make_rows(2_500)  # more than one chunk


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Parts]:
    """Replica 1, which starts with the first ten rows."""
    with open_parts(tmp_path / "mine", ROWS[:10]) as parts:
        yield parts


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[RunningReplica]:
    """Replica 2, which leads epoch 5 and has all rows."""
    with running_replica(tmp_path / "leader", ROWS, replica_id=2) as replica:
        replica.lead(epoch=5)
        yield replica


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RunningReplica]:
    """Replica 3, which knows no leader and has fifty rows."""
    with running_replica(tmp_path / "other", ROWS[:50], replica_id=3) as replica:
        yield replica


def start(
    mine: Parts,
    *replicas: RunningReplica,
    peers: Sequence[ReplicaPeer] = (),
    is_stopping: Callable[[], bool] = lambda: False,
) -> list[Order]:
    """Catches up from these replicas. Returns the rows that were published."""
    published: list[Order] = []
    with peer_of(*replicas) as known:
        catch_up(
            mine.node,
            mine.ledger,
            [*peers, *known],
            peer_timeout_s=TIMEOUT_S,
            pull_timeout_s=TIMEOUT_S,
            publish=published.extend,
            is_stopping=is_stopping,
        )
    return published


def heard(parts: Parts) -> tuple[Role, int, int]:
    view = parts.node.view()
    return view.role, view.leader_id, view.epoch


def test_it_pulls_from_the_leader_what_it_lacks(
    mine: Parts, leader: RunningReplica, other: RunningReplica
) -> None:
    published = start(mine, other, leader)
    assert published == ROWS[10:]
    assert (mine.log.last_number, mine.log.digest) == (len(ROWS), ROWS[-1].digest)
    assert heard(mine) == (Role.FOLLOWER, 2, 5)


def test_an_empty_log_is_the_same_case(tmp_path: Path, leader: RunningReplica) -> None:
    leader.ledger.join_cluster(CLUSTER)
    with open_parts(tmp_path / "empty") as mine:
        assert start(mine, leader) == ROWS
        assert mine.ledger.cluster_id == CLUSTER


def test_a_leader_of_another_cluster_is_not_followed(mine: Parts, leader: RunningReplica) -> None:
    mine.ledger.join_cluster(CLUSTER)
    leader.ledger.join_cluster(OTHER_CLUSTER)
    with pytest.raises(Contradiction, match=OTHER_CLUSTER):
        start(mine, leader)
    assert mine.log.rows(0) == ROWS[:10]


def test_with_nothing_to_pull_it_still_knows_the_leader(
    tmp_path: Path, leader: RunningReplica
) -> None:
    with open_parts(tmp_path / "same", ROWS) as mine:
        assert start(mine, leader) == []
        assert heard(mine) == (Role.FOLLOWER, 2, 5)


def test_without_a_leader_it_starts_with_its_own_log(mine: Parts, other: RunningReplica) -> None:
    asked: list[int] = []
    other.servicer.on_asked = lambda: asked.append(1)
    assert start(mine, other) == []
    assert len(asked) == 2  # then it gave up
    assert mine.log.last_number == 10
    assert heard(mine) == (Role.FOLLOWER, 0, 0)


def test_alone_it_starts_with_its_own_log(mine: Parts) -> None:
    assert start(mine) == []


def test_hearsay_is_no_leader(mine: Parts, other: RunningReplica) -> None:
    """Replica 3 names a leader that is not there. Only a leader's own answer counts."""
    other.node.step(lambda replica: replica.hear_of(2, 9))
    assert start(mine, other) == []
    assert heard(mine) == (Role.FOLLOWER, 0, 0)


@pytest.mark.parametrize("the_newer_is_first", [True, False])
def test_of_two_that_say_they_lead_the_newer_is_believed(
    mine: Parts, leader: RunningReplica, other: RunningReplica, the_newer_is_first: bool
) -> None:
    other.lead(epoch=6)  # replica 2 was deposed and does not know it yet
    first, second = (other, leader) if the_newer_is_first else (leader, other)
    was_asked, never = threading.Event(), threading.Event()

    def answer_later() -> None:
        assert was_asked.wait(TIMEOUT_S)
        never.wait(0.05)

    first.servicer.on_asked = was_asked.set
    second.servicer.on_asked = answer_later
    assert start(mine, leader, other) == ROWS[10:50]
    assert heard(mine) == (Role.FOLLOWER, 3, 6)


def test_a_leader_elected_meanwhile_is_found_in_the_second_round(
    mine: Parts, leader: RunningReplica
) -> None:
    answers = [bourse_pb2.GetLeaderResponse(replica_id=2, leader_id=0, epoch=4)]
    leader.servicer.on_asked = lambda: answers.pop() if answers else None
    assert start(mine, leader) == ROWS[10:]
    assert answers == []


def test_another_replica_at_the_leaders_address_is_not_believed(
    mine: Parts, leader: RunningReplica
) -> None:
    swapped = ReplicaPeer(3, leader.address)
    try:
        assert start(mine, peers=[swapped]) == []
    finally:
        swapped.close()


def test_peers_that_are_away_or_silent_do_not_hold_it_up(
    mine: Parts, leader: RunningReplica, other: RunningReplica
) -> None:
    may_answer = threading.Event()
    other.servicer.on_asked = lambda: may_answer.wait(TIMEOUT_S) and None
    with ExitStack() as stack:
        held = stack.enter_context(socket.socket())
        held.bind(("127.0.0.1", 0))  # bound, but not listening
        away = ReplicaPeer(4, f"127.0.0.1:{held.getsockname()[1]}")
        stack.callback(away.close)
        peers = stack.enter_context(peer_of(other, leader))
        catch_up(
            mine.node,
            mine.ledger,
            [away, *peers],
            peer_timeout_s=0.2,
            pull_timeout_s=TIMEOUT_S,
            publish=lambda _rows: None,
            is_stopping=lambda: False,
        )
        may_answer.set()
    assert mine.log.last_number == len(ROWS)


# ------------------------------------------------------------ the pull goes wrong


def break_off(
    leader: RunningReplica, monkeypatch: pytest.MonkeyPatch, error: BourseError | None = None
) -> None:
    """Makes the leader fail after the first 1,000 rows."""
    chunks = leader.log.chunks

    def breaking(after: int) -> Iterator[list[Order]]:
        for rows in chunks(after):
            if after >= 1_010:
                raise error or Unavailable("gone")
            yield rows

    monkeypatch.setattr(leader.log, "chunks", breaking)


# Damage in the log of the leader is not damage in this log.
@pytest.mark.parametrize("error", [Unavailable("gone"), Damaged("a page is bad")])
def test_with_a_leader_that_breaks_off_it_starts_with_what_it_got(
    mine: Parts,
    leader: RunningReplica,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BourseError,
) -> None:
    caplog.set_level("INFO", "order.log.catchup")
    break_off(leader, monkeypatch, error)
    assert start(mine, leader) == ROWS[10:1_010]
    assert mine.log.last_number == 1_010
    assert heard(mine) == (Role.FOLLOWER, 2, 5)
    assert f"catching up from replica 2 broke off: {error}" in caplog.messages
    assert "caught up" not in caplog.text


def test_it_stops_catching_up_when_the_service_stops(mine: Parts, leader: RunningReplica) -> None:
    assert start(mine, leader, is_stopping=lambda: mine.log.last_number > 10) == ROWS[10:1_010]


def test_with_a_disk_that_takes_no_rows_it_starts_with_its_own_log(
    mine: Parts, leader: RunningReplica
) -> None:
    with refusing_rows(mine.log):
        assert start(mine, leader) == []
    assert mine.log.last_number == 10
    assert mine.ledger.last_append_failed  # so it does not lead


def test_a_leader_that_contradicts_its_log_is_damage(
    tmp_path: Path, leader: RunningReplica
) -> None:
    with (
        open_parts(tmp_path / "contradicting", make_rows(10, epoch=2)) as mine,
        pytest.raises(Damaged, match="row 11 does not continue the log's chain"),
    ):
        start(mine, leader)


def test_with_a_leader_whose_stream_has_a_hole_it_starts_with_what_it_got(
    mine: Parts, leader: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader.log, "chunks", lambda after: iter([ROWS[after:100], ROWS[101:]]))
    start(mine, leader)
    assert heard(mine) == (Role.FOLLOWER, 2, 5)


def test_it_does_not_run_after_a_leader_that_trades(mine: Parts, leader: RunningReplica) -> None:
    """The leader appends one more row for each chunk that is appended here."""
    more = iter(make_rows(50, after=ROWS))
    published: list[Order] = []

    def publish(rows: Sequence[Order]) -> None:
        published.extend(rows)
        leader.ledger.append([next(more)])

    with peer_of(leader) as known:
        catch_up(
            mine.node,
            mine.ledger,
            known,
            peer_timeout_s=TIMEOUT_S,
            pull_timeout_s=TIMEOUT_S,
            publish=publish,
            is_stopping=lambda: False,
        )
    assert len(ROWS) <= mine.log.last_number < len(ROWS) + 10
