"""Trades at a replica over gRPC: decisions, refusals, and unexpected errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from common import logs
from common.domain import MAX_TRADES_PER_CALL
from order import service as service_module
from order.leadership.replica import Role
from proto import bourse_pb2
from tests.unit.order.calls import (
    ROWS,
    Status,
    leader_and_epoch,
    refusal,
    trade,
)
from tests.unit.order.fakes import LEASE_MS, TIMEOUT_S, FakeCatalog, lost
from tests.unit.order.replicas import RunningReplica, running_replica

# ------------------------------------------------------------ Trade


def test_a_trade_is_decided_appended_and_answered(leader: RunningReplica) -> None:
    answer = leader.call("Trade", trade("a", type=bourse_pb2.SELL, quantity=7))
    assert (answer.status, answer.transaction_number, answer.version) == (1, 11, 11)
    assert (answer.replayed, answer.replica_id) == (False, 1)
    row = leader.log.row(11)
    assert row is not None
    assert (row.request_id, row.name, row.type, row.quantity) == ("a", "stock1", "SELL", 7)


def test_a_repeat_gets_the_same_answer(leader: RunningReplica) -> None:
    first = leader.call("Trade", trade("a"))
    again = leader.call("Trade", trade("a"))
    assert (again.transaction_number, again.version) == (first.transaction_number, first.version)
    assert (first.replayed, again.replayed) == (False, True)


def test_a_trade_without_an_id_is_another_each_time(leader: RunningReplica) -> None:
    numbers = [leader.call("Trade", trade()).transaction_number for _ in range(3)]
    assert numbers == [11, 12, 13]


@pytest.mark.parametrize(("fields", "status"), [({"quantity": 5_000}, 0), ({"name": "nosuch"}, -1)])
def test_a_trade_that_is_refused(
    leader: RunningReplica, fields: dict[str, Any], status: int
) -> None:
    answer = leader.call("Trade", trade("a", **fields))
    assert (answer.status, answer.transaction_number, answer.version) == (status, -1, 0)
    assert answer.replica_id == 1


INVALID = {
    "no quantity": trade("a", quantity=0),
    "a negative quantity": trade("a", quantity=-1),
    "too large a quantity": trade("a", quantity=10**9 + 1),
    "the largest quantity there is": trade("a", quantity=2**63 - 1),
    "no name": trade("a", name=""),
    "too long a name": trade("a", name="n" * 65),
    "a name of several lines": trade("a", name="stock1\nstock2"),
    "a type that is none": trade("a", type=2),
    "too long an id": trade("i" * 256),
    "a space in the id": trade("a b"),
    "an id that is not ASCII": trade("ä"),
}


@pytest.mark.parametrize("case", INVALID)
def test_there_is_no_such_trade(leader: RunningReplica, case: str) -> None:
    answer = leader.call("Trade", INVALID[case])
    assert answer == bourse_pb2.TradeResponse(status=-1, transaction_number=-1, replica_id=1)
    assert leader.catalog.sent == []


def test_the_longest_that_there_can_be(leader: RunningReplica) -> None:
    request = trade("~" * 255, name="n" * 64, quantity=1_000)
    assert leader.call("Trade", request).status == 1


def test_an_id_of_another_trade_is_a_conflict(leader: RunningReplica) -> None:
    leader.call("Trade", trade("a"))
    code, _ = refusal(lambda: leader.call("Trade", trade("a", quantity=2)))
    assert code is Status.ALREADY_EXISTS


def test_a_follower_does_not_take_trades(replica: RunningReplica) -> None:
    code, details = refusal(lambda: replica.call("Trade", trade("a")))
    assert (code, details) == (Status.FAILED_PRECONDITION, "replica 1 is not the leader")
    assert not replica.queue.arrivals.acquire(blocking=False)


def test_a_deposed_leader_says_so(leader: RunningReplica) -> None:
    leader.catalog.registered = (2, 3)
    code, _ = refusal(lambda: leader.call("Trade", trade("a")))
    assert code is Status.FAILED_PRECONDITION
    assert leader_and_epoch(leader) == (0, 1)


def test_a_trade_waits_while_the_replica_is_promoting(replica: RunningReplica) -> None:
    replica.catalog.registered = (1, 1)
    replica.node.step(lambda machine: machine.stand(1))
    replica.node.step(lambda machine: machine.fence_accepted(1))
    replica.start_pipeline()
    answer = replica.stub.Trade.future(trade("a"), timeout=TIMEOUT_S)
    assert replica.queue.arrivals.acquire(timeout=TIMEOUT_S)
    replica.node.step(lambda machine: machine.caught_up(1))
    assert answer.result().status == 1


def test_a_trade_without_a_decision_in_time_has_an_unknown_outcome(
    replica: RunningReplica,
) -> None:
    replica.lead()  # and its pipeline hangs
    code, _ = refusal(lambda: replica.call("Trade", trade("a"), timeout_s=0.2))
    assert code is Status.DEADLINE_EXCEEDED


def test_a_trade_whose_time_is_over_is_not_sent(replica: RunningReplica) -> None:
    replica.lead()
    refusal(lambda: replica.call("Trade", trade("a"), timeout_s=0.2))
    replica.start_pipeline()
    assert replica.call("Trade", trade("b")).transaction_number == 11
    assert [ids for _, ids, _ in replica.catalog.sent] == [["b"]]


def test_a_trade_without_a_deadline_gets_the_default_one(
    replica: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_DEFAULT_DEADLINE_S", 0.05)
    replica.lead()
    waiting = replica.stub.Trade.future(trade("a"))
    try:
        with pytest.raises(grpc.RpcError) as caught:
            waiting.result(timeout=1)
        assert caught.value.code() is Status.DEADLINE_EXCEEDED
    finally:
        waiting.cancel()


@pytest.mark.parametrize(("age_s", "most"), [(0.0, 5_000), (2.0, 3_000), (9.0, 0)])
def test_the_lease_has_run_on_since_the_catalog_answered(
    leader: RunningReplica, age_s: float, most: int
) -> None:
    leader.catalog.clock = lambda: time.monotonic() - age_s
    lease_ms = leader.call("Trade", trade("a")).lease_ms
    assert max(0, most - LEASE_MS // 2) <= lease_ms <= most


def test_a_stopping_replica_takes_no_trades(leader: RunningReplica) -> None:
    leader.queue.close()
    code, details = refusal(lambda: leader.call("Trade", trade("a")))
    assert (code, details) == (Status.RESOURCE_EXHAUSTED, "stopping")


# ------------------------------------------------------------ TradeBatch


def batch(*requests: bourse_pb2.TradeRequest) -> bourse_pb2.TradeBatchRequest:
    return bourse_pb2.TradeBatchRequest(trades=requests)


def test_trades_that_come_together_are_decided_together(leader: RunningReplica) -> None:
    answer = leader.call("TradeBatch", batch(trade("a"), trade("b"), trade("c", quantity=5_000)))
    assert answer.replica_id == 1
    responses = [outcome.response for outcome in answer.outcomes]
    assert [(one.status, one.transaction_number) for one in responses] == [
        (1, 11),
        (1, 12),
        (0, -1),
    ]
    assert [ids for _, ids, _ in leader.catalog.sent] == [["a", "b", "c"]]


def test_each_of_a_batch_is_answered_as_if_it_were_alone(leader: RunningReplica) -> None:
    requests = [trade("a"), *INVALID.values(), trade("a"), trade("a", quantity=2), trade("b")]
    outcomes = leader.call("TradeBatch", batch(*requests)).outcomes
    assert len(outcomes) == len(requests)
    first, *invalid, again, another, last = outcomes
    assert first.response.transaction_number == 11
    no_such_trade = bourse_pb2.TradeResponse(status=-1, transaction_number=-1, replica_id=1)
    assert [one.response for one in invalid] == [no_such_trade] * len(INVALID)
    assert (again.response.transaction_number, again.response.replayed) == (11, True)
    assert another.WhichOneof("outcome") == "failure"
    assert another.failure.grpc_status == Status.ALREADY_EXISTS.value[0]
    assert last.response.transaction_number == 12


def test_a_batch_of_nothing_and_of_nothing_well_formed(replica: RunningReplica) -> None:
    assert list(replica.call("TradeBatch", batch()).outcomes) == []
    (only,) = replica.call("TradeBatch", batch(trade("a", quantity=0))).outcomes
    assert only.response.status == -1


def test_a_batch_has_a_bound(leader: RunningReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader.queue, "_capacity", MAX_TRADES_PER_CALL)
    most = [trade(f"key-{number}") for number in range(MAX_TRADES_PER_CALL)]
    assert len(leader.call("TradeBatch", batch(*most)).outcomes) == MAX_TRADES_PER_CALL
    code, details = refusal(lambda: leader.call("TradeBatch", batch(*most, trade("one more"))))
    assert (code, details) == (Status.INVALID_ARGUMENT, "more than 64 trades in one call")
    assert leader.log.last_number == 10 + MAX_TRADES_PER_CALL


def test_a_follower_takes_no_batch(replica: RunningReplica) -> None:
    code, details = refusal(lambda: replica.call("TradeBatch", batch(trade("a"), trade("b"))))
    assert (code, details) == (Status.FAILED_PRECONDITION, "replica 1 is not the leader")
    assert not replica.queue.arrivals.acquire(blocking=False)


def test_a_batch_that_the_queue_cannot_hold_is_refused_whole(
    replica: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica.lead()
    monkeypatch.setattr(replica.queue, "_capacity", 2)
    code, _ = refusal(lambda: replica.call("TradeBatch", batch(trade("a"), trade("b"), trade("c"))))
    assert code is Status.RESOURCE_EXHAUSTED
    assert replica.queue.take_batch() == []


def test_a_batch_without_decisions_in_time_has_unknown_outcomes(replica: RunningReplica) -> None:
    replica.lead()  # and its pipeline hangs
    answer = replica.call("TradeBatch", batch(trade("a"), trade("b")), timeout_s=0.5)
    statuses = [outcome.failure.grpc_status for outcome in answer.outcomes]
    assert statuses == [Status.DEADLINE_EXCEEDED.value[0]] * 2


# ------------------------------------------------------------ Trades


def told(replica: RunningReplica, *batches: bourse_pb2.TradeBatchRequest) -> Iterator[Any]:
    """The answers to batches that are sent over one stream."""
    for one in batches:
        one.timeout_ms = one.timeout_ms or round(TIMEOUT_S * 1000)
    answers: Iterator[Any] = replica.stub.Trades(iter(batches), timeout=TIMEOUT_S)
    return answers


def test_a_stream_answers_each_of_its_batches(leader: RunningReplica) -> None:
    batches = [batch(trade("a"), trade("b")), batch(), batch(trade("a", quantity=0), trade("c"))]
    numbers = [
        [outcome.response.transaction_number for outcome in answer.outcomes]
        for answer in told(leader, *batches)
    ]
    assert numbers == [[11, 12], [], [-1, 13]]


def test_a_stream_ends_with_the_status_of_the_call(replica: RunningReplica) -> None:
    code, details = refusal(lambda: next(told(replica, batch(trade("a")))))
    assert (code, details) == (Status.FAILED_PRECONDITION, "replica 1 is not the leader")
    replica.lead()
    replica.start_pipeline()
    too_many = batch(*[trade(f"key-{number}") for number in range(MAX_TRADES_PER_CALL + 1)])
    answers = told(replica, batch(trade("a")), too_many, batch(trade("b")))
    assert len(next(answers).outcomes) == 1
    code, details = refusal(lambda: next(answers))
    assert (code, details) == (Status.INVALID_ARGUMENT, "more than 64 trades in one call")
    assert replica.log.last_number == 11


@pytest.mark.parametrize("timeout_ms", [50, -(2**63)])
def test_each_batch_of_a_stream_has_a_time_limit_of_its_own(
    replica: RunningReplica, timeout_ms: int
) -> None:
    replica.lead()  # and its pipeline hangs
    hasty = batch(trade("a"), trade("b"))
    hasty.timeout_ms = timeout_ms
    (answer,) = told(replica, hasty)
    statuses = [outcome.failure.grpc_status for outcome in answer.outcomes]
    assert statuses == [Status.DEADLINE_EXCEEDED.value[0]] * 2


def test_no_batch_of_a_stream_keeps_its_thread_for_ever(
    replica: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_DEFAULT_DEADLINE_S", 0.1)
    replica.lead()
    patient = batch(trade("a"))
    patient.timeout_ms = 2**63 - 1
    (answer,) = told(replica, patient)
    assert answer.outcomes[0].failure.grpc_status == Status.DEADLINE_EXCEEDED.value[0]


def test_what_a_stream_logs_has_the_id_of_the_batchs_first_trade(
    leader: RunningReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []
    view = leader.node.view

    def noting() -> Any:
        if threading.current_thread().name.startswith("rpc"):
            ids.append(logs.request_id.get())
        return view()

    monkeypatch.setattr(leader.node, "view", noting)
    batches = [batch(trade("a"), trade("b")), batch(trade("x" * 10_000), trade("c")), batch()]
    assert len(list(told(leader, *batches))) == 3
    assert ids == ["a", "x" * 255]


# ------------------------------------------------------------ defects


def test_a_defect_is_told_to_nobody_but_the_log(
    leader: RunningReplica, caplog: pytest.LogCaptureFixture
) -> None:
    leader.catalog.update_script.append(lost(ZeroDivisionError("secret")))
    code, details = refusal(lambda: leader.call("Trade", trade("a")))
    assert code is Status.DEADLINE_EXCEEDED
    assert "secret" not in details
    assert "ZeroDivisionError" in caplog.text
    assert leader.node.view().role is Role.FOLLOWER


def test_a_contradiction_between_catalog_and_log_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    with running_replica(tmp_path, ROWS[:10], catalog=FakeCatalog(ROWS[:9])) as replica:
        replica.lead()
        replica.start_pipeline()
        code, _ = refusal(lambda: replica.call("Trade", trade("a")))
        assert code is Status.DEADLINE_EXCEEDED
        (denial,) = replica.identity.denials
        assert "row 10 is not the one in the log" in denial
        assert replica.halted == []
