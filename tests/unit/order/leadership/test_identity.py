"""If log and journal contradict each other: which one is wrong, and what a replica does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from common.domain import EMPTY_DIGEST, Order
from common.errors import BourseError, Contradiction, Unavailable
from order.leadership.identity import LogIdentity
from order.leadership.node import Node
from order.leadership.promotion import WrongCatalog
from order.leadership.replica import Replica
from stack.waiting import wait_for
from tests.support.replica_fakes import PATIENCE_S, Replicas, fails
from tests.unit.order.fakes import chained, make_rows

ROWS = make_rows(10)
OTHER = chained(make_rows(12, epoch=9))


@dataclass
class FakeJournal:
    """The journal of the catalog. With `error`, it cannot be reached."""

    rows: list[Order] = field(default_factory=lambda: list(ROWS))
    error: BourseError | None = None
    first_error: BourseError | None = None  # raised only when the first order is read
    asked: list[tuple[int, int]] = field(default_factory=list)

    def first_digest(self, timeout_s: float) -> bytes:
        if self.first_error or self.error:
            raise self.first_error or self.error  # type: ignore[misc]
        return self.rows[0].digest if self.rows else b""

    def compare(self, replica_id: int, last_number: int, digest: bytes, timeout_s: float) -> None:
        self.asked.append((replica_id, last_number))
        if self.error:
            raise self.error
        if last_number > len(self.rows) or self.rows[last_number - 1].digest != digest:
            raise Contradiction(f"no such order {last_number}")


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    with closing(Replicas()) as replicas:
        yield replicas


class World:
    """Replica 1 with a log, and two other replicas that report the ends of their logs."""

    def __init__(self, replicas: Replicas, log: list[Order]) -> None:
        self.replicas = replicas
        self.journal = FakeJournal()
        self.changes: list[bool] = []
        self.wrong_log: list[str] = []
        digest = log[-1].digest if log else EMPTY_DIGEST
        self.identity = LogIdentity(
            Node(Replica(1, len(log), digest)),
            self.journal,
            [replicas.peers[2], replicas.peers[3]],
            first_digest=lambda: log[0].digest if log else b"",
            replica_count=3,
            peer_timeout_s=5.0,
            on_change=self.changes.append,
            on_wrong_log=self.wrong_log.append,
        )

    def others_have(self, second: list[Order] | None, third: list[Order] | None) -> None:
        """Sets the logs of the two others. With None, a replica does not answer."""
        for replica_id, log in ((2, second), (3, third)):
            replica = self.replicas[replica_id]
            if log is None:
                replica.always("Status", fails(Unavailable("paused")))
            elif log:
                replica.last_number, replica.digest = log[-1].number, log[-1].digest
                replica.first_digest = log[0].digest

    def look(self) -> tuple[bool, bool, bool]:
        """Whether log and catalog match, whether orders are served, whether the log is given up."""
        self.identity.look()
        return self.identity.matches, self.identity.may_serve_orders, bool(self.wrong_log)

    def may_stand(self) -> bool:
        try:
            self.identity.check_peers(timeout_s=1.0)
        except WrongCatalog:
            return False
        return True


@pytest.mark.parametrize("log", [[], ROWS[:3], ROWS])
def test_a_beginning_of_the_journal_belongs_to_it(replicas: Replicas, log: list[Order]) -> None:
    world = World(replicas, log)
    world.others_have(ROWS, ROWS[:5])
    assert not world.identity.may_serve_orders  # before the first look
    assert world.look() == (True, True, False)
    assert world.may_stand()
    assert world.changes == []


JUDGEMENTS = {
    # the other two logs → served, given up; this log does not match the catalog
    "both are the catalog's": (ROWS, ROWS[:2], False, True),
    "one is the catalog's, one is silent": (ROWS, None, False, False),
    "one is the catalog's, one is empty": (ROWS, [], False, False),
    "one is the catalog's, one is not either": (ROWS, OTHER, True, False),
    "both are not the catalog's either": (OTHER, OTHER[:2], True, False),
    "one is not either, one is silent": (OTHER, None, True, False),
    "nobody answers": (None, None, False, False),
    "both are empty": ([], [], False, False),
}


@pytest.mark.parametrize("others", JUDGEMENTS)
@pytest.mark.parametrize("length", [2, 12])
def test_whose_fault_it_is(replicas: Replicas, others: str, length: int) -> None:
    second, third, served, given_up = JUDGEMENTS[others]
    world = World(replicas, OTHER[:length])
    world.others_have(second, third)
    assert world.look() == (False, served, given_up)
    assert world.changes == [False]


def test_a_log_that_the_catalog_once_confirmed_is_served(replicas: Replicas) -> None:
    world = World(replicas, ROWS[:4])
    world.others_have(None, None)
    world.look()
    world.journal.rows = []
    assert world.look() == (False, True, False)
    assert "no such order 4" in str(world.identity._denied_because)


def test_it_mends_itself(replicas: Replicas, caplog: pytest.LogCaptureFixture) -> None:
    world = World(replicas, ROWS[:4])
    world.others_have(ROWS, ROWS)
    for rows in ([], [], ROWS, ROWS):
        world.journal.rows = list(rows)
        world.look()
    assert world.changes == [False, True]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["CRITICAL", "WARNING"]
    assert "this log and the catalog do not belong together" in caplog.text
    assert "OPERATIONS.md" in caplog.text


def test_without_a_catalog_nothing_changes(replicas: Replicas) -> None:
    world = World(replicas, ROWS[:4])
    world.others_have(ROWS, ROWS)
    world.journal.error = Unavailable("down")
    assert world.look() == (True, True, False)
    world.journal.error, world.journal.rows = None, []
    assert world.look()[0] is False
    world.journal.error = Unavailable("down")
    assert world.look()[0] is False
    assert world.changes == [False]


STANDING = {
    # the other two logs → whether a replica may stand whose own log matches the catalog
    "both are the catalog's": (ROWS, ROWS[:1], True),
    "one is, one is not": (ROWS, OTHER, True),
    "one is not, one is silent": (OTHER, None, False),
    "one is not, one is empty": (OTHER, [], False),
    "both are not": (OTHER, OTHER[:3], False),
    "nobody answers": (None, None, True),
    "both are empty": ([], [], True),
}


@pytest.mark.parametrize("others", STANDING)
@pytest.mark.parametrize("log", [[], ROWS[:1]])
def test_who_may_stand(replicas: Replicas, others: str, log: list[Order]) -> None:
    second, third, may_stand = STANDING[others]
    world = World(replicas, log)
    world.others_have(second, third)
    assert world.look() == (True, True, False)
    assert world.may_stand() is may_stand


def test_what_was_seen_of_a_replica_counts_when_it_is_dead(replicas: Replicas) -> None:
    world = World(replicas, [])
    world.others_have(ROWS, [])
    world.look()
    replicas.kill(2)
    world.journal.rows = []
    world.look()
    assert not world.may_stand()


def test_a_catalog_that_cannot_be_asked_lets_nobody_lead(replicas: Replicas) -> None:
    """When it answers again, it may be another catalog."""
    world = World(replicas, [])
    world.others_have(OTHER, OTHER)
    world.look()
    world.journal.error = Unavailable("down")
    with pytest.raises(Unavailable, match="down"):
        world.identity.check_peers(timeout_s=1.0)


BRANCHED = ROWS[:5] + make_rows(4, after=ROWS[:5], epoch=9)


@pytest.mark.parametrize("log", [ROWS, BRANCHED])
def test_a_log_that_begins_as_the_journal_does_is_never_given_up(
    replicas: Replicas, log: list[Order]
) -> None:
    """The last leader may have orders that the catalog lost, while the other logs end earlier."""
    world = World(replicas, log)
    world.journal.rows = ROWS[:5] if log is ROWS else list(ROWS)
    world.others_have(ROWS[:5], ROWS[:3])
    assert world.look() == (False, True, False)


def test_whether_a_log_is_given_up_waits_for_the_catalog(replicas: Replicas) -> None:
    world = World(replicas, OTHER)
    world.others_have(ROWS, ROWS)
    world.journal.first_error = Unavailable("down")
    assert world.look() == (False, False, False)
    world.journal.first_error = None
    assert world.look() == (False, False, True)


@pytest.mark.parametrize("log", [[], ROWS[:3], ROWS[:5]])
def test_one_log_proves_that_the_catalog_lost_orders(replicas: Replicas, log: list[Order]) -> None:
    world = World(replicas, log)
    world.journal.rows = ROWS[:5]
    world.others_have(ROWS[:5], ROWS)
    assert world.look() == (True, True, False)
    assert not world.may_stand()
    world.journal.rows = list(ROWS)
    assert world.may_stand()


def test_it_looks_again_and_again(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("order.leadership.identity._INTERVAL_S", 0.005)
    world = World(replicas, ROWS)
    world.journal.error = ZeroDivisionError("a defect")  # type: ignore[assignment]
    world.identity.start()
    wait_for(lambda: len(world.journal.asked) > 3, PATIENCE_S, "it looks")
    world.identity.stop()
