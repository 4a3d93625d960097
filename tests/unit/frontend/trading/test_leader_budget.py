"""The budget of a trade: what ends with it, what may be said then, and how an outage uses it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from common.errors import BourseError, Busy, NotLeader, OutcomeUnknown, Unavailable
from common.retries import always
from frontend.trading.election import CatalogDown, Election, Leadership
from frontend.trading.leader import LeaderClient
from proto import bourse_pb2
from tests.support.clock import Clock
from tests.support.mechanisms import taken_out
from tests.support.replica_fakes import PATIENCE_S, Call, Replicas, answers, fails
from tests.unit.frontend.trading.election_calls import Catalog
from tests.unit.frontend.trading.leader_calls import (
    A_WHILE_S,
    ATTEMPT_S,
    DECISION_S,
    DONE,
    HASTY_DECISION_S,
    NOT_EXECUTED,
    ROUNDING_S,
    UNDECIDED,
    decide,
    takes,
)


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
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def election(replicas: Replicas, catalog: Catalog, clock: Clock) -> Election:
    return Election(replicas.peers, PATIENCE_S, PATIENCE_S, catalog.is_reachable, clock)


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


# ---------------------------------------------------------------- the budget


def test_no_call_may_take_longer_than_its_timeout(replicas: Replicas, client: LeaderClient) -> None:
    decide(client)
    (call,) = replicas[3].calls_of("TradeBatch")
    assert 0 < call.timeout_s <= ATTEMPT_S + ROUNDING_S


def test_attempts_end_with_the_budget(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    attempts: list[tuple[float, float]] = []

    def never_decide(call: Call) -> Any:
        attempts.append((call.timeout_s, DECISION_S - clock.now_s))
        clock.pass_by(A_WHILE_S)
        raise OutcomeUnknown

    replicas[3].always("TradeBatch", never_decide)
    with pytest.raises(OutcomeUnknown):
        decide(client)
    assert len(attempts) >= 5
    for timeout_s, left_s in attempts:
        assert 0 < timeout_s <= min(ATTEMPT_S, left_s) + ROUNDING_S
    assert attempts[-1][1] < ATTEMPT_S


def test_pauses_end_with_the_budget(
    replicas: Replicas, client: LeaderClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.trading.leader._BACKOFF", always(25.0))
    replicas[3].always("TradeBatch", takes(clock, A_WHILE_S, fails(NotLeader())))
    with pytest.raises(Unavailable):
        decide(client)
    assert clock.pauses == [25.0, 25.0, 10.0]
    assert clock.now_s == DECISION_S


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
    client = LeaderClient(
        election, PATIENCE_S, DECISION_S, clock, clock.pause, longest_call_s=ATTEMPT_S
    )
    decide(client)
    (call,) = replicas[3].calls_of("TradeBatch")
    assert call.timeout_s <= 2 + ROUNDING_S


def test_no_attempt_is_made_after_an_election_that_took_all_the_time(
    replicas: Replicas, clock: Clock
) -> None:
    election = LongElection(Leadership(replicas.peers[3], 1), clock, takes_s=DECISION_S)
    client = LeaderClient(
        election, PATIENCE_S, DECISION_S, clock, clock.pause, longest_call_s=ATTEMPT_S
    )
    with pytest.raises(Unavailable, match="no order replica"):
        decide(client)
    assert replicas.seen("TradeBatch") == {}


def test_what_the_request_has_waited_already_counts(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    decide(client, DECISION_S - 4)
    (call,) = replicas[3].calls_of("TradeBatch")
    assert call.timeout_s <= 4 + ROUNDING_S


@pytest.mark.parametrize(("waited_s", "left_s"), [(3, 2.5), (6, 2), (7.5, 0.5)])
def test_a_late_repeat_has_time_of_its_own(
    replicas: Replicas, clock: Clock, catalog: Catalog, waited_s: float, left_s: float
) -> None:
    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, catalog.is_reachable, clock)
    client = LeaderClient(election, PATIENCE_S, 4.5, clock, clock.pause, longest_call_s=10)
    began_s = clock.now_s
    replicas[3].always("TradeBatch", takes(clock, 0.25, fails(Busy())))
    with pytest.raises(Unavailable, match="no order replica"):
        decide(client, waited_s)
    assert clock.now_s - began_s == pytest.approx(left_s, abs=0.5)
    assert replicas[3].calls_of("TradeBatch")[0].timeout_s <= left_s + ROUNDING_S


def test_without_it_a_late_repeat_is_refused_though_a_replica_leads(
    replicas: Replicas, election: Election, clock: Clock
) -> None:
    client = LeaderClient(election, PATIENCE_S, 4.5, clock, clock.pause)
    with taken_out("a repeat's time"), pytest.raises(Unavailable):
        decide(client, 6)
    assert decide(client, 6) == DONE


def test_a_repeat_that_is_too_late_is_not_sent(replicas: Replicas, client: LeaderClient) -> None:
    with pytest.raises(Unavailable, match="no order replica"):
        decide(client, max(DECISION_S, 8))
    assert replicas.seen("TradeBatch") == {}


def test_an_election_that_leads_nowhere_ends_with_the_budget(replicas: Replicas) -> None:
    replicas[3].says(0, 1)
    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, lambda: True)
    for replica in replicas:
        replica.always("SetLeader", replica.silent)
    client = LeaderClient(election, ATTEMPT_S, decision_timeout_s=0.3)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        decide(client)
    assert time.monotonic() - started < PATIENCE_S / 2


# ---------------------------------------------------------------- what is said in the end


@pytest.mark.parametrize("kind", UNDECIDED)
def test_the_outcome_is_unknown_if_a_copy_may_have_been_executed(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].will("TradeBatch", fails(kind()))
    replicas[3].always("TradeBatch", takes(clock, A_WHILE_S, fails(NotLeader())))
    with pytest.raises(OutcomeUnknown, match="repeat with the same Idempotency-Key"):
        decide(client)


@pytest.mark.parametrize("kind", NOT_EXECUTED)
def test_it_is_unavailable_if_no_copy_was_executed(
    replicas: Replicas, client: LeaderClient, clock: Clock, kind: type[BourseError]
) -> None:
    replicas[3].always("TradeBatch", takes(clock, A_WHILE_S, fails(kind())))
    with pytest.raises(Unavailable, match="no order replica"):
        decide(client)


def test_it_is_unavailable_if_nobody_could_lead(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    replicas[3].says(0, 1)
    for replica in replicas:
        cannot = fails(Unavailable("cannot reach the catalog"))
        replica.always("SetLeader", takes(clock, A_WHILE_S, cannot))
    with pytest.raises(Unavailable, match="no order replica"):
        decide(client)
    assert replicas.seen("TradeBatch") == {}


def test_the_outcome_is_unknown_if_nobody_can_lead_after_a_copy_was_sent(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    def die(_call: Call) -> Any:
        for replica in replicas:
            replica.says(0, 1)
            replica.always("SetLeader", takes(clock, A_WHILE_S, fails(Unavailable())))
        raise Unavailable

    replicas[3].will("TradeBatch", die)
    with pytest.raises(OutcomeUnknown):
        decide(client)


def test_a_trade_that_another_replica_took_in_may_have_been_executed(
    replicas: Replicas, client: LeaderClient, clock: Clock
) -> None:
    elsewhere = answers(bourse_pb2.TradeBatchResponse(replica_id=2))
    replicas[3].will("TradeBatch", elsewhere)
    replicas[3].always("TradeBatch", takes(clock, A_WHILE_S, fails(NotLeader())))
    with pytest.raises(OutcomeUnknown):
        decide(client)


# ---------------------------------------------------------------- the catalog is down


@pytest.fixture
def outage(replicas: Replicas, catalog: Catalog) -> Catalog:
    """No replica can lead: the catalog cannot be reached."""
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
        if clock.now_s > 3.0:
            outage.is_up = True
            for replica in replicas:
                replica.always("SetLeader", replica.usual)
        return outage.is_up

    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, come_back, clock)
    client = LeaderClient(
        election, PATIENCE_S, DECISION_S, clock, clock.pause, longest_call_s=ATTEMPT_S
    )
    assert decide(client) == DONE
    assert 3.0 < clock.now_s < DECISION_S


def test_an_outage_longer_than_the_budget_outlasts_the_trade(
    hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    with pytest.raises(Unavailable, match="no order replica"):
        decide(hasty)
    assert clock.now_s == pytest.approx(HASTY_DECISION_S, abs=0.01)


def test_a_later_trade_is_told_of_an_outage_at_once(
    hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable):
            decide(hasty)
    before = clock.now_s
    with pytest.raises(Unavailable, match="no order replica"):
        decide(hasty)
    assert clock.now_s == before


@pytest.mark.parametrize(("ride_out_s", "waits"), [(1.0, False), (4.0, True)])
def test_a_later_trade_waits_as_long_as_a_takeover_can_take(
    election: Election, clock: Clock, outage: Catalog, ride_out_s: float, waits: bool
) -> None:
    client = LeaderClient(
        election, PATIENCE_S, HASTY_DECISION_S, clock, clock.pause, ride_out_s=ride_out_s
    )
    with pytest.raises(CatalogDown):
        election.find(None, clock.now_s + HASTY_DECISION_S)
    clock.pass_by(2.0)
    before = clock.now_s
    with pytest.raises(Unavailable):
        decide(client)
    assert (clock.now_s > before) is waits


def test_a_trade_that_had_waited_since_before_the_outage_rides_it_out_too(
    hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    clock.pass_by(2.0)
    with pytest.raises(Unavailable):
        decide(hasty)  # the first to see the outage, at 2.0
    assert clock.now_s == pytest.approx(2.0 + HASTY_DECISION_S, abs=0.01)
    started = clock.now_s
    with pytest.raises(Unavailable):
        decide(hasty, started - 2.9)  # as long as a late repeat
    assert clock.now_s == pytest.approx(started + 2.5, abs=0.01)


def test_a_trade_in_doubt_stays_so_in_an_outage(
    replicas: Replicas, hasty: LeaderClient, clock: Clock, outage: Catalog
) -> None:
    def see_the_outage_late(_call: Call) -> Any:
        replicas[3].says(0, 1)
        raise Unavailable

    with pytest.raises(Unavailable):
        decide(hasty)
    clock.pass_by(2.0)
    replicas[3].leads(1)
    replicas[3].will("TradeBatch", see_the_outage_late)
    with pytest.raises(OutcomeUnknown):
        decide(hasty)
