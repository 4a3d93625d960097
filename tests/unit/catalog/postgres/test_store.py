"""One term: what it decides, what it shows, and that it is over at the first doubt."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from catalog import refusals
from catalog.decisions import Failure, Registration
from catalog.leases import Leases
from catalog.postgres.office import Beats, Office
from catalog.postgres.session import Changes, Opened, SessionLost
from catalog.postgres.store import PostgresStore
from catalog.postgres.tenure import Tenure
from catalog.stock import Stock
from common.domain import Trade
from common.errors import Busy, Contradiction, NotActive, StaleEpoch, Unavailable
from tests.unit.catalog.postgres.database import CLUSTER_ID, Cluster, FakeSession
from tests.unit.catalog.postgres.scheduler import Machine, Scheduler, Turn
from tests.unit.catalog.support import buy, decide, sell, volume

ME = "me"
V = 1.0


class Term:
    """A store whose term has just begun, on a database of its own."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        chance = random.Random(1)  # noqa: S311 - repeatable on purpose
        stocks = [Stock("stock1", Decimal("25.78"), 100), Stock("stock2", Decimal("0.10"), 50)]
        self.cluster = Cluster(self.scheduler, chance, stocks)
        self.session = self.connect()
        self.office = Office(Tenure(ME, V))
        self.turn = Turn(self.scheduler)
        self.store = self._begin()

    def connect(self) -> FakeSession:
        return FakeSession(self.cluster, Machine("catalog"), self.cluster.leader)

    def clock(self) -> float:
        return self.scheduler.now_s

    def _begin(self) -> PostgresStore:
        row, began_s = self.session.observe(), self.clock()
        self.office.step(lambda tenure: tenure.observe(*row, began_s))
        self.office.step(lambda tenure: tenure.begin_take(began_s))
        leases = Leases(self.clock)
        assert self.session.take(row, 7, ME)
        return PostgresStore(
            session=self.session,
            generation=self.office.step(lambda tenure: tenure.taken(began_s)),
            began_s=began_s,
            loaded=self.session.load(),
            office=self.office,
            leases=leases,
            beats=Beats(),
            clock=self.clock,
            wall_clock=lambda: 1e9,
            turn=self.turn,
        )

    @property
    def is_over(self) -> bool:
        return not self.office.step(lambda tenure: tenure.holds(self.store.generation))


@pytest.fixture
def term() -> Term:
    term = Term()
    assert term.store.fence(1, 2).accepted
    return term


@pytest.fixture
def store(term: Term) -> PostgresStore:
    return term.store


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*_: object) -> Any:
        raise error

    return failing


# ------------------------------------------------------------ what it decides and shows


def test_each_trade_of_a_batch_sees_those_before_it(store: PostgresStore) -> None:
    decisions = store.update(
        1, [buy("a", 60), buy("b", 60), sell("c", 30), buy("b2", 60), buy("a", 60)]
    )
    assert [one.number for one in decisions] == [1, -1, 2, 3, 1]
    assert [one.replayed for one in decisions] == [False, False, False, False, True]
    assert volume(store) == 10


def test_a_decision_is_for_ever(term: Term, store: PostgresStore) -> None:
    assert decide(store, buy("a", 60)).number == 1
    assert decide(store, buy("b", 60)).status == 0
    decide(store, sell("c", 60))
    assert decide(store, buy("a", 60)).number == 1
    assert decide(store, buy("b", 60)).replayed
    assert decide(store, buy("a", 61)).failure is Failure.MISMATCH
    assert term.cluster.leader.shown.refusals.keys() == {"b"}


def test_the_database_has_what_was_told(term: Term, store: PostgresStore) -> None:
    store.update(1, [buy("a"), buy("b", name="stock2")])
    state = term.cluster.acknowledged
    assert list(state.orders) == store.journal(0)
    assert list(state.stocks.values()) == store.stocks()
    assert state.registration == store.registered() == Registration(1, 2)


def test_what_is_shown_cannot_be_changed_from_outside(store: PostgresStore) -> None:
    for stock in (*store.stocks(), store.lookup("stock1")):
        assert stock is not None
        stock.volume = 0
    assert volume(store) == 100


def test_only_the_next_epoch_is_accepted(store: PostgresStore) -> None:
    assert store.fence(1, 3) == (False, (1, 2))
    assert store.fence(3, 3) == (False, (1, 2))
    assert store.fence(2, 3) == (True, (2, 3))
    with pytest.raises(StaleEpoch):
        store.update(1, [buy("a")])
    assert decide(store, buy("a"), epoch=2).number == 1


def test_a_log_that_is_no_beginning_of_the_journal_is_told_so(store: PostgresStore) -> None:
    store.update(1, [buy(str(number)) for number in range(3)])
    first, _, last = store.journal(0)
    for order in (first, last):
        store.compare(order.number, order.digest, CLUSTER_ID)
    with pytest.raises(Contradiction, match="this journal has "):
        store.compare(1, last.digest)
    with pytest.raises(Contradiction, match="ends with 3"):
        store.fence(2, 3, 4, last.digest)
    with pytest.raises(Contradiction, match="cluster other"):
        store.update(1, [buy("x")], "other")
    assert store.registered() == (1, 2)


def test_the_journal_is_read_in_parts(store: PostgresStore) -> None:
    store.update(1, [buy(str(number)) for number in range(5)])
    assert [one.number for one in store.journal(1, 2)] == [2, 3]
    assert [one.number for one in store.journal(3, 100)] == [4, 5]
    assert store.journal(5) == store.journal(2**63) == store.journal(0, 0) == []


def test_a_row_without_an_acknowledged_commit_is_not_in_the_journal(
    term: Term, store: PostgresStore
) -> None:
    decide(store, buy("a"))
    node = term.cluster.leader
    node.log.append(node.shown.with_changes(node.shown.office, Changes(store_row(store))))
    node.visible += 1
    assert len(node.shown.orders) == 2
    assert len(store.journal(0)) == 1


def store_row(store: PostgresStore) -> Sequence[Any]:
    (order,) = store.journal(0)
    return [type(order)(2, "x", order.name, order.type, 1, 2, 1, b"?")]


def test_a_refusal_without_room_is_not_told_as_one(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_REFUSALS", 1)
    assert decide(store, buy("a", 101)).failure is Failure.NONE
    assert decide(store, buy("b", 101)).failure is Failure.FULL
    assert decide(store, buy("a", 101)).replayed


# ------------------------------------------------------------ validity


def test_a_term_that_wrote_nothing_for_v_answers_no_read(term: Term, store: PostgresStore) -> None:
    store.check_active()
    term.scheduler.run(term.clock() + V)
    with pytest.raises(NotActive):
        store.check_active()
    decide(store, buy("a"))  # a write finds out whether the office is still its own
    store.check_active()


def test_it_is_valid_from_the_beginning_of_the_transaction(
    term: Term, store: PostgresStore
) -> None:
    decide(store, buy("a"))  # and what it purges
    began_s = term.clock()
    decide(store, buy("b"))
    assert term.clock() > began_s
    assert term.office.view().valid_until_s == began_s + V


def test_it_beats_when_it_is_idle(term: Term, store: PostgresStore) -> None:
    beat = term.session.observe().beat
    store.beat(0.25)
    assert term.session.observe().beat == beat
    term.scheduler.run(term.clock() + 0.25)
    store.beat(0.25)
    assert term.session.observe().beat != beat


def test_a_beat_does_not_wait_for_a_write(term: Term, store: PostgresStore) -> None:
    term.turn.acquire()
    beat = term.session.observe().beat
    store.beat(0.0)
    assert term.session.observe().beat == beat


def test_who_has_to_wait_too_long_for_a_turn_is_told_that_nothing_was_done(
    term: Term, store: PostgresStore
) -> None:
    term.turn.acquire()
    with pytest.raises(Busy):
        decide(store, buy("a"))
    term.turn.release()
    assert decide(store, buy("a")).number == 1


# ------------------------------------------------------------ the end of a term


def assert_over(term: Term) -> None:
    store = term.store
    assert term.is_over
    calls: list[Callable[[], object]] = [
        store.check_active,
        lambda: store.lookup("stock1"),
        store.stocks,
        store.registered,
        lambda: store.journal(0),
        lambda: store.compare(1, b""),
        lambda: store.fence(2, 3),
        lambda: store.update(1, []),
        lambda: store.beat(0.0),
    ]
    for call in calls:
        with pytest.raises(NotActive):
            call()


@pytest.mark.parametrize("is_repeat", [False, True])
def test_it_is_over_when_another_has_taken_the_office(
    term: Term, store: PostgresStore, is_repeat: bool
) -> None:
    if is_repeat:
        decide(store, buy("a"))
    other = term.connect()
    assert other.take(other.observe(), 8, "other")
    with pytest.raises(NotActive):
        decide(store, buy("a"))
    assert_over(term)
    assert len(term.cluster.acknowledged.orders) == is_repeat


@pytest.mark.parametrize("call", ["begin", "roll_back", "journal", "digest_of"])
def test_a_connection_that_is_lost_before_a_commit_ends_it_and_nothing_was_done(
    term: Term, store: PostgresStore, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.update(1, [buy("a"), buy("b")])
    monkeypatch.setattr(term.session, call, fail(SessionLost()))
    if call == "roll_back":
        with pytest.raises(StaleEpoch):
            decide(store, buy("c"), epoch=9)
    else:
        with pytest.raises(NotActive):
            {
                "begin": lambda: decide(store, buy("c")),
                "journal": lambda: store.journal(0),
                "digest_of": lambda: store.compare(1, b""),
            }[call]()
    assert_over(term)


@pytest.mark.parametrize("error", [SessionLost(), AttributeError("a defect")])
def test_a_commit_in_doubt_ends_it_and_is_told_as_unknown(
    term: Term, store: PostgresStore, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(term.session, "commit", fail(error))
    with pytest.raises(Unavailable, match="may have taken effect"):
        decide(store, buy("a"))
    assert_over(term)


def test_an_interruption_in_a_commit_ends_it(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(term.session, "commit", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        decide(store, buy("a"))
    assert_over(term)


def test_a_cancelled_wait_for_the_standby_ends_it(term: Term, store: PostgresStore) -> None:
    node = term.cluster.leader
    assert node.standby is not None
    term.cluster.cut.add(frozenset((node.name, node.standby.name)))
    term.scheduler.after(0.3, lambda: node.cancel_wait(0.0))
    with pytest.raises(Unavailable, match="may have taken effect"):
        decide(store, buy("a"))
    assert len(node.shown.orders) == 1
    assert_over(term)


def test_a_registration_that_it_did_not_make_ends_it(term: Term, store: PostgresStore) -> None:
    node = term.cluster.leader
    changed = node.shown.with_changes(node.shown.office, Changes(registration=Registration(9, 9)))
    node.log[node.visible] = changed
    with pytest.raises(NotActive):
        decide(store, buy("a"))
    assert_over(term)


# ------------------------------------------------------------ trades that fail by themselves


def refuse(session: FakeSession, request_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database refuses that trade's data; nothing of its transaction is kept."""
    commit = session.commit

    def commit_or_refuse(changes: Changes) -> None:
        if any(order.request_id == request_id for order in changes.orders):
            session.roll_back()
            raise psycopg.DataError("invalid byte sequence")
        commit(changes)

    monkeypatch.setattr(session, "commit", commit_or_refuse)


def test_a_trade_that_the_database_refuses_fails_alone(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(term.session, "b", monkeypatch)
    decisions = store.update(1, [buy("a"), buy("b"), buy("c")])
    assert [one.number for one in decisions] == [1, -1, 2]
    assert decisions[1].failure is Failure.INTERNAL
    assert volume(store) == 98
    assert not term.is_over


def test_a_loss_after_some_were_decided_alone_is_not_told_as_nothing_done(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(term.session, "b", monkeypatch)
    begin, begun = term.session.begin, []

    def begin_or_break(*arguments: Any) -> Any:
        begun.append(arguments)
        return begin(*arguments) if len(begun) < 3 else fail(SessionLost())()

    monkeypatch.setattr(term.session, "begin", begin_or_break)
    with pytest.raises(Unavailable):
        store.update(1, [buy("a"), buy("b")])
    assert len(term.cluster.acknowledged.orders) == 1
    assert_over(term)


def test_what_is_malformed_is_not_asked_for(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    begin = term.session.begin

    def noting(generation: int, beat: int, request_ids: Sequence[str]) -> Opened | None:
        asked.extend(request_ids)
        return begin(generation, beat, request_ids)

    monkeypatch.setattr(term.session, "begin", noting)
    store.update(1, [buy("a"), Trade("\0", "stock1", "BUY", 1), Trade("b", "stock1", "BUY", 0)])
    assert asked == ["a"]


def test_decisions_are_told_though_the_purge_after_them_fails(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(term.session, "delete_refusals", fail(SessionLost()))
    assert decide(store, buy("a")).number == 1
    assert_over(term)


# ------------------------------------------------------------ leaving


def test_a_released_office_says_so(term: Term, store: PostgresStore) -> None:
    assert term.office.step(lambda tenure: tenure.leave())
    store.release()
    assert term.connect().observe().released
    assert_over(term)


def test_a_release_that_fails_is_only_a_longer_wait_for_the_next(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    term.office.step(lambda tenure: tenure.leave())
    monkeypatch.setattr(term.session, "release", fail(SessionLost()))
    store.release()
    assert_over(term)


def closings(term: Term, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(term.session, "close", lambda: calls.append("close"))
    return calls


def test_the_session_is_closed_at_once_if_nobody_writes(
    term: Term, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = closings(term, monkeypatch)
    term.store.close()
    assert closed == ["close"]


def test_the_session_is_closed_after_the_write_in_progress(
    term: Term, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = closings(term, monkeypatch)
    begin = term.session.begin

    def close_meanwhile(*arguments: Any) -> Any:
        store.close()
        assert closed == []
        return begin(*arguments)

    monkeypatch.setattr(term.session, "begin", close_meanwhile)
    assert decide(store, buy("a")).number == 1
    assert closed == ["close"]
