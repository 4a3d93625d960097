"""Trades that share a call to the leader: each is decided by itself, and each is sent again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from common.errors import Busy, InvalidRequest, KeyReused, OutcomeUnknown, Unavailable
from frontend.model import Decision
from frontend.trading.election import Election
from frontend.trading.leader import LeaderClient
from proto import bourse_pb2
from stack.waiting import wait_for
from tests.support.clock import Clock
from tests.support.replica_fakes import (
    PATIENCE_S,
    Act,
    Call,
    Replicas,
    answers,
    fails,
)
from tests.unit.frontend.trading.leader_calls import (
    ATTEMPT_S,
    DECISION_S,
    DONE,
    HASTY_DECISION_S,
    TRADE,
    decide,
    says,
)


@pytest.fixture
def replicas() -> Iterator[Replicas]:
    """Replica 3 leads."""
    replicas = Replicas()
    replicas[3].leads(1)
    yield replicas
    replicas.close()


def made_client(replicas: Replicas, decision_s: float = DECISION_S) -> LeaderClient:
    clock = Clock()
    election = Election(replicas.peers, PATIENCE_S, PATIENCE_S, lambda: True, clock)
    return LeaderClient(
        election, PATIENCE_S, decision_s, clock, clock.pause, longest_call_s=ATTEMPT_S
    )


@pytest.fixture
def client(replicas: Replicas) -> LeaderClient:
    return made_client(replicas)


def decide_together(
    replicas: Replicas, client: LeaderClient, *keys: str, then: Act | None = None
) -> list[Decision | BaseException]:
    """Trades that come while another one's call is out, so that they share the next."""
    first_is_here, may_go_on = threading.Event(), threading.Event()

    def hold(call: Call) -> Any:
        first_is_here.set()
        assert may_go_on.wait(PATIENCE_S)
        return replicas[3].usual(call)

    replicas[3].will("TradeBatch", hold, then or replicas[3].usual)
    with ThreadPoolExecutor(1 + len(keys)) as executor:
        executor.submit(decide, client)
        assert first_is_here.wait(PATIENCE_S)
        deciding = []
        for number, key in enumerate(keys, start=1):
            deciding.append(executor.submit(client.decide, replace(TRADE, request_id=key), 0.0))
            wait_for(lambda n=number: waiting(client) == n, PATIENCE_S, "it waits for the call")
        may_go_on.set()
        return [one.exception(PATIENCE_S) or one.result() for one in deciding]


def waiting(client: LeaderClient) -> int:
    return sum(len(sender._waiting) for _, sender in client._senders.values())


def test_trades_that_wait_for_the_leader_go_together(
    replicas: Replicas, client: LeaderClient
) -> None:
    assert decide_together(replicas, client, "a", "b", "c") == [DONE] * 3
    _, batch = replicas[3].seen("TradeBatch")
    assert [request.request_id for request in batch.trades] == ["a", "b", "c"]
    assert {(one.name, one.type, one.quantity) for one in batch.trades} == {
        ("stock1", bourse_pb2.SELL, 25)
    }


def test_each_gets_what_the_leader_says_of_it(replicas: Replicas, client: LeaderClient) -> None:
    decided = bourse_pb2.TradeResponse(
        status=1, transaction_number=8, version=4, lease_ms=4_321, replayed=True, replica_id=3
    )
    act = says(decided, KeyReused(), Busy())
    first, second, third = decide_together(replicas, client, "a", "b", "c", then=act)
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
    assert decide_together(replicas, client, "a", "b", then=act) == [DONE] * 2


def test_who_never_left_is_not_in_doubt(replicas: Replicas) -> None:
    """A trade that waited behind a failed call was not sent. Its error says so if it ends there."""
    hasty = made_client(replicas, HASTY_DECISION_S)
    first_is_here, may_go_on = threading.Event(), threading.Event()

    def die(_call: Call) -> Any:
        first_is_here.set()
        assert may_go_on.wait(PATIENCE_S)
        for replica in replicas:
            replica.says(0, 1)
            replica.always("SetLeader", fails(Unavailable()))
        raise Unavailable

    replicas[3].will("TradeBatch", die)
    with ThreadPoolExecutor(2) as executor:
        sent = executor.submit(decide, hasty)
        assert first_is_here.wait(PATIENCE_S)
        waits = executor.submit(hasty.decide, replace(TRADE, request_id="a"), 0.0)
        wait_for(lambda: waiting(hasty) == 1, PATIENCE_S, "it waits for the call")
        may_go_on.set()
        assert isinstance(sent.exception(PATIENCE_S), OutcomeUnknown)
        assert isinstance(waits.exception(PATIENCE_S), Unavailable)
