"""Parts of an order replica for tests: rows, a catalog without a network, log and state machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.domain import BUY, EMPTY_DIGEST, Order, Trade, next_digest
from common.errors import BourseError, Contradiction, KeyReused, StaleEpoch
from common.pulls import Rows
from order.leadership.node import Node
from order.leadership.replica import Replica
from order.log.ledger import Ledger
from order.log.log import OrderLog
from order.trading.catalog_client import Decided, FenceAnswer, Result
from order.trading.queue import PendingTrade, TradeAnswer

CLUSTER = "b1946ac9-2f5c-4b58-9d0e-6a3f1c0e7d11"
OTHER_CLUSTER = "0cc175b9-c0f1-46b6-831c-399e26977266"
TIMEOUT_S = 10.0
LEASE_MS = 5_000
NEVER = float("inf")


# ------------------------------------------------------------ rows and trades


def chained(rows: Iterable[Order], after: bytes = EMPTY_DIGEST) -> list[Order]:
    """The same rows, each with the right digest of the chain."""
    sealed = []
    for row in rows:
        after = next_digest(after, row)
        sealed.append(replace(row, digest=after))
    return sealed


def make_rows(count: int, after: Sequence[Order] = (), epoch: int = 1) -> list[Order]:
    """Makes `count` rows that follow the last row of `after`."""
    last = after[-1] if after else Order(0, "", "", BUY, 0, 0, 0, EMPTY_DIGEST)
    rows = [
        Order(number, f"request-{number}", f"stock{number % 3}", BUY, number, number, epoch)
        for number in range(last.number + 1, last.number + 1 + count)
    ]
    return chained(rows, last.digest)


def numbers(rows: Iterable[Order]) -> list[int]:
    return [row.number for row in rows]


def make_trade(request_id: str, name: str = "stock1", quantity: int = 1) -> Trade:
    return Trade(request_id, name, BUY, quantity)


def make_pending(request_id: str, name: str = "stock1", quantity: int = 1) -> PendingTrade:
    return PendingTrade(make_trade(request_id, name, quantity), NEVER)


def outcome(pending: PendingTrade) -> TradeAnswer | BourseError:
    """What the caller of a trade got. Fails the test if there is no answer."""
    assert pending.outcome.done(), f"{pending.trade.request_id} was left without an answer"
    return pending.outcome.result()


# ------------------------------------------------------------ the catalog

# A fault of one call. It gets the function that executes the call, and returns or raises what the
# caller sees.
Misfortune = Callable[[Callable[[], Any]], Any]


def lost(error: BaseException) -> Misfortune:
    """The call never arrives."""

    def play(execute: Callable[[], Any]) -> Any:
        raise error

    return play


def answer_lost(error: BaseException) -> Misfortune:
    """The call is executed, but its answer never arrives."""

    def play(execute: Callable[[], Any]) -> Any:
        execute()
        raise error

    return play


def meanwhile(event: Callable[[], object]) -> Misfortune:
    """The event happens after the call was executed and before its answer arrives."""

    def play(execute: Callable[[], Any]) -> Any:
        answer = execute()
        event()
        return answer

    return play


def broken_off(chunks: int, error: BaseException) -> Misfortune:
    """Only the first chunks of a stream arrive."""

    def play(execute: Callable[[], Any]) -> Any:
        yield from execute()[:chunks]
        raise error

    return play


class FakeIdentity:
    """Records contradictions."""

    def __init__(self) -> None:
        self.denials: list[str] = []

    def contradicted(self, denial: Contradiction) -> None:
        self.denials.append(denial.message)


class FakeCatalog:
    """A catalog without a network. It decides each request id once, under the registered epoch.

    The stock "nosuch" does not exist. A trade of another stock may be for at most 1,000. The
    scripts give the faults of the next calls. After them, calls succeed.
    """

    def __init__(self, rows: Sequence[Order] = ()) -> None:
        self.rows = list(rows)
        self.cluster_id = CLUSTER
        self.registered = (0, 0)  # epoch, leader
        self.sent: list[tuple[int, list[str], float]] = []  # epoch, request ids, timeout
        self.asked: list[tuple[int, int, float]] = []  # epoch, leader, timeout
        # Of the candidates' logs: last number, digest, cluster.
        self.claimed: list[tuple[int, bytes, str]] = []
        self.pulled_after: list[int] = []
        self.update_script: deque[Misfortune] = deque()
        self.fence_script: deque[Misfortune] = deque()
        self.journal_script: deque[Misfortune] = deque()
        self.chunk = 2
        self.clock: Callable[[], float] = time.monotonic
        self._trades: dict[str, tuple[Trade, Order | int]] = {}  # id -> row, or refusal

    def update_batch(self, epoch: int, trades: Sequence[Trade], timeout_s: float) -> Decided:
        self.sent.append((epoch, [trade.request_id for trade in trades], timeout_s))
        return self._play(self.update_script, lambda: self._decide_all(epoch, trades))

    def fence(
        self,
        epoch: int,
        leader_id: int,
        timeout_s: float,
        last_number: int = 0,
        digest: bytes = b"",
        *,
        cluster_id: str = "",
    ) -> FenceAnswer:
        self.asked.append((epoch, leader_id, timeout_s))
        self.claimed.append((last_number, digest, cluster_id))
        return self._play(self.fence_script, lambda: self._register(epoch, leader_id))

    def journal(self, after: int) -> Iterator[Rows]:
        self.pulled_after.append(after)
        rows = self.rows[after:]
        starts = range(0, len(rows), self.chunk)
        chunks = [Rows(rows[start : start + self.chunk], self.cluster_id) for start in starts]
        yield from self._play(self.journal_script, lambda: chunks)

    def _play(self, script: deque[Misfortune], execute: Callable[[], Any]) -> Any:
        return script.popleft()(execute) if script else execute()

    def _register(self, epoch: int, leader_id: int) -> FenceAnswer:
        accepted = epoch == self.registered[0] + 1
        if accepted:
            self.registered = (epoch, leader_id)
        return FenceAnswer(accepted, *self.registered)

    def _decide_all(self, epoch: int, trades: Sequence[Trade]) -> Decided:
        if epoch != self.registered[0]:
            raise StaleEpoch(f"epoch {self.registered[0]} is registered")
        return Decided([self._decide(epoch, trade) for trade in trades], self.cluster_id)

    def _decide(self, epoch: int, trade: Trade) -> Result:
        known = self._trades.get(trade.request_id)
        if known is not None and known[0] != trade:
            return Result(KeyReused(), None)
        decided = known[1] if known else self._execute(epoch, trade)
        self._trades[trade.request_id] = trade, decided
        row = decided if isinstance(decided, Order) else None
        decision = TradeAnswer(
            status=1 if row else int(decided),  # type: ignore[call-overload]
            number=row.number if row else -1,
            version=row.version if row else 0,
            lease_ms=LEASE_MS,
            decided_at_s=self.clock(),
            replayed=known is not None,
        )
        return Result(decision, row)

    def _execute(self, epoch: int, trade: Trade) -> Order | int:
        if trade.name == "nosuch":
            return -1
        if trade.quantity > 1_000:
            return 0
        number = len(self.rows) + 1
        row = Order(number, trade.request_id, trade.name, trade.type, trade.quantity, number, epoch)
        previous = self.rows[-1].digest if self.rows else EMPTY_DIGEST
        self.rows += chained([row], previous)
        return self.rows[-1]


# ------------------------------------------------------------ a replica's parts


@dataclass
class Parts:
    """The log, the state machine and the ledger of one replica."""

    log: OrderLog
    node: Node
    ledger: Ledger


@contextmanager
def open_parts(directory: Path, rows: Sequence[Order] = (), replica_id: int = 1) -> Iterator[Parts]:
    directory.mkdir(parents=True, exist_ok=True)
    log = OrderLog(directory / "orders.db")
    try:
        if rows:
            log.append(rows)
        node = Node(Replica(replica_id, log.last_number, log.digest))
        yield Parts(log, node, Ledger(log, node))
    finally:
        log.close()


@contextmanager
def refusing_rows(log: OrderLog) -> Iterator[None]:
    """During the block, the disk accepts no rows."""
    log._writer.execute("PRAGMA query_only = 1")
    try:
        yield
    finally:
        log._writer.execute("PRAGMA query_only = 0")


def lead(node: Node, epoch: int) -> None:
    """Makes a follower the leader, as if the fence had accepted it."""
    node.step(lambda replica: replica.stand(epoch))
    node.step(lambda replica: replica.fence_accepted(epoch))
    node.step(lambda replica: replica.caught_up(epoch))
