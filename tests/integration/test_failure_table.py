"""Every row of the failure table holds, and fails when its mechanism is taken out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.parts import ROOT
from stack.waiting import NotInTime
from tests.support.failure_table import ROWS, Row
from tests.support.rigged_cluster import RiggedCluster, rigged_cluster

LONGEST = ("leader cut off from the catalog, or from the frontends", "redis")
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.dies)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RiggedCluster]:
    with rigged_cluster(tmp_path_factory.mktemp("table")) as cluster:
        yield cluster


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.slow] if row.dies in LONGEST else []) for row in ROWS],
    ids=lambda row: row.dies,
)
def test_row_holds(cluster: RiggedCluster, row: Row) -> None:
    row.scenario(cluster)


@each_row
@pytest.mark.slow
def test_row_fails_without_its_mechanism(tmp_path: Path, row: Row) -> None:
    with (
        rigged_cluster(tmp_path, without=row.mechanism) as cluster,
        pytest.raises((AssertionError, NotInTime), match=row.failure),
    ):
        row.scenario(cluster)


# Needs containers: tests/e2e/test_frontend_failures.py.
ELSEWHERE = ["frontend container", "edge"]


def test_the_architecture_has_this_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    table = text.partition("| dies, at any instant |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|-][^|]*) \|", table, re.MULTILINE)
    assert [row for row in rows if row not in ELSEWHERE] == [row.dies for row in ROWS]
    assert set(ELSEWHERE) <= set(rows)
