"""One call that gets a trade decided: repeats, budgets and what may be said when they are over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from common.errors import (
    BourseError,
    Busy,
    Damaged,
    Internal,
    InvalidRequest,
    KeyReused,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    StaleEpoch,
    Unavailable,
)
from common.records import Trade
from frontend.election import Election, Leadership
from frontend.leader import LeaderClient
from frontend.model import Decision
from proto import bourse_pb2
from tests.unit.replica_fakes import (
    PATIENCE_S,
    Act,
    Call,
    Clock,
    Replicas,
    answers,
    eventually,
    fails,
)

# On the client's clock, which the tests move. The calls themselves are real and get as long:
# long enough that no stall of the machine makes one fail.
ATTEMPT_S = 15.0
DECISION_S = 90.0
A_WHILE_S = 10.0
HASTY_DECISION_S = 4.5
ROUNDING_S = 0.25  # on the wire a long deadline is a little longer
TRADE = Trade("key-1", "stock1", "SELL", 25)
DONE = Decision(status=1, number=1, version=2, lease_ms=0, replayed=False)

# Whatever the leader says of a copy but a decision, and whether that copy may have been executed.
MAY_BE_REPEATED = [
    (NotLeader, False),
    (Busy, False),
    (Unavailable, True),
    (OutcomeUnknown, True),
    (StaleEpoch, True),
    (Damaged, True),
    (NotFound, True),
]
UNDECIDED = [kind for kind, may_be_executed in MAY_BE_REPEATED if may_be_executed]
NOT_EXECUTED = [kind for kind, may_be_executed in MAY_BE_REPEATED if not may_be_executed]
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


class Catalog:
    """What an election asks of it when no candidate could take office."""

    is_up = True

    def is_reachable(self) -> bool:
        return self.is_up


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def election(replicas: Replicas, catalog: Catalog, clock: Clock) -> Election:
    return Election(replicas.peers, PATIENCE_S, PATIENCE_S, catalog.is_reachable, clock)


@pytest.fixture
def client(election: Election, clock: Clock) -> LeaderClient:
    """Time passes for it only as the test says; what it asks for is really sent."""
    return LeaderClient(election, ATTEMPT_S, DECISION_S, clock, clock.pause)


@pytest.fixture
def hasty(election: Election, clock: Clock) -> LeaderClient:
    """For what leads nowhere: one whose budget pauses alone use up soon."""
    return LeaderClient(election, ATTEMPT_S, HASTY_DECISION_S, clock, clock.pause)


def takes(clock: Clock, duration_s: float, act: Act) -> Act:
    """An act that takes its time, on the client's clock."""

    def slow_act(call: Call) -> Any:
        clock.pass_by(duration_s)
        return act(call)

    return slow_act


def trades(replicas: Replicas) -> dict[int, int]:
    """How many copies of the trade have reached each replica."""
    return {replica_id: len(seen) for replica_id, seen in replicas.seen("Trade").items()}


# ---------------------------------------------------------------- decided


def test_the_decision_is_the_leaders(replicas: Replicas, client: LeaderClient) -> None:
    answer = bourse_pb2.TradeResponse(
        status=1, transaction_number=8, version=4, lease_ms=4_321, replayed=True, replica_id=3
    )
    replicas[3].will("Trade", answers(answer))
    assert client.decide(TRADE) == Decision(1, 8, 4, 4_321, replayed=True)
    expected = bourse_pb2.TradeRequest(
        request_id="key-1", name="stock1", type=bourse_pb2.SELL, quantity=25
    )
    assert replicas.seen("Trade") == {3: [expected]}


@pytest.mark.parametrize("status", [0, -1])
def test_a_refusal_is_a_decision(replicas: Replicas, client: LeaderClient, status: int) -> None:
    answer = bourse_pb2.TradeResponse(status=status, transaction_number=-1, replica_id=3)
    replicas[3].will("Trade", answers(answer))
    assert client.decide(TRADE) == Decision(status, -1, 0, 0, replayed=False)


def test_the_leader_is_remembered(replicas: Replicas, client: LeaderClient) -> None:
    for _ in range(5):
        client.decide(TRADE)
    assert trades(replicas) == {3: 5}
    assert len(replicas[3].seen("GetLeader")) == 1


@pytest.mark.parametrize("kind", FINAL)
def test_what_no_repeat_can_change_is_not_repeated(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].will("Trade", fails(kind("of its own")))
    with pytest.raises(kind) as raised:
        client.decide(TRADE)
    assert type(raised.value) is kind
    assert trades(replicas) == {3: 1}
    assert clock.pauses == []


# ---------------------------------------------------------------- repeated


@pytest.mark.parametrize("kind", [kind for kind, _ in MAY_BE_REPEATED])
def test_what_is_undecided_is_sent_again(
    replicas: Replicas, client: LeaderClient, kind: type[BourseError]
) -> None:
    replicas[3].will("Trade", fails(kind()), fails(kind()))
    assert client.decide(TRADE) == DONE
    assert trades(replicas) == {3: 3}


@pytest.mark.parametrize("kind", [NotLeader, *UNDECIDED])
def test_the_next_leader_gets_it_under_the_same_request_id(
    replicas: Replicas, client: LeaderClient, kind: type[BourseError]
) -> None:
    def lose_office(_call: Call) -> Any:
        replicas[3].says(0, 1)
        replicas[3].always("SetLeader", fails(Unavailable("cannot reach the catalog")))
        replicas[2].will("Trade", lose_it_too)
        raise kind

    def lose_it_too(_call: Call) -> Any:
        replicas[2].says(1, 3)
        replicas[1].leads(3)
        raise kind

    replicas[3].will("Trade", lose_office)
    assert client.decide(TRADE) == DONE
    copies = [request for seen in replicas.seen("Trade").values() for request in seen]
    assert trades(replicas) == {3: 1, 2: 1, 1: 1}
    assert all(copy == copies[0] for copy in copies)
    assert copies[0].request_id == "key-1"


def test_a_leader_that_is_killed_is_replaced(replicas: Replicas, client: LeaderClient) -> None:
    client.decide(TRADE)
    replicas.kill(3)
    assert client.decide(TRADE) == DONE
    assert trades(replicas) == {3: 1, 2: 1}


def test_a_silent_leader_costs_one_attempt(replicas: Replicas) -> None:
    election = Election(replicas.peers, 0.5, PATIENCE_S, lambda: True)
    client = LeaderClient(election, attempt_timeout_s=0.5, decision_timeout_s=2 * PATIENCE_S)
    client.decide(TRADE)
    for method in ("Trade", "GetLeader", "IsAlive", "SetLeader"):
        replicas[3].always(method, replicas[3].silent)
    started = time.monotonic()
    assert client.decide(TRADE) == DONE
    # The attempt, and `GetLeader` asked twice.
    assert 1.4 < time.monotonic() - started < PATIENCE_S / 2
    assert trades(replicas)[3] == 2


def test_who_is_gone_is_asked_once_and_who_is_slow_twice(
    replicas: Replicas, election: Election, client: LeaderClient
) -> None:
    asked_before = {Unavailable: 1, OutcomeUnknown: 2}
    for kind, times in asked_before.items():
        leader = election.find(election.current(), DECISION_S).peer.replica_id
        replica = replicas[leader]
        so_far = len(replica.seen("GetLeader"))
        replica.will("Trade", fails(kind()))
        replica.will("GetLeader", *[fails(Unavailable())] * times)
        client.decide(TRADE)
        assert len(replica.seen("GetLeader")) - so_far == times
        replica.says(0, replica.epoch)


def test_a_leader_doubted_in_vain_is_kept(replicas: Replicas, client: LeaderClient) -> None:
    replicas[3].will("Trade", fails(OutcomeUnknown()))
    assert client.decide(TRADE) == DONE
    assert trades(replicas) == {3: 2}
    assert replicas.seen("SetLeader") == {}


def test_a_trade_waits_while_nobody_can_lead(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    replicas[3].says(0, 1)
    cannot = fails(Unavailable("cannot reach the catalog"))
    for replica in replicas:
        replica.will("SetLeader", cannot, cannot, cannot)
    assert client.decide(TRADE) == DONE
    assert len(clock.pauses) == 3
    assert trades(replicas) == {3: 1}


# ---------------------------------------------------------------- backing off


def test_a_busy_leader_is_not_doubted(replicas: Replicas, client: LeaderClient) -> None:
    client.decide(TRADE)
    replicas[3].will("Trade", *[fails(Busy("too many trades at once"))] * 6)
    assert client.decide(TRADE) == DONE
    assert trades(replicas) == {3: 8}
    assert len(replicas[3].seen("GetLeader")) == 1


def test_pauses_grow_to_a_bound_and_are_spread(
    replicas: Replicas, client: LeaderClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[tuple[float, float]] = []

    def longest(low: float, high: float) -> float:
        ranges.append((low, high))
        return high

    monkeypatch.setattr("frontend.leader.random.uniform", longest)
    replicas[3].will("Trade", *[fails(Busy())] * 8)
    client.decide(TRADE)
    bounds_s = [0.02, 0.04, 0.08, 0.16, 0.32, 0.4, 0.4, 0.4]
    assert clock.pauses == pytest.approx(bounds_s)
    assert ranges == [(0, pytest.approx(bound_s)) for bound_s in bounds_s]


@pytest.mark.parametrize("kind", [Unavailable, OutcomeUnknown])
def test_a_leader_that_fails_at_once_and_still_leads_is_not_flooded(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].always("Trade", takes(clock, A_WHILE_S, fails(kind())))
    with pytest.raises(OutcomeUnknown):
        client.decide(TRADE)
    attempts = trades(replicas)[3]
    assert attempts > 5
    assert len(clock.pauses) >= attempts - 2


# ---------------------------------------------------------------- the budget


def test_no_attempt_may_take_longer_than_its_timeout(
    replicas: Replicas, client: LeaderClient
) -> None:
    client.decide(TRADE)
    (call,) = replicas[3].calls_of("Trade")
    assert 0 < call.timeout_s <= ATTEMPT_S + ROUNDING_S


def test_attempts_end_with_the_budget(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    attempts: list[tuple[float, float]] = []

    def never_decide(call: Call) -> Any:
        attempts.append((call.timeout_s, DECISION_S - clock.now))
        clock.pass_by(A_WHILE_S)
        raise OutcomeUnknown

    replicas[3].always("Trade", never_decide)
    with pytest.raises(OutcomeUnknown):
        client.decide(TRADE)
    assert len(attempts) >= 5
    for timeout_s, left_s in attempts:
        assert 0 < timeout_s <= min(ATTEMPT_S, left_s) + ROUNDING_S
    assert attempts[-1][1] < ATTEMPT_S


def test_pauses_end_with_the_budget(
    replicas: Replicas, client: LeaderClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.leader.random.uniform", lambda _low, _high: 25.0)
    replicas[3].always("Trade", takes(clock, A_WHILE_S, fails(Busy())))
    with pytest.raises(Unavailable):
        client.decide(TRADE)
    assert clock.pauses == [25.0, 25.0, 10.0]
    assert clock.now == DECISION_S


class LongElection:
    """A leader is found after so long a time, which is within what may be waited for it."""

    def __init__(self, leadership: Leadership, clock: Clock, takes_s: float) -> None:
        self._leadership = leadership
        self._clock = clock
        self._takes_s = takes_s

    def current(self) -> Leadership | None:
        return None

    def find(
        self, failed: Leadership | None, give_up_at: float, *, is_gone: bool = False
    ) -> Leadership:
        self._clock.pass_by(self._takes_s)
        return self._leadership


def test_an_attempt_after_a_long_election_gets_only_what_is_left(
    replicas: Replicas, clock: Clock
) -> None:
    election = LongElection(Leadership(replicas.peers[3], 1), clock, takes_s=DECISION_S - 2)
    client = LeaderClient(election, ATTEMPT_S, DECISION_S, clock, clock.pause)
    client.decide(TRADE)
    (call,) = replicas[3].calls_of("Trade")
    assert call.timeout_s <= 2 + ROUNDING_S


def test_no_attempt_is_made_after_an_election_that_took_all_the_time(
    replicas: Replicas, clock: Clock
) -> None:
    election = LongElection(Leadership(replicas.peers[3], 1), clock, takes_s=DECISION_S)
    client = LeaderClient(election, ATTEMPT_S, DECISION_S, clock, clock.pause)
    with pytest.raises(Unavailable, match="not executed"):
        client.decide(TRADE)
    assert replicas.seen("Trade") == {}


def test_what_the_request_has_waited_already_counts(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    client.decide(TRADE, waited_s=DECISION_S - 2)
    (call,) = replicas[3].calls_of("Trade")
    assert call.timeout_s <= 2 + ROUNDING_S
    with pytest.raises(Unavailable, match="not executed"):
        client.decide(TRADE, waited_s=DECISION_S)
    assert len(replicas[3].seen("Trade")) == 1


def test_an_election_that_leads_nowhere_ends_with_the_budget(replicas: Replicas) -> None:
    replicas[3].says(0, 1)
    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, lambda: True)
    for replica in replicas:
        replica.always("SetLeader", replica.silent)
    client = LeaderClient(election, ATTEMPT_S, decision_timeout_s=0.3)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        client.decide(TRADE)
    assert time.monotonic() - started < PATIENCE_S / 2


# ---------------------------------------------------------------- what is said in the end


@pytest.mark.parametrize("kind", UNDECIDED)
def test_the_outcome_is_unknown_if_a_copy_may_have_been_executed(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].will("Trade", fails(kind()))
    replicas[3].always("Trade", takes(clock, A_WHILE_S, fails(NotLeader())))
    with pytest.raises(OutcomeUnknown, match="repeat with the same Idempotency-Key"):
        client.decide(TRADE)


@pytest.mark.parametrize("kind", NOT_EXECUTED)
def test_it_is_unavailable_if_no_copy_was_executed(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].always("Trade", takes(clock, A_WHILE_S, fails(kind())))
    with pytest.raises(Unavailable, match="not executed"):
        client.decide(TRADE)


def test_it_is_unavailable_if_nobody_could_lead(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    replicas[3].says(0, 1)
    for replica in replicas:
        cannot = fails(Unavailable("cannot reach the catalog"))
        replica.always("SetLeader", takes(clock, A_WHILE_S, cannot))
    with pytest.raises(Unavailable, match="not executed"):
        client.decide(TRADE)
    assert replicas.seen("Trade") == {}


def test_the_outcome_is_unknown_if_nobody_can_lead_after_a_copy_was_sent(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    def die(_call: Call) -> Any:
        for replica in replicas:
            replica.says(0, 1)
            replica.always("SetLeader", takes(clock, A_WHILE_S, fails(Unavailable())))
        raise Unavailable

    replicas[3].will("Trade", die)
    with pytest.raises(OutcomeUnknown):
        client.decide(TRADE)


def test_a_trade_that_another_replica_took_in_may_have_been_executed(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    elsewhere = answers(bourse_pb2.TradeResponse(status=1, transaction_number=5, replica_id=2))
    replicas[3].will("Trade", elsewhere)
    replicas[3].always("Trade", takes(clock, A_WHILE_S, fails(NotLeader())))
    with pytest.raises(OutcomeUnknown):
        client.decide(TRADE)


# ---------------------------------------------------------------- the catalog is down


@pytest.fixture
def outage(replicas: Replicas, catalog: Catalog) -> Catalog:
    """Nobody can take office, for the catalog cannot be reached."""
    catalog.is_up = False
    for replica in replicas:
        replica.says(0, 1)
        replica.always("SetLeader", fails(Unavailable("cannot reach the catalog")))
    return catalog


def test_a_trade_that_an_outage_surprises_rides_it_out(
    replicas: Replicas, client: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    """As long as its time lasts."""

    def come_back() -> bool:
        if clock.now > 3.0:
            outage.is_up = True
            for replica in replicas:
                replica.always("SetLeader", replica.usual)
        return outage.is_up

    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, come_back, clock)
    client = LeaderClient(election, ATTEMPT_S, DECISION_S, clock, clock.pause)
    assert client.decide(TRADE) == DONE
    assert 3.0 < clock.now < DECISION_S


def test_an_outage_longer_than_the_budget_outlasts_the_trade(
    hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    with pytest.raises(Unavailable, match="not executed"):
        hasty.decide(TRADE)
    assert clock.now == pytest.approx(HASTY_DECISION_S, abs=0.01)


def test_a_later_trade_is_told_of_an_outage_at_once(
    hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable):
            hasty.decide(TRADE)
    before = clock.now
    with pytest.raises(Unavailable, match="not executed"):
        hasty.decide(TRADE)
    assert clock.now == before


def test_a_trade_that_had_waited_since_before_the_outage_rides_it_out_too(
    hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    clock.pass_by(2.0)
    with pytest.raises(Unavailable):
        hasty.decide(TRADE)  # the first to see the outage, at 2.0
    assert clock.now == pytest.approx(2.0 + HASTY_DECISION_S, abs=0.01)
    started = clock.now
    with pytest.raises(Unavailable):
        hasty.decide(TRADE, waited_s=started - 2.9)
    assert clock.now == pytest.approx(2.9 + HASTY_DECISION_S, abs=0.01)


def test_a_trade_in_doubt_stays_so_in_an_outage(
    replicas: Replicas, hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    def see_the_outage_late(_call: Call) -> Any:
        replicas[3].says(0, 1)
        raise Unavailable

    with pytest.raises(Unavailable):
        hasty.decide(TRADE)
    clock.pass_by(2.0)
    replicas[3].leads(1)
    replicas[3].will("Trade", see_the_outage_late)
    with pytest.raises(OutcomeUnknown):
        hasty.decide(TRADE)


# ---------------------------------------------------------------- nothing else gets out


def raise_defect(_call: Call) -> Any:
    raise ZeroDivisionError


WRONG = {
    "a defect": ("Trade", raise_defect),
    "an answer of another": ("Trade", answers(bourse_pb2.TradeResponse(replica_id=1))),
    "an answer of another kind": ("Trade", answers(bourse_pb2.Empty())),
    "no answer at all": ("Trade", answers(None)),
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
        assert client.decide(TRADE).status == 1


def test_closed_channels_are_unavailable(
    replicas: Replicas, hasty: LeaderClient, clock: Clock
) -> None:
    hasty.decide(TRADE)
    for peer in replicas.peers.values():
        peer.close()
    with pytest.raises(BourseError):
        hasty.decide(TRADE)
    assert clock.now == pytest.approx(HASTY_DECISION_S, abs=0.5)


def test_threads_share_the_finding_of_the_next_leader(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    client.decide(TRADE)
    replicas[3].always("Trade", replicas[3].silent)
    with ThreadPoolExecutor(16) as executor:
        deciding = [executor.submit(client.decide, TRADE) for _ in range(16)]
        eventually(lambda: trades(replicas)[3] == 17, "all are with the leader")
        replicas.kill(3)
        decided = [one.result(2 * PATIENCE_S) for one in deciding]
    assert decided == [DONE] * 16
    assert len(replicas[2].seen("SetLeader")) == 1
