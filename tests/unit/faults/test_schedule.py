"""Schedules from arguments and from a seed, and the parts that a target means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.breakages import breakages
from faults.schedule import (
    MEANINGS,
    TARGETS,
    BadSchedule,
    Strike,
    by_hand,
    catalogue,
    parse,
    random_mix,
    struck,
)
from stack.parts import ORDER_SERVICES
from tests.unit.faults.histories import PARTS

seeds = st.integers(0, 2**53)
durations = st.integers(20, 1200)


def test_by_hand_the_faults_take_turns() -> None:
    strikes = by_hand(["kill:leader", "flush"], every_s=5, lasts_s=2.5, duration_s=20)
    assert [str(one) for one in strikes] == ["kill:leader", "flush:redis"] * 2
    assert [one.at_s for one in strikes] == [2.5, 7.5, 12.5, 17.5]
    assert {one.lasts_s for one in strikes} == {2.5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("moon", "the faults are kill, stop"),
        ("kill:moon", "kill strikes leader"),
        ("flush:leader", "flush strikes redis"),
        ("partition-catalog:two", "strikes leader, follower, order-1"),
        ("", "the faults are"),
        ("kill:frontend-0", "kill strikes"),
        ("kill:frontend-N", "kill strikes"),
        ("wipe:edge", "wipe strikes leader"),
    ],
)
def test_what_cannot_be_struck_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadSchedule, match=says):
        parse(text)


def test_no_time_for_a_strike_is_refused() -> None:
    with pytest.raises(BadSchedule, match="leave no time"):
        by_hand(["kill:leader"], every_s=5, lasts_s=30, duration_s=20)
    with pytest.raises(BadSchedule, match="takes more than"):
        random_mix(1, 10)


@given(seeds, durations)
def test_a_seed_gives_the_same_mix_that_ends_in_time(seed: int, duration_s: int) -> None:
    strikes = random_mix(seed, duration_s)
    assert strikes == random_mix(seed, duration_s)
    assert all(one.target in TARGETS[one.fault] for one in strikes)
    assert all(one.at_s + one.lasts_s <= duration_s - 10 for one in strikes)
    assert [one.at_s for one in strikes] == sorted(one.at_s for one in strikes)


def test_a_seed_means_the_same_for_ever() -> None:
    first = random_mix(7, 120)[:3]
    assert first == (
        Strike(3.0, "pause", "two", 3.0),
        Strike(12.0, "partition", "leader", 3.0),
        Strike(17.0, "lossy", "catalog", 2.0),
    )


@given(seeds)
def test_ten_minutes_have_every_fault(seed: int) -> None:
    assert {one.fault for one in random_mix(seed, 600)} == set(TARGETS)


def test_every_fault_can_be_done_and_is_explained() -> None:
    class Nothing:
        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    assert set(breakages(Nothing(), Nothing())) == set(TARGETS) == set(MEANINGS)  # type: ignore[arg-type]
    assert all(f"{fault} " in catalogue() for fault in TARGETS)


@pytest.mark.parametrize("leader", [None, *ORDER_SERVICES])
def test_what_a_target_means(leader: str | None) -> None:
    def meant(target: str, turn: int = 0) -> tuple[str, ...]:
        return struck(target, PARTS, leader, turn)

    assert meant("leader") == (leader or "order-3",)
    [follower] = meant("follower")
    assert follower != (leader or "order-3")
    assert meant("two") == (leader or "order-3", follower)
    assert meant("all") == PARTS
    assert meant("frontends") == ("frontend-1", "frontend-2")
    assert meant("replicas") == ORDER_SERVICES
    assert [meant("frontend", turn) for turn in range(3)] == [
        ("frontend-1",),
        ("frontend-2",),
        ("frontend-1",),
    ]
    for one in ("order-1", "redis", "edge", "frontend-2"):
        assert meant(one) == (one,)


def test_a_part_that_the_stack_has_not_is_refused() -> None:
    assert parse("pause:frontend-3") == ("pause", "frontend-3")
    with pytest.raises(BadSchedule, match="the stack has no frontend-3, it has edge"):
        struck("frontend-3", PARTS)
