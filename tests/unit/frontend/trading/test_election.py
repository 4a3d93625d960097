"""Finding the leader and electing one, against real servers that play order replicas."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from common.domain import MAX_EPOCH
from common.errors import Internal, NotLeader, Unavailable
from frontend.trading.election import MAX_LAG, Election, Leadership, order_candidates
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import PATIENCE_S, Call, Replicas, answers, fails
from tests.unit.frontend.trading.election_calls import (
    LONG_S,
    SHORT_S,
    asked_to_lead,
    impatient,
    leader_and_epoch,
    leadership,
)

DROPPED = fails(Unavailable("connection reset"))


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    replicas = Replicas()
    yield replicas
    replicas.close()


@pytest.fixture
def election(replicas: Replicas) -> Election:
    """On a clock that stands at 0."""
    return Election(replicas.peers, LONG_S, LONG_S, lambda: True, Clock())


# ---------------------------------------------------------------- who leads


def test_who_names_itself_is_adopted(replicas: Replicas, election: Election) -> None:
    replicas[1].says(2, 5)
    replicas[2].leads(5)
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 5)
    assert replicas.seen("SetLeader") == {}


def test_hearsay_is_not_believed(replicas: Replicas, election: Election) -> None:
    """Two replicas take the third for the leader of a newer epoch, but it has lost its memory."""
    for replica_id in (1, 2):
        replicas[replica_id].says(3, 9)
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 10)
    assert asked_to_lead(replicas) == {3: [10]}


def test_the_newest_epoch_counts_among_several(replicas: Replicas, election: Election) -> None:
    for replica_id, epoch in ((1, 7), (2, 12), (3, 9)):
        replicas[replica_id].leads(epoch)
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 12)


def test_hearsay_does_not_outbid_who_names_itself(replicas: Replicas, election: Election) -> None:
    replicas[1].leads(4)
    replicas[2].says(3, 9)
    assert leader_and_epoch(election.find(None, LONG_S)) == (1, 4)


def test_what_is_known_is_not_asked_again(replicas: Replicas, election: Election) -> None:
    replicas[2].leads(5)
    assert election._current is None
    found = election.find(None, LONG_S)
    assert election._current is found
    assert election.find(None, LONG_S) is found
    assert election.find(leadership(replicas, 1, 4), LONG_S) is found
    assert len(replicas[2].seen("GetLeader")) == 1


def test_a_leader_that_still_holds_is_adopted_again(replicas: Replicas, election: Election) -> None:
    replicas[2].leads(5)
    doubted = election.find(None, LONG_S)
    again = election.find(doubted, LONG_S)
    assert leader_and_epoch(again) == leader_and_epoch(doubted)
    assert election._current is again
    assert len(replicas[2].seen("GetLeader")) == 2
    assert replicas.seen("SetLeader") == {}


def test_a_newer_leader_ends_the_asking(replicas: Replicas, election: Election) -> None:
    replicas[2].leads(6)
    for replica_id in (1, 3):
        replicas[replica_id].always("GetLeader", replicas[replica_id].silent)
    started = time.monotonic()
    assert leader_and_epoch(election.find(leadership(replicas, 3, 5), LONG_S)) == (2, 6)
    assert time.monotonic() - started < LONG_S / 2


def test_a_leader_no_newer_than_the_failed_one_does_not_end_the_asking(
    replicas: Replicas, election: Election
) -> None:
    """The one that failed says it leads still; its successor takes longer to answer."""
    replicas[3].leads(5)

    def once_the_other_has_answered(call: Call) -> Any:
        wait_for(lambda: replicas[3].seen("GetLeader"), PATIENCE_S, "the old leader was asked")
        return replicas[2].usual(call)

    replicas[2].leads(6)
    replicas[2].will("GetLeader", once_the_other_has_answered)
    assert leader_and_epoch(election.find(leadership(replicas, 3, 5), LONG_S)) == (2, 6)


# ---------------------------------------------------------------- asking twice


def test_a_leader_that_drops_the_first_call_is_not_passed_over(
    replicas: Replicas, election: Election
) -> None:
    replicas[1].leads(5)
    replicas[1].will("GetLeader", DROPPED)
    assert leader_and_epoch(election.find(None, LONG_S)) == (1, 5)
    assert replicas.seen("SetLeader") == {}
    asked = {replica_id: len(seen) for replica_id, seen in replicas.seen("GetLeader").items()}
    assert asked == {1: 2, 2: 1, 3: 1}


def test_a_leader_that_keeps_the_first_call_waiting_is_not_passed_over(replicas: Replicas) -> None:
    election = impatient(replicas, probe_timeout_s=SHORT_S)
    replicas[1].leads(5)
    replicas[1].will("GetLeader", replicas[1].silent)
    assert leader_and_epoch(election.find(None, LONG_S)) == (1, 5)


def test_nobody_is_asked_more_than_twice(replicas: Replicas, election: Election) -> None:
    replicas[3].leads(5)
    replicas[3].always("GetLeader", DROPPED)
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 1)
    assert len(replicas[3].seen("GetLeader")) == 2
    assert replicas[3].seen("IsAlive") == []


@pytest.mark.parametrize(("is_gone", "times"), [(True, 1), (False, 2)])
def test_only_a_replica_just_gone_is_not_asked_again(
    replicas: Replicas, election: Election, is_gone: bool, times: int
) -> None:
    for replica_id in (1, 3):
        replicas[replica_id].always("GetLeader", DROPPED)
    election.find(leadership(replicas, 3, 5), LONG_S, is_gone=is_gone)
    assert len(replicas[3].seen("GetLeader")) == times
    assert len(replicas[1].seen("GetLeader")) == 2


def test_a_replica_just_gone_is_adopted_if_it_says_that_it_leads(
    replicas: Replicas, election: Election
) -> None:
    replicas[3].leads(5)
    found = election.find(leadership(replicas, 3, 5), LONG_S, is_gone=True)
    assert leader_and_epoch(found) == (3, 5)


# ---------------------------------------------------------------- electing


@pytest.mark.parametrize(
    ("last_numbers", "expected"),
    [
        ({}, []),
        ({1: 0, 3: 0, 2: 0}, [3, 2, 1]),
        ({1: 9, 2: 7, 3: 0}, [3, 2, 1]),
        ({1: 5_000, 2: 5_000, 3: 5_000 - MAX_LAG}, [3, 2, 1]),
        ({1: 5_000, 2: 5_000, 3: 5_000 - MAX_LAG - 1}, [2, 1, 3]),
        ({1: 5_000, 2: 0, 3: 1}, [1, 3, 2]),
        ({1: 0, 2: 0, 3: 5_000}, [3, 2, 1]),
        ({10: 1, 9: 1, 11: 1}, [11, 10, 9]),
    ],
)
def test_the_order_of_candidates(last_numbers: dict[int, int], expected: list[int]) -> None:
    assert order_candidates(last_numbers) == expected


def test_the_highest_live_id_is_elected(replicas: Replicas, election: Election) -> None:
    replicas.kill(3)
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 1)
    assert asked_to_lead(replicas) == {2: [1]}


def test_the_only_survivor_is_elected(replicas: Replicas, election: Election) -> None:
    replicas.kill(3)
    replicas.kill(2)
    assert leader_and_epoch(election.find(None, LONG_S)) == (1, 1)


def test_one_far_behind_leads_when_nobody_else_can(replicas: Replicas, election: Election) -> None:
    for replica_id in (1, 2):
        replicas[replica_id].last_number = 5_000
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 1)
    for replica_id in (1, 2):
        replicas[replica_id].says(0, 1)
        replicas[replica_id].always("SetLeader", fails(Unavailable("cannot reach the catalog")))
    assert leader_and_epoch(election.find(election._current, LONG_S)) == (3, 2)


def test_one_that_does_not_say_it_is_alive_is_no_candidate(
    replicas: Replicas, election: Election
) -> None:
    replicas[3].always("IsAlive", DROPPED)
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 1)


def test_the_epoch_suggested_is_the_highest_known_and_one(
    replicas: Replicas, election: Election
) -> None:
    replicas[1].says(0, 8)
    replicas[2].says(3, 3)
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 9)
    assert asked_to_lead(replicas) == {3: [9]}


def test_the_epoch_registered_counts_whatever_was_suggested(
    replicas: Replicas, election: Election
) -> None:
    """The fence may have seen epochs that no replica remembers."""
    replicas[3].will(
        "SetLeader",
        answers(bourse_pb2.SetLeaderResponse(replica_id=3, leader_id=3, epoch=41)),
    )
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 41)


CANNOT_LEAD = {
    "cannot fence": lambda _replica: fails(Unavailable("cannot reach the catalog")),
    "defect": lambda _replica: fails(Internal()),
    "lost it at once": lambda replica: answers(
        bourse_pb2.SetLeaderResponse(replica_id=replica.replica_id, leader_id=0, epoch=2)
    ),
    "answered by another": lambda _replica: answers(
        bourse_pb2.SetLeaderResponse(replica_id=9, leader_id=9, epoch=2)
    ),
}


@pytest.mark.parametrize("why", CANNOT_LEAD)
def test_a_candidate_that_cannot_lead_is_passed_over(
    replicas: Replicas, election: Election, why: str
) -> None:
    replicas[3].always("SetLeader", CANNOT_LEAD[why](replicas[3]))
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 1)
    assert asked_to_lead(replicas) == {3: [1], 2: [1]}


def test_a_silent_candidate_costs_one_timeout(replicas: Replicas) -> None:
    election = impatient(replicas, candidate_timeout_s=SHORT_S)
    replicas[3].always("SetLeader", replicas[3].silent)
    started = time.monotonic()
    assert leader_and_epoch(election.find(None, LONG_S)) == (2, 1)
    assert SHORT_S * 0.9 < time.monotonic() - started < LONG_S / 2


def test_an_epoch_suggested_fits_into_a_message(replicas: Replicas, election: Election) -> None:
    replicas[1].says(0, 2**63 - 1)
    assert election.find(None, LONG_S).peer.replica_id == 3
    ((epoch,),) = asked_to_lead(replicas).values()
    assert epoch <= MAX_EPOCH


def test_no_candidate_can_lead(replicas: Replicas, election: Election) -> None:
    for replica in replicas:
        replica.always("SetLeader", fails(Unavailable("cannot reach the catalog")))
    with pytest.raises(Unavailable, match="no order replica can become leader"):
        election.find(None, LONG_S)
    assert asked_to_lead(replicas) == {3: [1], 2: [1], 1: [1]}


def test_nobody_is_left(replicas: Replicas, election: Election) -> None:
    for replica_id in (1, 2, 3):
        replicas.kill(replica_id)
    with pytest.raises(Unavailable):
        election.find(None, LONG_S)
    assert election._current is None


def test_replicas_that_are_too_slow_to_name_the_leader_may_still_be_elected(
    replicas: Replicas,
) -> None:
    election = impatient(replicas, probe_timeout_s=SHORT_S)
    for replica in replicas:
        replica.will("GetLeader", DROPPED, DROPPED)
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 1)


def test_the_others_are_told(replicas: Replicas, election: Election) -> None:
    failed: Leadership | None = None
    for epoch in range(1, 6):
        for replica in replicas:
            replica.leader_id = 0
        failed = election.find(failed, LONG_S)
        assert leader_and_epoch(failed) == (3, epoch)
        wait_until_told(replicas, epoch)


def wait_until_told(replicas: Replicas, epoch: int) -> None:
    def knowledge() -> list[tuple[int, int]]:
        return [(replicas[one].leader_id, replicas[one].epoch) for one in (1, 2)]

    wait_for(lambda: knowledge() == [(3, epoch)] * 2, 1.0, f"both know of epoch {epoch}")


def test_one_that_cannot_be_told_changes_nothing(replicas: Replicas, election: Election) -> None:
    replicas.kill(1)
    replicas[2].always("SetLeader", fails(NotLeader()))
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 1)
