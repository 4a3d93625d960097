"""Schedules from arguments and from a seed, and the parts that a target means."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.breakages import breakages
from faults.schedule import Strike, by_hand, random_mix
from faults.targets import (
    MEANINGS,
    TARGETS,
    BadSchedule,
    catalogue,
    is_replicated,
    parse,
    refuse_missing,
    struck,
)
from stack.offices import OFFICES, PRIMARY
from stack.parts import HA_SERVICES, ORDER_SERVICES
from tests.unit.faults.histories import HA_PARTS, PARTS

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


@given(seeds, durations, st.booleans())
def test_a_seed_gives_the_same_mix_that_ends_in_time(
    seed: int, duration_s: int, replicated: bool
) -> None:
    strikes = random_mix(seed, duration_s, replicated=replicated)
    assert strikes == random_mix(seed, duration_s, replicated=replicated)
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
    mix = random_mix(seed, 600)
    assert {one.fault for one in mix} == set(TARGETS) - {"crash", "zombie"}
    refuse_missing({one.target for one in mix}, PARTS)


@given(seeds)
def test_a_long_mix_of_a_replicated_stack_has_every_fault_and_target(seed: int) -> None:
    mix = random_mix(seed, 4000, replicated=True)
    assert {one.fault for one in mix} == set(TARGETS)
    struck_by = {one.target.rstrip("-123") for one in mix}
    assert {*OFFICES, "etcd", "machine", "leader", "edge", "all"} <= struck_by
    refuse_missing({one.target for one in mix}, HA_PARTS)


@given(seeds)
def test_a_primary_has_time_to_be_replaced_and_to_come_back(seed: int) -> None:
    mix = random_mix(seed, 600, replicated=True)
    for one, later in pairwise(mix):
        if one.target == PRIMARY:
            assert later.at_s >= one.at_s + one.lasts_s + 18


@pytest.mark.parametrize("target", [*OFFICES, "machine", "machine-2", "etcd", *HA_SERVICES])
def test_a_stack_without_these_parts_refuses_their_faults(target: str) -> None:
    assert parse(f"kill:{target}") == ("kill", target)
    with pytest.raises(BadSchedule, match=f"{target}: the stack was started without compose.ha"):
        refuse_missing([target], PARTS)
    refuse_missing([target], HA_PARTS)


def test_the_seed_chooses_the_machine_and_the_member() -> None:
    def chosen(seed: int) -> list[str]:
        strikes = by_hand(["kill:machine", "stop:etcd"], 5, 1, 60, seed)
        return [one.target for one in strikes]

    assert chosen(1) == chosen(1)
    assert {name for seed in range(9) for name in chosen(seed)} == {
        f"{kind}-{number}" for kind in ("machine", "etcd") for number in (1, 2, 3)
    }


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


def test_what_shares_a_number_is_a_machine() -> None:
    assert [set(struck(f"machine-{number}", HA_PARTS)) for number in (1, 2, 3)] == [
        {"order-1", "frontend-1", "catalog", "postgres-1", "etcd-1"},
        {"order-2", "frontend-2", "catalog-2", "postgres-2", "etcd-2"},
        {"order-3", "postgres-3", "etcd-3"},
    ]


def test_the_stacks_are_told_apart_by_their_parts() -> None:
    assert is_replicated(HA_PARTS)
    assert not is_replicated(PARTS)


def test_a_part_that_the_stack_has_not_is_refused() -> None:
    assert parse("pause:frontend-3") == ("pause", "frontend-3")
    with pytest.raises(BadSchedule, match="the stack has no frontend-3, it has edge"):
        struck("frontend-3", PARTS)
