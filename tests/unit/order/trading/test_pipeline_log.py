"""The pipeline and a log that fails, lacks rows, or contradicts the catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Contradiction, NotLeader, OutcomeUnknown, Unavailable
from common.pulls import Rows
from order.leadership.replica import Role
from tests.unit.order.fakes import (
    CLUSTER,
    OTHER_CLUSTER,
    lost,
    make_pending,
    make_rows,
    refusing_rows,
)
from tests.unit.order.trading.pipeline_world import World, open_world, summary


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_world(tmp_path) as world:
        yield world


def test_an_append_that_fails_ends_leading_but_not_the_answers(world: World) -> None:
    """The catalog has decided, so callers get answers. Followers get the rows from the journal."""
    with refusing_rows(world.log):
        answers = world.answers("a", make_pending("r", quantity=5_000), "b", "c")
    assert [summary(answer) for answer in answers] == [(1, 3), (0, -1), (1, 4), NotLeader]
    assert [step for step in world.steps if "answer" not in step] == [
        "commit a r b",
        "wake followers",
        "publish [3, 4]",
    ]
    world.assert_resigned("cannot append: ")
    assert world.ledger.last_append_failed
    assert world.log.last_number == 2


def test_a_gap_is_filled_from_the_journal(world: World) -> None:
    """The missing rows were committed by an earlier leader and never sent to this replica."""
    world.catalog.rows += make_rows(5, after=world.catalog.rows, epoch=2)
    world.catalog.chunk = 4
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 8)
    assert world.steps == [
        "commit a",
        "pull",
        "append [3, 4, 5, 6]",
        "append [7, 8]",
        "answer a",
        "wake followers",
        "publish [3, 4, 5, 6, 7, 8]",
    ]
    assert world.log.rows(0) == world.catalog.rows
    assert world.role is Role.LEADER


def test_a_gap_that_cannot_be_filled_ends_leading_but_not_the_answers(world: World) -> None:
    world.catalog.rows += make_rows(5, after=world.catalog.rows, epoch=2)
    world.catalog.journal_script.append(lost(Unavailable("down")))
    (answer,) = world.answers("a")
    assert summary(answer) == (1, 8)
    assert world.steps[-3:] == ["answer a", "wake followers", "publish [8]"]
    world.assert_resigned("cannot pull the journal: down")


def test_no_trade_is_acknowledged_under_a_contradiction(world: World) -> None:
    """The catalog gives a trade number 2, but the log has another trade there."""
    del world.catalog.rows[1:]
    answers = world.answers(*"abcd")
    assert [type(answer) for answer in answers] == [OutcomeUnknown] * 3 + [NotLeader]
    (denial,) = world.identity.denials
    assert "row 2 is not the one in the log" in denial
    world.assert_resigned(denial)
    assert world.halted == []
    assert "wake" not in " ".join(world.steps)
    assert len(world.catalog.sent) == 1


def test_a_batch_that_is_for_another_catalog_is_not_sent_again(world: World) -> None:
    """An earlier copy may have been decided by the right one, so the outcome is unknown."""
    world.catalog.update_script.append(lost(Contradiction("another cluster")))
    (answer,) = world.answers("a")
    assert type(answer) is OutcomeUnknown
    assert len(world.catalog.sent) == 1
    assert world.identity.denials == ["another cluster"]
    world.assert_resigned("another cluster")
    assert world.halted == []


def test_the_rows_of_a_batch_must_be_of_the_logs_cluster(world: World) -> None:
    world.ledger.join_cluster(OTHER_CLUSTER)
    (answer,) = world.answers("a")
    assert type(answer) is OutcomeUnknown
    (denial,) = world.identity.denials
    assert CLUSTER in denial
    world.assert_resigned(denial)


def test_the_first_batch_brings_the_clusters_id(world: World) -> None:
    world.answers("a")
    assert world.ledger.cluster_id == CLUSTER


def test_a_journal_that_contradicts_the_log_ends_leading(world: World) -> None:
    rows = make_rows(4, after=world.catalog.rows, epoch=2)
    world.catalog.rows += rows
    world.catalog.journal_script.append(lambda execute: [Rows([replace(rows[0], quantity=77)])])
    (answer,) = world.answers("a")
    assert type(answer) is OutcomeUnknown
    assert len(world.identity.denials) == 1
    assert world.role is Role.FOLLOWER
    assert world.halted == []
