"""Many trades at once while leaders change, answers are late or lost and calls fail, at random.

Whatever happens, each trade ends in time, with its own decision or an error that is true of it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from common.domain import BUY, Trade
from common.errors import (
    BourseError,
    Busy,
    Internal,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
    number_of,
)
from common.replicas import ReplicaPeer
from frontend.model import Decision
from frontend.trading.election import Election, Leadership, NoLeader
from frontend.trading.leader import LeaderClient
from proto import bourse_pb2
from tests.support.replica_fakes import PATIENCE_S

THREADS = 8
TRADES = 12  # of each thread
BUDGET_S = 0.25
PATIENCE_FOR_AN_ANSWER_S = 0.01
LONGEST_CALL_S = 0.1


class World:
    """A catalog that decides each request id once, and replicas that lead it as chance has it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - not a secret
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.decided: dict[str, int] = {}  # request id → order number
        self._late: list[str] = []  # copies on their way that nobody waits for any more
        self._peers = {replica_id: Peer(self, replica_id) for replica_id in (1, 2, 3)}
        self._leader = self._leadership(3, 1)

    def choose(self, *options: Any) -> Any:
        with self._lock:
            return self._random.choice(options)

    def execute(self, request_id: str) -> bourse_pb2.TradeOutcome:
        with self._lock:
            number = self.decided.setdefault(request_id, len(self.decided) + 1)
        response = bourse_pb2.TradeResponse(status=1, transaction_number=number)
        return bourse_pb2.TradeOutcome(response=response)

    def execute_later(self, request_id: str) -> None:
        with self._lock:
            self._late.append(request_id)

    def pause(self, duration_s: float) -> None:
        self._ended.wait(duration_s)

    def end(self) -> None:
        """Every copy that is still on its way arrives."""
        self._ended.set()
        for request_id in self._late:
            self.execute(request_id)

    # ------------------------------------------------------------ as the election

    def find(
        self, failed: Leadership | None, give_up_at: float, *, is_gone: bool = False
    ) -> Leadership:
        event = self.choose("stays", "stays", "stays", "changes", "nobody", "again")
        if event == "nobody":
            raise NoLeader
        with self._lock:
            if self._leader is not failed:
                return self._leader
            replica_id, epoch = self._leader.peer.replica_id, self._leader.epoch
            if event != "stays":
                epoch += 1
            if event == "changes":
                replica_id = replica_id % 3 + 1
            self._leader = self._leadership(replica_id, epoch)
            return self._leader

    def _leadership(self, replica_id: int, epoch: int) -> Leadership:
        return Leadership(cast(ReplicaPeer, self._peers[replica_id]), epoch)


class Peer:
    """Answers calls of trades, wrongly, late or never."""

    def __init__(self, world: World, replica_id: int) -> None:
        self.replica_id = replica_id
        self._world = world
        self._calls: tuple[Callable[[list[str], float], Any], ...] = (
            self._decides,
            self._decides,
            self._decides_slowly,
            self._answers_each,
            self._is_silent,
            self._dies,
            self._refuses,
            self._breaks,
            self._answers_too_few,
        )

    def conversation(self, stream: str, method: str) -> Any:
        assert (stream, method) == ("Trades", "TradeBatch")
        return self

    def close(self) -> None:
        pass

    def ask(self, request: Any, timeout_s: float) -> Any:
        assert 0 < timeout_s <= LONGEST_CALL_S
        return self._world.choose(*self._calls)(
            [one.request_id for one in request.trades], timeout_s
        )

    def _decides(self, request_ids: list[str], _timeout_s: float) -> Any:
        return _batch(self._world.execute(one) for one in request_ids)

    def _decides_slowly(self, request_ids: list[str], timeout_s: float) -> Any:
        self._world.pause(self._world.choose(0.2, 0.5, 0.9) * timeout_s)
        return self._decides(request_ids, timeout_s)

    def _answers_each(self, request_ids: list[str], _timeout_s: float) -> Any:
        return _batch(self._answer(one) for one in request_ids)

    def _answer(self, request_id: str) -> bourse_pb2.TradeOutcome:
        kind = self._world.choose(None, NotLeader, Busy, Internal, OutcomeUnknown)
        if kind is None:
            return self._world.execute(request_id)
        if kind is OutcomeUnknown:
            self._may_execute(request_id)
        failure = bourse_pb2.TradeFailure(grpc_status=number_of(kind.grpc_status))
        return bourse_pb2.TradeOutcome(failure=failure)

    def _is_silent(self, request_ids: list[str], timeout_s: float) -> Any:
        self._world.pause(timeout_s)
        self._may_execute(*request_ids)
        raise OutcomeUnknown

    def _dies(self, request_ids: list[str], _timeout_s: float) -> Any:
        self._may_execute(*request_ids)
        raise Unavailable

    def _refuses(self, _request_ids: list[str], _timeout_s: float) -> Any:
        raise self._world.choose(NotLeader, Busy)

    def _breaks(self, request_ids: list[str], _timeout_s: float) -> Any:
        self._may_execute(*request_ids)
        raise self._world.choose(ZeroDivisionError, Internal)

    def _answers_too_few(self, request_ids: list[str], timeout_s: float) -> Any:
        answer = self._decides(request_ids, timeout_s)
        del answer.outcomes[-1]
        return answer

    def _may_execute(self, *request_ids: str) -> None:
        for one in request_ids:
            self._world.choose(lambda _: None, self._world.execute, self._world.execute_later)(one)


def _batch(outcomes: Iterator[bourse_pb2.TradeOutcome]) -> bourse_pb2.TradeBatchResponse:
    return bourse_pb2.TradeBatchResponse(outcomes=outcomes)


@pytest.mark.parametrize("seed", range(5))
def test_each_trade_ends_in_time_with_what_is_true_of_it(seed: int) -> None:
    world = World(seed)
    client = LeaderClient(
        cast(Election, world),
        PATIENCE_FOR_AN_ANSWER_S,
        BUDGET_S,
        pause=world.pause,
        longest_call_s=LONGEST_CALL_S,
    )

    def trade_all(thread: int) -> dict[str, Decision | BourseError]:
        return {key: outcome_of(client, key) for key in keys_of(thread)}

    with ThreadPoolExecutor(THREADS) as executor:
        trading = [executor.submit(trade_all, thread) for thread in range(THREADS)]
        outcomes = {
            key: told
            for one in trading
            for key, told in one.result(PATIENCE_S + TRADES * BUDGET_S).items()
        }
    client.close()
    world.end()
    assert len(outcomes) == THREADS * TRADES
    assert any(isinstance(told, Decision) for told in outcomes.values())
    for key, told in outcomes.items():
        if isinstance(told, Decision):
            assert told.number == world.decided[key]
        elif not isinstance(told, OutcomeUnknown):
            assert type(told) in (Internal, Unavailable)
            assert key not in world.decided


def keys_of(thread: int) -> list[str]:
    return [f"{thread}-{number}" for number in range(TRADES)]


def outcome_of(client: LeaderClient, key: str) -> Decision | BourseError:
    # Some come with most of their time gone.
    elapsed_s = 0.0 if key.endswith(("0", "2", "4")) else 0.6 * BUDGET_S
    try:
        return client.decide(Trade(key, "stock1", BUY, 1), time.monotonic() - elapsed_s)
    except BourseError as error:
        return error
