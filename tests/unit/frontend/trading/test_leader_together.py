"""Trades that share a call to the leader: each is decided by itself, and each is sent again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from common.domain import Trade
from common.errors import BourseError, InvalidRequest, KeyReused, OutcomeUnknown, Unavailable
from frontend.model import Decision
from frontend.trading import batching as line
from frontend.trading.election import Election
from frontend.trading.leader import LeaderClient
from proto import bourse_pb2
from tests.support.replica_fakes import (
    PATIENCE_S,
    Act,
    Call,
    Clock,
    Replicas,
    answers,
    eventually,
    fails,
)
from tests.unit.frontend.trading.leader_calls import (
    ATTEMPT_S,
    DECISION_S,
    DONE,
    HASTY_DECISION_S,
    TRADE,
)


@pytest.fixture(autouse=True)
def nobody_overtakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_LONGEST_WAIT_S", PATIENCE_S)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    """Replica 3 leads."""
    replicas = Replicas()
    replicas[3].leads(1)
    yield replicas
    replicas.close()


def made_client(
    replicas: Replicas, decision_s: float = DECISION_S, clock: Clock | None = None, **more: Any
) -> LeaderClient:
    clock = clock or Clock()
    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, lambda: True, clock)
    return LeaderClient(election, ATTEMPT_S, decision_s, clock, clock.pause, **more)


@pytest.fixture
def client(replicas: Replicas) -> LeaderClient:
    return made_client(replicas)


def decide_together(
    replicas: Replicas, client: LeaderClient, *keys: str, meanwhile: Callable[[], object] = bool
) -> list[Decision | BaseException]:
    """Trades that come while another one's call is out, so that they share the next."""
    first_is_here, may_go_on = threading.Event(), threading.Event()

    def hold(call: Call) -> Any:
        first_is_here.set()
        assert may_go_on.wait(PATIENCE_S)
        return replicas[3].usual(call)

    replicas[3].will("Trade", hold)
    with ThreadPoolExecutor(1 + len(keys)) as executor:
        executor.submit(client.decide, TRADE)
        assert first_is_here.wait(PATIENCE_S)
        deciding = []
        for number, key in enumerate(keys, start=1):
            deciding.append(executor.submit(client.decide, replace(TRADE, request_id=key)))
            eventually(lambda n=number: waiting(client) == n, "it waits for the call")
        meanwhile()
        may_go_on.set()
        return [one.exception(PATIENCE_S) or one.result() for one in deciding]


def waiting(client: LeaderClient) -> int:
    used, _ = client._line
    return 0 if used is None else len(used._waiting)


def test_trades_that_wait_for_the_leader_go_together(
    replicas: Replicas, client: LeaderClient
) -> None:
    assert decide_together(replicas, client, "a", "b", "c") == [DONE] * 3
    (batch,) = replicas[3].seen("TradeBatch")
    assert [request.request_id for request in batch.trades] == ["a", "b", "c"]
    assert {(one.name, one.type, one.quantity) for one in batch.trades} == {
        ("stock1", bourse_pb2.SELL, 25)
    }


def test_who_waited_for_a_slow_leader_gives_it_as_much_time(replicas: Replicas) -> None:
    clock = Clock()
    client = made_client(replicas, clock=clock)
    slow = partial(clock.pass_by, 0.9 * ATTEMPT_S)
    assert decide_together(replicas, client, "a", "b", meanwhile=slow) == [DONE] * 2
    (batch,) = replicas[3].calls_of("TradeBatch")
    assert batch.timeout_s > 0.5 * ATTEMPT_S


def test_each_gets_what_the_leader_says_of_it(replicas: Replicas, client: LeaderClient) -> None:
    decided = bourse_pb2.TradeResponse(
        status=1, transaction_number=8, version=4, lease_ms=4_321, replayed=True, replica_id=3
    )
    conflict = bourse_pb2.TradeFailure(grpc_status=6, message="key reused")
    busy = bourse_pb2.TradeFailure(grpc_status=8, message="busy")
    outcomes = [
        bourse_pb2.TradeOutcome(response=decided),
        bourse_pb2.TradeOutcome(failure=conflict),
        bourse_pb2.TradeOutcome(failure=busy),
    ]
    answer = bourse_pb2.TradeBatchResponse(outcomes=outcomes, replica_id=3)
    replicas[3].will("TradeBatch", answers(answer))
    first, second, third = decide_together(replicas, client, "a", "b", "c")
    assert first == Decision(1, 8, 4, 4_321, replayed=True)
    assert isinstance(second, KeyReused)
    assert third == DONE, "it was sent again"


WRONG_BATCH = {
    "one outcome too few": answers(bourse_pb2.TradeBatchResponse(replica_id=3)),
    "an answer of another": answers(bourse_pb2.TradeBatchResponse(replica_id=1)),
    "a defect": fails(ZeroDivisionError()),
    "not one that this leader takes": fails(InvalidRequest("too many")),
    "gone": fails(Unavailable()),
    "in doubt": fails(OutcomeUnknown()),
    "an outcome that is none": answers(
        bourse_pb2.TradeBatchResponse(outcomes=[bourse_pb2.TradeOutcome()] * 2, replica_id=3)
    ),
}


@pytest.mark.parametrize("act", WRONG_BATCH.values(), ids=WRONG_BATCH)
def test_a_batch_that_went_wrong_is_final_for_nobody(
    replicas: Replicas, client: LeaderClient, act: Act
) -> None:
    replicas[3].will("TradeBatch", act)
    assert decide_together(replicas, client, "a", "b") == [DONE] * 2


def test_who_never_left_is_not_in_doubt(replicas: Replicas) -> None:
    """Whoever waited for a call that failed was not sent, and says so if nobody takes it later."""
    hasty = made_client(replicas, HASTY_DECISION_S)
    first_is_here, may_go_on = threading.Event(), threading.Event()

    def die(_call: Call) -> Any:
        first_is_here.set()
        assert may_go_on.wait(PATIENCE_S)
        for replica in replicas:
            replica.says(0, 1)
            replica.always("SetLeader", fails(Unavailable()))
        raise Unavailable

    replicas[3].will("Trade", die)
    with ThreadPoolExecutor(2) as executor:
        sent = executor.submit(hasty.decide, TRADE)
        assert first_is_here.wait(PATIENCE_S)
        waits = executor.submit(hasty.decide, replace(TRADE, request_id="a"))
        eventually(lambda: waiting(hasty) == 1, "it waits for the call")
        may_go_on.set()
        assert isinstance(sent.exception(PATIENCE_S), OutcomeUnknown)
        assert isinstance(waits.exception(PATIENCE_S), Unavailable)


def test_outcomes_are_settled_before_they_are_told(replicas: Replicas) -> None:
    def settle(
        trades: Sequence[Trade], outcomes: Sequence[Decision | BourseError]
    ) -> Sequence[Decision | BourseError]:
        assert list(trades) == [TRADE]
        assert list(outcomes) == [DONE]
        return [replace(DONE, lease_ms=17)]

    client = made_client(replicas, settle=settle)
    assert client.decide(TRADE) == replace(DONE, lease_ms=17)
