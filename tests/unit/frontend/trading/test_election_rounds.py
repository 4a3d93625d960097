"""Rounds of an election: those that fail, and those that several threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from common.errors import Unavailable
from frontend.trading import election as election_module
from frontend.trading.election import CatalogDown, Election, Leadership, NoLeader
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import PATIENCE_S, Call, Replicas, fails
from tests.unit.frontend.trading.election_calls import (
    LONG_S,
    SHORT_S,
    Catalog,
    asked_to_lead,
    impatient,
    leader_and_epoch,
)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    replicas = Replicas()
    yield replicas
    replicas.close()


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def election(replicas: Replicas, catalog: Catalog, clock: Clock) -> Election:
    """On a clock that stands at 0 unless the test moves it."""
    return Election(replicas.peers, LONG_S, LONG_S, catalog.is_reachable, clock)


# ---------------------------------------------------------------- the catalog is down


@pytest.fixture
def outage(replicas: Replicas, catalog: Catalog) -> Catalog:
    """No replica can lead: the catalog cannot be reached."""
    catalog.is_up = False
    for replica in replicas:
        replica.always("SetLeader", fails(Unavailable("cannot reach the catalog")))
    return catalog


def end(outage: Catalog, replicas: Replicas) -> None:
    outage.is_up = True
    for replica in replicas:
        replica.always("SetLeader", replica.usual)


def test_a_leader_is_found_without_asking_for_the_catalog(
    replicas: Replicas, election: Election, catalog: Catalog
) -> None:
    replicas[3].always("SetLeader", fails(Unavailable("cannot reach the catalog")))
    election.find(None, LONG_S)
    assert catalog.times_asked == 0


def test_an_outage_is_told_from_a_lack_of_candidates(
    replicas: Replicas, election: Election, outage: Catalog
) -> None:
    with pytest.raises(CatalogDown):
        election.find(None, LONG_S)
    outage.is_up = True
    other = Election(replicas.peers, LONG_S, LONG_S, outage.is_reachable, Clock())
    with pytest.raises(Unavailable) as raised:
        other.find(None, LONG_S)
    assert not isinstance(raised.value, CatalogDown)


def test_when_the_time_is_over_the_catalog_is_not_asked(
    replicas: Replicas, election: Election, outage: Catalog, clock: Clock
) -> None:
    def take_the_time(_call: Call) -> Any:
        clock.pass_by(LONG_S)
        raise Unavailable

    replicas[3].always("SetLeader", take_the_time)
    with pytest.raises(NoLeader) as raised:
        election.find(None, LONG_S)
    assert not isinstance(raised.value, CatalogDown)
    assert outage.times_asked == 0


def test_an_outage_is_dated_from_when_it_was_first_seen(
    election: Election, outage: Catalog, clock: Clock
) -> None:
    clock.pass_by(3.0)
    for _ in range(4):
        with pytest.raises(CatalogDown) as raised:
            election.find(None, LONG_S)
        assert raised.value.since == 3.0
        clock.pass_by(0.4)


def test_rounds_are_far_between_in_an_outage(
    replicas: Replicas, election: Election, outage: Catalog, clock: Clock
) -> None:
    asked = []
    for _ in range(4):
        with pytest.raises(CatalogDown):
            election.find(None, LONG_S)
        asked.append(len(replicas[3].seen("GetLeader")))
        clock.pass_by(0.3)
    assert asked == [1, 1, 2, 2]


@pytest.mark.parametrize("leads_already", [True, False])
def test_the_end_of_an_outage_is_noticed(
    replicas: Replicas, election: Election, outage: Catalog, clock: Clock, leads_already: bool
) -> None:
    with pytest.raises(CatalogDown):
        election.find(None, LONG_S)
    end(outage, replicas)
    if leads_already:
        replicas[2].leads(7)
    clock.pass_by(0.6)
    assert leader_and_epoch(election.find(None, LONG_S)) == ((2, 7) if leads_already else (3, 1))


def test_the_next_outage_has_a_date_of_its_own(
    replicas: Replicas, election: Election, outage: Catalog, clock: Clock
) -> None:
    with pytest.raises(CatalogDown):
        election.find(None, LONG_S)
    end(outage, replicas)
    clock.pass_by(1.0)
    found = election.find(None, LONG_S)
    outage.is_up = False
    for replica in replicas:
        replica.says(0, 1)
        replica.always("SetLeader", fails(Unavailable("cannot reach the catalog")))
    clock.pass_by(1.0)
    with pytest.raises(CatalogDown) as raised:
        election.find(found, LONG_S)
    assert raised.value.since == 2.0


def test_an_outage_that_ended_unnoticed_does_not_date_the_next(
    election: Election, outage: Catalog, clock: Clock
) -> None:
    """No trade came between the two, an hour apart, so no round was run."""
    with pytest.raises(CatalogDown):
        election.find(None, clock() + LONG_S)
    clock.pass_by(3600.0)
    with pytest.raises(CatalogDown) as raised:
        election.find(None, clock() + LONG_S)
    assert raised.value.since == 3600.0


# ---------------------------------------------------------------- several threads


class Crowd:
    """Threads that look for a leader at once; notes which have joined a round under way."""

    def __init__(self, election: Election, monkeypatch: pytest.MonkeyPatch) -> None:
        self._election = election
        self._executor = ThreadPoolExecutor(16)
        self._joined: list[Future[Leadership]] = []
        original = election_module._wait_for

        def count(running: Future[Leadership], timeout_s: float, outage: Any) -> Leadership:
            self._joined.append(running)
            return original(running, timeout_s, outage)

        monkeypatch.setattr(election_module, "_wait_for", count)

    def look(self, count: int) -> list[Future[Leadership]]:
        """One of them asks, the others have joined it when this returns."""
        looking = [self._executor.submit(self._election.find, None, LONG_S) for _ in range(count)]
        wait_for(lambda: len(self._joined) == count - 1, PATIENCE_S, "all but one have joined")
        return looking

    def close(self) -> None:
        self._executor.shutdown()


@pytest.fixture
def crowd(
    replicas: Replicas, election: Election, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Crowd]:
    crowd = Crowd(election, monkeypatch)
    yield crowd
    for replica in replicas:
        replica.release()
    crowd.close()


def test_threads_share_one_round(replicas: Replicas, crowd: Crowd) -> None:
    replicas[3].will("GetLeader", replicas[3].silent)
    looking = crowd.look(8)
    replicas[3].release()
    found = {id(one.result(PATIENCE_S)) for one in looking}
    assert len(found) == 1
    assert asked_to_lead(replicas) == {3: [1]}
    assert all(len(replica.seen("GetLeader")) == 1 for replica in replicas)


def test_the_error_of_a_round_reaches_all_and_the_next_starts_afresh(
    replicas: Replicas, election: Election, crowd: Crowd
) -> None:
    failure = fails(Unavailable("cannot reach the catalog"))
    for replica in replicas:
        replica.will("SetLeader", failure)
    replicas[3].will("GetLeader", replicas[3].silent)
    looking = crowd.look(8)
    replicas[3].release()
    errors = [one.exception(PATIENCE_S) for one in looking]
    assert all(isinstance(error, Unavailable) for error in errors)
    assert election._current is None
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 1)


@pytest.mark.parametrize("outcome", ["found", "failed"])
def test_a_round_is_over_before_those_who_joined_hear_of_it(
    replicas: Replicas, election: Election, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    """Else one of them that comes back at once joins the round that it has just been in."""
    if outcome == "failed":
        for replica in replicas:
            replica.will("SetLeader", fails(Unavailable("cannot reach the catalog")))
    found_later: list[Leadership] = []

    def come_back(heard: Leadership | None) -> None:
        monkeypatch.undo()
        try:
            found_later.append(election.find(heard, LONG_S))
        except Unavailable:
            pass

    class HeardOf(Future[Leadership]):
        def set_result(self, result: Leadership) -> None:
            super().set_result(result)
            come_back(result)

        def set_exception(self, exception: BaseException | None) -> None:
            super().set_exception(exception)
            come_back(None)

    monkeypatch.setattr(election_module, "Future", HeardOf)
    found = None
    try:
        found = election.find(None, LONG_S)
    except Unavailable:
        assert outcome == "failed"
    assert len(found_later) == 1
    assert found_later[0] is not found


def test_who_joins_waits_no_longer_than_it_may(
    replicas: Replicas, election: Election, crowd: Crowd
) -> None:
    replicas[3].will("GetLeader", replicas[3].silent)
    crowd.look(2)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no leader was found in time"):
        election.find(None, 0.05)
    assert time.monotonic() - started < PATIENCE_S / 2


def test_who_runs_the_round_waits_for_candidates_no_longer_than_it_may(replicas: Replicas) -> None:
    election = Election(replicas.peers, LONG_S, LONG_S, lambda: True)
    for replica in replicas:
        replica.always("SetLeader", replica.silent)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        election.find(None, started + SHORT_S)
    assert time.monotonic() - started < LONG_S / 2
    assert asked_to_lead(replicas) == {3: [1]}


def test_workers_that_elect_at_once_agree(replicas: Replicas) -> None:
    """Each has an election of its own; the candidate has them join one attempt."""
    workers = [impatient(replicas) for _ in range(4)]
    everybody = threading.Barrier(len(workers))

    def look(worker: Election) -> tuple[int, int]:
        everybody.wait(PATIENCE_S)
        return leader_and_epoch(worker.find(None, LONG_S))

    with ThreadPoolExecutor(len(workers)) as executor:
        found = list(executor.map(look, workers))
    assert set(found) == {(3, 1)}


def test_what_is_no_error_of_the_family_ends_a_round_too(
    replicas: Replicas, election: Election, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_numbers: object) -> list[int]:
        raise ZeroDivisionError

    monkeypatch.setattr(election_module, "order_candidates", defect)
    with pytest.raises(ZeroDivisionError):
        election.find(None, LONG_S)
    monkeypatch.undo()
    assert leader_and_epoch(election.find(None, LONG_S)) == (3, 1)
