"""One call that gets a trade decided: what is repeated, to whom, and which errors come out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest

from common.errors import (
    BourseError,
    Busy,
    Internal,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
)
from frontend.model import Decision
from frontend.trading.election import Election
from frontend.trading.leader import LeaderClient
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import (
    PATIENCE_S,
    Call,
    Replicas,
    answers,
    fails,
)
from tests.unit.frontend.trading.leader_calls import (
    A_WHILE_S,
    ATTEMPT_S,
    DECISION_S,
    DONE,
    HASTY_DECISION_S,
    MAY_BE_REPEATED,
    UNDECIDED,
    decide,
    says,
    takes,
    trades,
)

FINAL = [KeyReused, InvalidRequest, Internal]


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    """Replica 3 leads."""
    replicas = Replicas()
    replicas[3].leads(1)
    yield replicas
    replicas.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def election(replicas: Replicas, clock: Clock) -> Election:
    return Election(replicas.peers, PATIENCE_S, PATIENCE_S, lambda: True, clock)


@pytest.fixture
def client(election: Election, clock: Clock) -> LeaderClient:
    """Time passes for it only as the test says; what it asks for is really sent."""
    return LeaderClient(
        election, PATIENCE_S, DECISION_S, clock, clock.pause, longest_call_s=ATTEMPT_S
    )


@pytest.fixture
def hasty(election: Election, clock: Clock) -> LeaderClient:
    """For what leads nowhere: one whose budget pauses alone use up soon."""
    return LeaderClient(
        election, PATIENCE_S, HASTY_DECISION_S, clock, clock.pause, longest_call_s=ATTEMPT_S
    )


# ---------------------------------------------------------------- decided


def test_the_decision_is_the_leaders(replicas: Replicas, client: LeaderClient) -> None:
    answer = bourse_pb2.TradeResponse(
        status=1, transaction_number=8, version=4, lease_ms=4_321, replayed=True, replica_id=3
    )
    replicas[3].will("TradeBatch", says(answer))
    assert decide(client) == Decision(1, 8, 4, 4_321, replayed=True)
    expected = bourse_pb2.TradeRequest(
        request_id="key-1", name="stock1", type=bourse_pb2.SELL, quantity=25
    )
    (batch,) = replicas.seen("TradeBatch")[3]
    assert list(batch.trades) == [expected]


@pytest.mark.parametrize("status", [0, -1])
def test_a_refusal_is_a_decision(replicas: Replicas, client: LeaderClient, status: int) -> None:
    answer = bourse_pb2.TradeResponse(status=status, transaction_number=-1, replica_id=3)
    replicas[3].will("TradeBatch", says(answer))
    assert decide(client) == Decision(status, -1, 0, 0, replayed=False)


def test_the_leader_is_remembered(replicas: Replicas, client: LeaderClient) -> None:
    for _ in range(5):
        decide(client)
    assert trades(replicas) == {3: 5}
    assert len(replicas[3].seen("GetLeader")) == 1


@pytest.mark.parametrize("kind", FINAL)
def test_what_no_repeat_can_change_is_not_repeated(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].will("TradeBatch", says(kind("of its own")))
    with pytest.raises(kind) as raised:
        decide(client)
    assert type(raised.value) is kind
    assert trades(replicas) == {3: 1}
    assert clock.pauses == []


def test_a_copy_that_failed_says_nothing_of_the_one_before(
    replicas: Replicas, client: LeaderClient
) -> None:
    replicas[3].will("TradeBatch", fails(Unavailable()), says(Internal()))
    with pytest.raises(OutcomeUnknown):
        decide(client)


@pytest.mark.parametrize("kind", FINAL)
def test_what_a_call_as_a_whole_failed_with_is_never_final(
    replicas: Replicas, client: LeaderClient, kind: type[BourseError]
) -> None:
    replicas[3].will("TradeBatch", fails(kind("of the call")))
    assert decide(client) == DONE
    assert trades(replicas) == {3: 2}


def test_a_status_that_nobody_knows_is_not_final(replicas: Replicas, client: LeaderClient) -> None:
    """gRPC answers UNKNOWN by itself, when a handler raises what it should not."""
    replicas[3].will("TradeBatch", fails(grpc.RpcError()))
    assert decide(client) == DONE


# ---------------------------------------------------------------- repeated


@pytest.mark.parametrize("kind", [kind for kind, _ in MAY_BE_REPEATED])
def test_what_is_undecided_is_sent_again(
    replicas: Replicas, client: LeaderClient, kind: type[BourseError]
) -> None:
    replicas[3].will("TradeBatch", fails(kind()), fails(kind()))
    assert decide(client) == DONE
    assert trades(replicas) == {3: 3}


@pytest.mark.parametrize("kind", [NotLeader, *UNDECIDED])
def test_the_next_leader_gets_it_under_the_same_request_id(
    replicas: Replicas, client: LeaderClient, kind: type[BourseError]
) -> None:
    def step_down(_call: Call) -> Any:
        replicas[3].says(0, 1)
        replicas[3].always("SetLeader", fails(Unavailable("cannot reach the catalog")))
        replicas[2].will("TradeBatch", lose_it_too)
        raise kind

    def lose_it_too(_call: Call) -> Any:
        replicas[2].says(1, 3)
        replicas[1].leads(3)
        raise kind

    replicas[3].will("TradeBatch", step_down)
    assert decide(client) == DONE
    copies = [request for seen in replicas.seen("TradeBatch").values() for request in seen]
    assert trades(replicas) == {3: 1, 2: 1, 1: 1}
    assert all(copy == copies[0] for copy in copies)
    assert [trade.request_id for trade in copies[0].trades] == ["key-1"]


def test_a_leader_that_is_killed_is_replaced(replicas: Replicas, client: LeaderClient) -> None:
    decide(client)
    replicas.kill(3)
    assert decide(client) == DONE
    assert trades(replicas) == {3: 1, 2: 1}


def test_a_silent_leader_costs_the_patience_for_one(replicas: Replicas) -> None:
    election = Election(replicas.peers, 0.5, PATIENCE_S, lambda: True)
    client = LeaderClient(election, patience_s=0.5, decision_timeout_s=2 * PATIENCE_S)
    decide(client)
    for method in ("TradeBatch", "GetLeader", "IsAlive", "SetLeader"):
        replicas[3].always(method, replicas[3].silent)
    started = time.monotonic()
    assert decide(client) == DONE
    # The patience, and `GetLeader` asked twice.
    assert 1.4 < time.monotonic() - started < PATIENCE_S / 2
    assert trades(replicas)[3] == 2


def test_who_is_gone_is_asked_once_and_who_is_slow_twice(
    replicas: Replicas, election: Election, client: LeaderClient
) -> None:
    asked_before = {Unavailable: 1, OutcomeUnknown: 2}
    for kind, times in asked_before.items():
        leader = election.find(election._current, DECISION_S).peer.replica_id
        replica = replicas[leader]
        so_far = len(replica.seen("GetLeader"))
        replica.will("TradeBatch", fails(kind()))
        replica.will("GetLeader", *[fails(Unavailable())] * times)
        decide(client)
        assert len(replica.seen("GetLeader")) - so_far == times
        replica.says(0, replica.epoch)


def test_a_leader_doubted_in_vain_is_kept(replicas: Replicas, client: LeaderClient) -> None:
    replicas[3].will("TradeBatch", fails(OutcomeUnknown()))
    assert decide(client) == DONE
    assert trades(replicas) == {3: 2}
    assert replicas.seen("SetLeader") == {}


def test_a_trade_waits_while_nobody_can_lead(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    replicas[3].says(0, 1)
    cannot = fails(Unavailable("cannot reach the catalog"))
    for replica in replicas:
        replica.will("SetLeader", cannot, cannot, cannot)
    assert decide(client) == DONE
    assert len(clock.pauses) == 3
    assert trades(replicas) == {3: 1}


# ---------------------------------------------------------------- backing off


def test_a_busy_leader_is_not_doubted(replicas: Replicas, client: LeaderClient) -> None:
    decide(client)
    replicas[3].will("TradeBatch", *[fails(Busy("too many trades at once"))] * 6)
    assert decide(client) == DONE
    assert trades(replicas) == {3: 8}
    assert len(replicas[3].seen("GetLeader")) == 1


def test_pauses_grow_to_a_bound(
    replicas: Replicas, client: LeaderClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.retries.random.uniform", lambda _low, high: high)
    # One more than there are pauses: after the first, it tries at once without a stream.
    replicas[3].will("TradeBatch", *[fails(Busy())] * 9)
    decide(client)
    bounds_s = [0.02, 0.04, 0.08, 0.16, 0.32, 0.4, 0.4, 0.4]
    assert clock.pauses == pytest.approx(bounds_s)


@pytest.mark.parametrize("kind", [Unavailable, OutcomeUnknown])
def test_a_leader_that_fails_at_once_and_still_leads_is_not_flooded(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].always("TradeBatch", takes(clock, A_WHILE_S, fails(kind())))
    with pytest.raises(OutcomeUnknown):
        decide(client)
    attempts = trades(replicas)[3]
    assert attempts > 5
    assert len(clock.pauses) >= attempts - 2


# ---------------------------------------------------------------- nothing else gets out


def raise_defect(_call: Call) -> Any:
    raise ZeroDivisionError


WRONG = {
    "a defect": ("TradeBatch", raise_defect),
    "an answer of another": ("TradeBatch", answers(bourse_pb2.TradeBatchResponse(replica_id=1))),
    "an answer of another kind": ("TradeBatch", answers(bourse_pb2.Empty())),
    "no answer at all": ("TradeBatch", answers(None)),
    "a defect when asked who leads": ("GetLeader", raise_defect),
    "leads in another's name": (
        "GetLeader",
        answers(bourse_pb2.GetLeaderResponse(replica_id=3, leader_id=1)),
    ),
    "a defect when asked to lead": ("SetLeader", raise_defect),
    "a defect when asked for life": ("IsAlive", raise_defect),
}


@pytest.mark.parametrize("what", WRONG)
def test_whatever_a_replica_does_only_errors_of_the_family_come_out(
    replicas: Replicas, client: LeaderClient, clock: Clock, what: str
) -> None:
    method, act = WRONG[what]
    if method in ("SetLeader", "IsAlive"):
        replicas[3].says(0, 1)
    for replica in replicas:
        replica.always(method, takes(clock, A_WHILE_S, act))
    with suppress(OutcomeUnknown, Unavailable, Internal):
        assert decide(client).status == 1


def test_closed_channels_are_unavailable(
    replicas: Replicas, hasty: LeaderClient, clock: Clock
) -> None:
    decide(hasty)
    for peer in replicas.peers.values():
        peer.close()
    with pytest.raises(BourseError):
        decide(hasty)
    assert clock.now_s == pytest.approx(HASTY_DECISION_S, abs=0.5)


def test_closing_ends_the_stream(replicas: Replicas, client: LeaderClient) -> None:
    decide(client)
    (call,) = replicas[3].calls_of("TradeBatch")
    assert call.is_active()
    client.close()
    wait_for(lambda: not call.is_active(), PATIENCE_S, "the stream was cancelled")


def test_threads_share_the_finding_of_the_next_leader(
    replicas: Replicas, client: LeaderClient
) -> None:
    decide(client)
    replicas[3].always("TradeBatch", replicas[3].silent)
    with ThreadPoolExecutor(16) as executor:
        deciding = [executor.submit(decide, client) for _ in range(16)]
        wait_for(lambda: trades(replicas)[3] == 2, PATIENCE_S, "a call is with the leader")
        replicas.kill(3)
        decided = [one.result(2 * PATIENCE_S) for one in deciding]
    assert decided == [DONE] * 16
    assert len(replicas[2].seen("SetLeader")) == 1


# ---------------------------------------------------------------- slow, not dead


def test_a_leader_that_is_slow_and_still_leads_is_waited_for(replicas: Replicas) -> None:
    """It gets no second copy to decide, and no other replica is asked to lead."""
    client = impatient(replicas)
    replicas[3].will("TradeBatch", replicas[3].silent)
    with ThreadPoolExecutor(1) as executor:
        deciding = executor.submit(decide, client)
        wait_for(lambda: len(replicas[3].seen("GetLeader")) > 3, PATIENCE_S, "it was doubted")
        replicas[3].release()
        assert deciding.result(PATIENCE_S) == DONE
    assert trades(replicas) == {3: 1}
    assert replicas.seen("SetLeader") == {}


def test_who_waits_behind_a_slow_leader_learns_of_the_next(replicas: Replicas) -> None:
    """Sent there or not: the late answer of the one before is for nobody any more."""
    client = impatient(replicas)
    replicas[3].always("TradeBatch", replicas[3].silent)
    with ThreadPoolExecutor(3) as executor:
        deciding = [executor.submit(decide, client) for _ in range(3)]
        wait_for(lambda: len(replicas[3].seen("GetLeader")) > 3, PATIENCE_S, "it was doubted")
        replicas[2].leads(2)
        assert [one.result(PATIENCE_S) for one in deciding] == [DONE] * 3
    assert trades(replicas)[3] == 1
    assert replicas.seen("SetLeader") == {}


def test_a_leader_elected_again_does_not_wait_for_a_call_of_its_epoch_before(
    replicas: Replicas,
) -> None:
    client = impatient(replicas)
    replicas[3].will("TradeBatch", replicas[3].silent)
    with ThreadPoolExecutor(1) as executor:
        deciding = executor.submit(decide, client)
        wait_for(lambda: trades(replicas) == {3: 1}, PATIENCE_S, "the call is out")
        replicas[3].leads(2)
        assert deciding.result(PATIENCE_S) == DONE
    assert trades(replicas) == {3: 2}


def impatient(replicas: Replicas) -> LeaderClient:
    """On the real clock, which it looks at often."""
    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, lambda: True)
    return LeaderClient(election, patience_s=0.02, decision_timeout_s=2 * PATIENCE_S)
