"""Whether log and journal belong together, and what a replica does if they do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.domain import Order
from common.errors import BourseError, Contradiction, Unavailable
from order.leadership.identity import LogIdentity
from order.loops import Loops
from stack.waiting import wait_for
from tests.unit.order.fakes import CLUSTER, OTHER_CLUSTER, Parts, chained, make_rows, open_parts

ROWS = make_rows(10)
OTHER = chained(make_rows(12, epoch=9))
PATIENCE_S = 10.0


class FakeJournal:
    """The journal of the catalog. With `error`, it cannot be reached."""

    def __init__(self) -> None:
        self.rows = list(ROWS)
        self.cluster_id = CLUSTER
        self.error: Exception | None = None
        self.asked: list[tuple[int, int, str]] = []

    def compare(
        self, replica_id: int, last_number: int, digest: bytes, cluster_id: str, timeout_s: float
    ) -> str:
        self.asked.append((replica_id, last_number, cluster_id))
        if self.error:
            raise self.error
        if cluster_id not in ("", self.cluster_id):
            raise Contradiction(f"of cluster {cluster_id}")
        if last_number > len(self.rows) or self.rows[last_number - 1].digest != digest:
            raise Contradiction(f"no such order {last_number}")
        return self.cluster_id


class World:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.journal = FakeJournal()
        self.changes: list[bool] = []
        self.identity = LogIdentity(
            parts.node, parts.ledger, self.journal, on_change=self.changes.append
        )

    def look(self) -> tuple[bool, bool]:
        """Whether log and catalog match, and whether orders are served."""
        self.identity.look()
        return self.identity.matches, self.refusal() is None

    def refusal(self) -> BourseError | None:
        """Why orders are not served."""
        try:
            self.identity.check_orders()
        except BourseError as error:
            return error
        return None


@contextmanager
def world_with(tmp_path: Path, rows: list[Order], cluster_id: str = CLUSTER) -> Iterator[World]:
    with open_parts(tmp_path) as parts:
        parts.ledger.append(rows, cluster_id)
        yield World(parts)


@pytest.mark.parametrize("log", [[], ROWS[:3], ROWS])
@pytest.mark.parametrize("cluster_id", [CLUSTER, ""])
def test_a_beginning_of_the_journal_belongs_to_it(
    tmp_path: Path, log: list[Order], cluster_id: str
) -> None:
    with world_with(tmp_path, log, cluster_id) as world:
        assert type(world.refusal()) is Unavailable  # before the first look
        assert world.look() == (True, True)
        assert world.changes == []
        assert world.parts.ledger.cluster_id == (CLUSTER if log else "")


def other_orders(journal: FakeJournal) -> None:
    journal.rows = list(OTHER)


def no_orders(journal: FakeJournal) -> None:
    journal.rows = []


def other_cluster(journal: FakeJournal) -> None:
    journal.cluster_id = OTHER_CLUSTER


@pytest.mark.parametrize("change", [other_orders, no_orders, other_cluster])
def test_what_contradicts_the_catalog_serves_nothing_until_they_fit_again(
    tmp_path: Path, change: object, caplog: pytest.LogCaptureFixture
) -> None:
    with world_with(tmp_path, ROWS[:4]) as world:
        assert world.look() == (True, True)
        change(world.journal)  # type: ignore[operator]
        for _ in range(2):
            assert world.look() == (False, False)
            assert isinstance(world.refusal(), Contradiction)
        world.journal.rows, world.journal.cluster_id = list(ROWS), CLUSTER
        for _ in range(2):
            assert world.look() == (True, True)
        assert world.changes == [False, True]
        assert world.parts.log.rows(0) == ROWS[:4]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["CRITICAL", "WARNING"]
    assert "this log and the catalog do not belong together" in caplog.text
    assert "OPERATIONS.md" in caplog.text


def test_a_log_that_is_denied_takes_no_id_over(tmp_path: Path) -> None:
    with world_with(tmp_path, OTHER[:4], "") as world:
        assert world.look() == (False, False)
        assert world.parts.ledger.cluster_id == ""


def test_without_a_catalog_nothing_changes(tmp_path: Path) -> None:
    with world_with(tmp_path, ROWS[:4]) as world:
        world.journal.error = Unavailable("down")
        assert world.look() == (True, True)
        world.journal.error, world.journal.rows = None, []
        assert world.look() == (False, False)
        world.journal.error = Unavailable("down")
        assert world.look() == (False, False)
        assert world.changes == [False]


def test_an_empty_log_fits_every_catalog(tmp_path: Path) -> None:
    with world_with(tmp_path, []) as world:
        world.journal.rows = []
        assert world.look() == (True, True)
        assert world.journal.asked == []


def test_it_looks_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("order.leadership.identity._INTERVAL_S", 0.005)
    with world_with(tmp_path, ROWS) as world:
        world.journal.error = ZeroDivisionError("a defect")
        loops = Loops()
        loops.start("identity", world.identity.run)
        wait_for(lambda: len(world.journal.asked) > 3, PATIENCE_S, "it looks")
        loops.stop(PATIENCE_S)
        assert world.journal.asked[0] == (1, 10, CLUSTER)
