"""One process's way to being active and back."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from decimal import Decimal

import pytest

from catalog.postgres.candidate import Candidate
from catalog.postgres.session import SessionLost
from catalog.stock import Stock
from common.errors import Damaged, NotActive
from tests.unit.catalog.postgres.database import Cluster, FakeSession, Node
from tests.unit.catalog.postgres.scheduler import Machine, Scheduler, Turn

V = 1.0


class Stage:
    """Candidates over one database, on one clock."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        chance = random.Random(1)  # noqa: S311 - repeatable on purpose
        self.cluster = Cluster(self.scheduler, chance, [Stock("stock1", Decimal(1), 100)])

    def enter(self, name: str) -> Player:
        return Player(self, name)

    def pass_by(self, duration_s: float) -> None:
        self.scheduler.run(self.scheduler.now_s + duration_s)


class Player:
    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.machine = Machine(name)
        self.is_stopping = False
        self.changes: list[bool] = []
        self.avoided: list[str] = []
        self.nodes: list[Node] = []  # to connect to, one after the other; empty: the leader
        self.candidate = Candidate(
            connect=self._connect,
            holder=name,
            office_s=V,
            clock=lambda: stage.scheduler.now_s,
            wall_clock=lambda: 0.0,
            wait=self._wait,
            on_change=self.changes.append,
            make_turn=lambda: Turn(stage.scheduler),
        )
        stage.scheduler.spawn(self.machine, self.candidate.run)

    def _wait(self, duration_s: float) -> bool:
        self.stage.scheduler.wait(duration_s)
        return self.is_stopping

    def _connect(self, avoided: str) -> FakeSession:
        self.avoided.append(avoided)
        node = self.nodes.pop(0) if self.nodes else self.stage.cluster.leader
        return FakeSession(self.stage.cluster, self.machine, node)

    @property
    def is_active(self) -> bool:
        try:
            self.candidate.current().check_active()
        except NotActive:
            return False
        return True


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.scheduler.close()


@pytest.fixture
def active(stage: Stage) -> Player:
    player = stage.enter("first")
    stage.pass_by(0.1)
    assert player.is_active
    return player


def test_an_office_that_nobody_holds_is_taken_at_once(stage: Stage, active: Player) -> None:
    assert active.changes == [True]
    assert stage.cluster.acknowledged.office.holder == "first"


def test_it_stays_active_while_it_is_idle(stage: Stage, active: Player) -> None:
    second = stage.enter("second")
    for _ in range(20):
        stage.pass_by(0.37)
        assert active.is_active
        assert not second.is_active
    assert stage.cluster.acknowledged.office.generation == 1


def test_silence_is_waited_for(stage: Stage, active: Player) -> None:
    second = stage.enter("second")
    stage.pass_by(0.5)
    active.machine.resumes_at_s = stage.scheduler.now_s + 3.0
    stage.pass_by(0.9)
    assert second.changes == []
    stage.pass_by(0.8)
    assert second.is_active
    stage.pass_by(2.0)
    assert active.changes == [True, False]
    assert second.is_active


def test_who_leaves_is_not_waited_for(stage: Stage, active: Player) -> None:
    second = stage.enter("second")
    stage.pass_by(0.5)
    active.is_stopping = True
    stage.pass_by(0.35)
    assert active.changes == [True, False]
    assert second.is_active


def test_who_stands_by_may_leave(stage: Stage, active: Player) -> None:
    second = stage.enter("second")
    stage.pass_by(0.5)
    second.is_stopping = True
    stage.pass_by(1.0)
    assert active.is_active
    assert not stage.cluster.acknowledged.office.released


def test_a_lost_connection_ends_the_term_and_it_takes_its_own_again(
    stage: Stage, active: Player
) -> None:
    store = active.candidate.current()
    stage.cluster.leader.sessions[0].break_off()
    stage.pass_by(0.6)
    assert active.changes == [True, False, True]
    assert active.candidate.current() is not store
    assert active.candidate.current().generation == 2


def test_while_standing_by_there_is_no_store(stage: Stage, active: Player) -> None:
    second = stage.enter("second")
    stage.pass_by(0.5)
    with pytest.raises(NotActive):
        second.candidate.current()


def test_after_an_attempt_in_doubt_it_goes_on_to_another_node(stage: Stage) -> None:
    """The old primary takes writes, but nobody acknowledges them."""
    old, standby = stage.cluster.leader, stage.cluster.leader.standby
    assert standby is not None
    stage.cluster.promote(standby)
    player = stage.enter("first")
    player.nodes = [old]
    stage.pass_by(3.0)
    assert player.avoided == ["", old.name]
    assert player.is_active
    assert player.candidate.current().node == standby.name


def test_without_a_database_it_says_so_once_and_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(_session: FakeSession) -> None:
        raise SessionLost("no route")

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(FakeSession, "observe", observe)
        player = stage.enter("first")
        stage.pass_by(2.0)
        assert not player.is_active
    stage.pass_by(0.3)
    assert player.is_active
    lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert lines == ["standing by without a database: no route"]


def test_on_damaged_data_nobody_is_active(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_session: FakeSession) -> None:
        raise Damaged("order 7 does not follow order 6")

    monkeypatch.setattr(FakeSession, "load", load)
    player = stage.enter("first")
    stage.pass_by(5.0)
    assert player.changes == []
    assert [one.levelname for one in caplog.records] == ["CRITICAL"]
    assert stage.cluster.acknowledged.office.generation < 5


def test_a_defect_does_not_end_the_loop(
    stage: Stage,
    active: Player,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def beat(_after_s: float) -> None:
        raise AttributeError("a defect")

    monkeypatch.setattr(active.candidate.current(), "beat", beat)
    stage.pass_by(1.0)
    assert active.changes == [True, False]
    assert "a defect" in caplog.text
    stage.pass_by(2.0)
    assert active.is_active


def test_the_log_says_who_is_active_and_why(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        first = stage.enter("first")
        stage.pass_by(0.2)
        second = stage.enter("second")
        stage.pass_by(0.5)
        first.is_stopping = True
        stage.pass_by(0.5)
    assert second.is_active
    assert [one.getMessage() for one in caplog.records if "catalog.postgres" in one.name] == [
        "active in generation 1 at node-1: nobody was before",
        "standing by: generation 1 is held by first",
        "active in generation 2 at node-1: first has left",
    ]
