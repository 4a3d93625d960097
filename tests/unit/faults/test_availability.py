"""For how long a lost office excuses a 503: not before, not after, and nothing else."""

from __future__ import annotations

import pytest

from faults.checker import judge
from faults.checks.availability import EXCUSES
from faults.history import read_lines, to_line
from faults.targets import TARGETS
from stack.offices import ACTIVE, PRIMARY, STANDBY, STANDBY_CATALOG
from tests.unit.faults.histories import HA_PARTS, S, Story, good, told

PRIMARY_IS_2 = {PRIMARY: "postgres-2"}
STANDBY_IS_2 = {STANDBY: "postgres-2"}


def a_503_after(
    wait_s: float,
    kind: str,
    part: str,
    offices: dict[str, str],
    recovered_after_s: float | None = None,
) -> bool:
    """Whether every promise held when a lookup got a 503 that long after the fault began."""
    story = good(HA_PARTS)
    began_ns = story.now_ns
    story.fault("begin", part, id=3, kind=kind, offices=offices)
    if recovered_after_s is not None:
        story.now_ns = began_ns + int(recovered_after_s * S)
        story.fault("recovered", part, id=3, kind=kind, offices=offices)
    story.now_ns = began_ns + int(wait_s * S)
    story.call("lookup", {"status": 503, "error": "no catalog"}, name="a")
    if recovered_after_s is None:
        story.now_ns += 200 * S
        story.fault("recovered", part, id=3, kind=kind, offices=offices)
    judgement = judge(told(story))
    assert [one.promise for one in judgement.verdicts if not one.held] in ([], ["G8"])
    return judgement.held


@pytest.mark.parametrize(
    ("kind", "offices", "within_s"),
    [
        *((kind, PRIMARY_IS_2, 40) for kind in ("kill", "pause", "partition", "zombie")),
        *((kind, PRIMARY_IS_2, 20) for kind in ("stop", "rolling")),
        ("crash", PRIMARY_IS_2, 10),
        *((kind, STANDBY_IS_2, 25) for kind in ("kill", "stop", "pause", "partition", "crash")),
    ],
)
def test_a_lost_office_excuses_a_503_for_some_time(
    kind: str, offices: dict[str, str], within_s: float
) -> None:
    assert a_503_after(1, kind, "postgres-2", offices)
    assert a_503_after(within_s - 1, kind, "postgres-2", offices)
    assert not a_503_after(within_s + 1, kind, "postgres-2", offices)


@pytest.mark.parametrize("kind", ["kill", "lossy"])
def test_nothing_is_excused_any_more_when_what_was_hit_serves_again(kind: str) -> None:
    assert a_503_after(5, kind, "postgres-2", PRIMARY_IS_2, recovered_after_s=8)
    assert not a_503_after(9, kind, "postgres-2", PRIMARY_IS_2, recovered_after_s=8)


def test_who_is_slow_and_not_silent_excuses_a_503_until_it_serves_again() -> None:
    assert a_503_after(100, "lossy", "postgres-2", PRIMARY_IS_2)
    assert a_503_after(100, "lossy", "catalog-2", {ACTIVE: "catalog-2"})
    assert a_503_after(100, "lossy", "etcd-2", {})


@pytest.mark.parametrize(
    ("kind", "part", "offices"),
    [
        ("kill", "postgres-2", {}),
        ("zombie", "postgres-2", {}),
        ("lossy", "postgres-2", {}),
        ("kill", "etcd-2", {}),
        ("kill", "catalog", {ACTIVE: "catalog"}),
        ("pause", "catalog", {ACTIVE: "catalog"}),
        ("partition", "catalog", {ACTIVE: "catalog"}),
        ("stop", "catalog-2", {STANDBY_CATALOG: "catalog-2"}),
        ("kill", "postgres-2", {PRIMARY: "postgres-1"}),  # an office of another part
    ],
)
def test_who_holds_no_office_and_a_lost_catalog_excuse_nothing(
    kind: str, part: str, offices: dict[str, str]
) -> None:
    assert not a_503_after(1, kind, part, offices)


def test_without_any_catalog_a_503_is_right() -> None:
    story = good(HA_PARTS).fault("begin", "catalog", "catalog-2", id=3)
    story.call("lookup", {"status": 503, "error": "no catalog"}, name="a")
    story.fault("recovered", "catalog", "catalog-2", id=3)
    assert judge(told(story)).held


def test_the_offices_of_a_fault_are_in_the_history() -> None:
    story = Story(parts=HA_PARTS).fault("begin", "postgres-2", offices=PRIMARY_IS_2)
    assert list(read_lines(to_line(one) for one in story.records)) == story.records


def test_every_excuse_is_of_faults_that_there_are_and_has_a_reason() -> None:
    for excuse in EXCUSES:
        assert set(excuse.faults) <= set(TARGETS)
        assert excuse.reason
