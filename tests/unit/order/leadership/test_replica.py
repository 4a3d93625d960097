"""The state machine of a replica: every step in every role, and states that are unreachable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.domain import EMPTY_DIGEST
from order.leadership.replica import LEADING, Gap, IllegalTransition, Replica, ReplicaView, Role

ME, OTHER, THIRD = 1, 2, 3
DIGEST = b"d" * 32


def follower() -> Replica:
    """A follower with ten rows that has heard of the leader of epoch 4."""
    replica = Replica(ME, 10, EMPTY_DIGEST)
    replica.hear_of(OTHER, 4)
    return replica


def candidate() -> Replica:
    replica = follower()
    assert replica.stand(5) == 5
    return replica


def promoting() -> Replica:
    replica = candidate()
    replica.fence_accepted(5)
    return replica


def leader() -> Replica:
    replica = promoting()
    replica.caught_up(5)
    return replica


def in_batch() -> Replica:
    replica = leader()
    assert replica.open_batch() == 5
    return replica


STATES: dict[str, Callable[[], Replica]] = {
    "follower": follower,
    "candidate": candidate,
    "promoting": promoting,
    "leader": leader,
    "in_batch": in_batch,
}
STEPS: dict[str, Callable[[Replica], Any]] = {
    "stand": lambda replica: replica.stand(5),
    "refused": lambda replica: replica.fence_refused(5, 8),
    "refused.late": lambda replica: replica.fence_refused(4, 8),
    "accepted": lambda replica: replica.fence_accepted(5),
    "accepted.late": lambda replica: replica.fence_accepted(4),
    "withdraw": lambda replica: replica.withdraw(),
    "caught_up": lambda replica: replica.caught_up(5),
    "caught_up.late": lambda replica: replica.caught_up(4),
    "step_down": lambda replica: replica.step_down(5),
    "step_down.late": lambda replica: replica.step_down(4),
    "step_down.early": lambda replica: replica.step_down(6),
    "hear.newer": lambda replica: replica.hear_of(THIRD, 6),
    "hear.same": lambda replica: replica.hear_of(THIRD, replica.view().epoch),
    "hear.older": lambda replica: replica.hear_of(THIRD, 3),
    "hear.of_me": lambda replica: replica.hear_of(ME, 6),
    "open_batch": lambda replica: replica.open_batch(),
    "settle": lambda replica: replica.settle_batch(5),
    "settle.late": lambda replica: replica.settle_batch(4),
    "advance": lambda replica: replica.advance(12, 2, DIGEST),
    "advance.gap": lambda replica: replica.advance(13, 2, DIGEST),
    "advance.back": lambda replica: replica.advance(10, 0, DIGEST),
}
# The result of each step in each state: the new state, `same` if nothing changes, `changed` if only
# the role stays, or `-` if the step is illegal. After a colon comes the value that it returns.
TABLE = """
                 follower       candidate   promoting      leader         in_batch
stand            candidate:5    -           -              -              -
refused          -              changed:9   -              -              -
refused.late     -              -           -              -              -
accepted         -              promoting   -              -              -
accepted.late    -              -           -              -              -
withdraw         -              follower    -              -              -
caught_up        -              -           leader         -              -
caught_up.late   -              -           -              -              -
step_down        same:False     same:False  follower:True  follower:True  follower:True
step_down.late   same:False     same:False  same:False     same:False     same:False
step_down.early  same:False     same:False  same:False     same:False     same:False
hear.newer       changed:False  same:False  follower:True  follower:True  follower:True
hear.same        same:False     same:False  same:False     same:False     same:False
hear.older       same:False     same:False  same:False     same:False     same:False
hear.of_me       same:False     same:False  same:False     same:False     same:False
open_batch       -              -           -              in_batch:5     -
settle           same:False     same:False  same:False     -              leader:True
settle.late      same:False     same:False  same:False     same:False     same:False
advance          changed        changed     changed        changed        changed
advance.gap      -              -           -              -              -
advance.back     -              -           -              -              -
"""


def cells() -> list[tuple[str, str, str]]:
    header, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (state, step, expected)
        for step, *row in lines
        for state, expected in zip(header, row, strict=True)
    ]


def insides(replica: Replica) -> dict[str, object]:
    """All attributes of the replica, so that no change stays unnoticed."""
    return dict(vars(replica))


def kind_of(replica: Replica) -> str:
    role = replica.view().role
    return "in_batch" if role is Role.LEADER and replica._batch_is_open else role.value


def test_the_table_is_complete() -> None:
    named = {(state, step) for state, step, _ in cells()}
    assert named == {(state, step) for state in STATES for step in STEPS}


@pytest.mark.parametrize(("state", "step", "expected"), cells())
def test_each_step_in_each_state(state: str, step: str, expected: str) -> None:
    replica = STATES[state]()
    before = insides(replica)
    if expected == "-":
        with pytest.raises(IllegalTransition, match=step.partition(".")[0]):
            STEPS[step](replica)
        assert insides(replica) == before
        return
    after, _, returned = expected.partition(":")
    answer = STEPS[step](replica)
    assert str(answer) == (returned or "None")
    if after == "same":
        assert insides(replica) == before
    elif after == "changed":
        assert insides(replica) != before
        assert kind_of(replica) == state
    else:
        assert kind_of(replica) == after


def test_an_illegal_step_says_what_was_tried_and_where() -> None:
    with pytest.raises(IllegalTransition, match=r"open_batch: .*follower.*epoch=4"):
        follower().open_batch()


# ------------------------------------------------------------ epochs and leaders


def test_a_replica_starts_as_a_follower_of_nobody() -> None:
    view = Replica(ME, 10, DIGEST).view()
    assert view == ReplicaView(ME, Role.FOLLOWER, 0, 0, 10, DIGEST)


@pytest.mark.parametrize(("suggested", "asked"), [(7, 7), (1, 1), (0, 1), (-3, 1), (2, 2)])
def test_it_asks_for_the_epoch_suggested_be_it_higher_or_lower(suggested: int, asked: int) -> None:
    assert follower().stand(suggested) == asked


def test_an_epoch_asked_for_is_not_reported_before_it_is_registered() -> None:
    replica = candidate()
    replica.fence_refused(5, 70)
    assert (replica.view().epoch, replica.view().leader_id) == (4, OTHER)
    replica.withdraw()
    assert (replica.view().epoch, replica.view().leader_id) == (4, OTHER)


def test_what_is_registered_counts_whatever_was_seen_before() -> None:
    replica = follower()
    replica.hear_of(THIRD, 100)
    assert replica.stand(101) == 101
    assert replica.fence_refused(101, 6) == 7
    replica.fence_accepted(7)
    assert (replica.view().epoch, replica.view().leader_id) == (7, ME)


def test_a_refusal_is_a_refusal_though_it_registered_what_was_asked() -> None:
    """The fence refuses epoch 5 because it is registered already, and this replica is its leader.

    That was before a restart of the replica, or by a copy of the same call. In both cases it must
    ask for another epoch.
    """
    replica = candidate()
    assert replica.fence_refused(5, 5) == 6
    assert replica.view().role is Role.CANDIDATE
    with pytest.raises(IllegalTransition):
        replica.fence_accepted(5)  # a late answer to an earlier copy has no effect
    replica.fence_accepted(6)
    assert replica.view().epoch == 6


def test_hearsay_never_makes_a_leader() -> None:
    for state in STATES.values():
        replica = state()
        before = insides(replica)
        for epoch in (0, 4, 5, 6, 2**62):
            assert replica.hear_of(ME, epoch) is False
        assert insides(replica) == before


def test_news_of_a_newer_epoch_is_taken_over() -> None:
    replica = leader()
    assert replica.hear_of(THIRD, 6) is True
    view = replica.view()
    assert (view.role, view.leader_id, view.epoch) == (Role.FOLLOWER, THIRD, 6)


def test_news_may_skip_epochs_but_never_go_back() -> None:
    replica = follower()
    replica.hear_of(THIRD, 9)
    replica.hear_of(OTHER, 8)
    replica.hear_of(OTHER, 9)
    assert (replica.view().leader_id, replica.view().epoch) == (THIRD, 9)


def test_who_steps_down_knows_no_leader_and_remembers_its_epoch() -> None:
    replica = leader()
    replica.step_down(5)
    assert (replica.view().leader_id, replica.view().epoch) == (0, 5)
    replica.hear_of(OTHER, 4)  # the leader that this replica deposed
    assert replica.view().leader_id == 0
    replica.hear_of(OTHER, 6)
    assert replica.view().leader_id == OTHER


# ------------------------------------------------------------ batches


def test_one_batch_at_a_time() -> None:
    replica = leader()
    for _ in range(3):
        assert replica.open_batch() == 5
        with pytest.raises(IllegalTransition):
            replica.open_batch()
        assert replica.settle_batch(5) is True


@pytest.mark.parametrize("leave", ["step_down", "hear.newer"])
def test_a_batch_does_not_outlive_its_epoch(leave: str) -> None:
    replica = in_batch()
    STEPS[leave](replica)
    assert replica.settle_batch(5) is False
    replica.stand(7)
    replica.fence_accepted(7)
    replica.caught_up(7)
    assert replica.open_batch() == 7
    before = insides(replica)
    assert replica.settle_batch(5) is False  # the batch of the earlier epoch ends now
    assert replica.step_down(5) is False
    assert insides(replica) == before


# ------------------------------------------------------------ the log


@pytest.mark.parametrize(
    ("given", "known", "fresh"),
    [
        ([], [], []),
        ([11], [], [11]),
        ([11, 12, 13], [], [11, 12, 13]),
        ([13, 11, 12], [], [11, 12, 13]),
        ([11, 11, 12, 12], [], [11, 12]),
        ([10], [10], []),
        ([3, 9], [3, 9], []),
        ([9, 10, 11, 12], [9, 10], [11, 12]),
        ([12, 2, 11], [2], [11, 12]),
        ([0, -1], [-1, 0], []),
    ],
)
def test_split_tells_rows_the_log_has_from_those_that_come_next(
    given: list[int], known: list[int], fresh: list[int]
) -> None:
    assert follower().split(given) == (known, fresh)


@pytest.mark.parametrize(
    ("given", "first"), [([12], 12), ([11, 13], 11), ([10, 12], 12), ([11, 12, 14, 15], 11)]
)
def test_split_raises_where_rows_are_missing(given: list[int], first: int) -> None:
    replica = follower()
    before = insides(replica)
    with pytest.raises(Gap, match=rf"rows from {first} on do not follow the last number 10"):
        replica.split(given)
    assert insides(replica) == before


@pytest.mark.parametrize(
    ("number", "count"), [(11, 0), (11, 2), (12, 1), (10, 1), (9, -1), (10, 0), (0, 0)]
)
def test_the_position_only_grows_by_the_rows_that_came(number: int, count: int) -> None:
    replica = follower()
    before = insides(replica)
    with pytest.raises(IllegalTransition, match="advance"):
        replica.advance(number, count, DIGEST)
    assert insides(replica) == before


def test_position_and_digest_change_together() -> None:
    replica = leader()
    replica.advance(13, 3, DIGEST)
    assert (replica.view().position, replica.view().digest) == (13, DIGEST)
    assert kind_of(replica) == "leader"


# ------------------------------------------------------------ every walk


def test_no_walk_breaks_an_invariant() -> None:
    """Tries every step with epochs 1 to 3, from every state that can be reached."""
    epochs = (1, 2, 3)
    accepted: list[Callable[[Replica], Any]] = [lambda r, e=e: r.fence_accepted(e) for e in epochs]
    steps: list[Callable[[Replica], Any]] = [
        *accepted,
        *(lambda r, e=e: r.stand(e) for e in epochs),
        *(lambda r, e=e, f=f: r.fence_refused(e, f) for e in epochs for f in (0, 1, 2)),
        Replica.withdraw,
        *(lambda r, e=e: r.caught_up(e) for e in epochs),
        *(lambda r, e=e: r.step_down(e) for e in epochs),
        *(lambda r, e=e, who=who: r.hear_of(who, e) for e in epochs for who in (ME, OTHER, THIRD)),
        Replica.open_batch,
        *(lambda r, e=e: r.settle_batch(e) for e in epochs),
    ]

    def replica_of(state: tuple[tuple[str, Any], ...]) -> Replica:
        replica = Replica(ME, 0, EMPTY_DIGEST)
        for name, value in state:
            setattr(replica, name, value)
        return replica

    def state_of(replica: Replica) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted(insides(replica).items()))

    start = state_of(Replica(ME, 0, EMPTY_DIGEST))
    seen, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        before = replica_of(state).view()
        for step in steps:
            replica = replica_of(state)
            try:
                step(replica)
            except IllegalTransition:
                assert state_of(replica) == state
                continue
            view = replica.view()
            leading = view.role in LEADING
            assert leading == (view.leader_id == ME)
            if leading and (before.role not in LEADING or before.epoch != view.epoch):
                assert step in accepted
            assert not replica._batch_is_open or view.role is Role.LEADER
            assert view.epoch >= before.epoch or step in accepted
            if state_of(replica) not in seen:
                seen.add(state_of(replica))
                frontier.append(state_of(replica))
    assert {replica_of(state).view().role for state in seen} == set(Role)
