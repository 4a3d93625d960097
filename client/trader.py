"""One client of a session: looks stocks up, trades now and then, and checks every answer."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event

from client import answers, requests
from client.answers import Answer, Malformed, Order, Quote
from client.api import BourseClient
from client.books import NEVER_S, Move, SeenQuantity
from client.checks import OwnOrder
from client.connection import NoAnswer
from client.latency import LatencyRecorder
from client.requests import Request, TradeType

_LARGEST_TRADE = 10
_CACHE_RESULTS = frozenset({"HIT", "MISS", "BYPASS"})
# A server that left so many requests in a row unanswered, each repeated to its bound, is gone.
_FAILURES_TO_GIVE_UP = 3


class Kind(StrEnum):
    LOOKUP = "lookup"
    TRADE = "trade"
    ORDER = "order lookup"


@dataclass(frozen=True, slots=True)
class Plan:
    """What each client of a session does. `alone`: nobody else trades there meanwhile."""

    requests: int
    probability: float
    stocks: tuple[str, ...]
    alone: bool = False


@dataclass(slots=True)
class Findings:
    """What one client did and saw."""

    latencies: dict[Kind, LatencyRecorder] = field(
        default_factory=lambda: {kind: LatencyRecorder() for kind in Kind}
    )
    orders: list[OwnOrder] = field(default_factory=list)
    # For the books, and only kept if they can be checked.
    moves: list[Move] = field(default_factory=list)
    quantities: list[SeenQuantity] = field(default_factory=list)
    cache: Counter[str] = field(default_factory=Counter)  # lookups by X-Cache
    refused: int = 0  # trades, for insufficient volume
    verified: int = 0  # orders
    failures: list[str] = field(default_factory=list)  # requests without a right answer
    mismatches: list[str] = field(default_factory=list)  # answers that contradict the API

    def add(self, other: Findings) -> None:
        for kind, recorder in other.latencies.items():
            self.latencies[kind].add(recorder)
        self.orders += other.orders
        self.moves += other.moves
        self.quantities += other.quantities
        self.cache.update(other.cache)
        self.refused += other.refused
        self.verified += other.verified
        self.failures += other.failures
        self.mismatches += other.mismatches


class Trader:
    """Runs in one thread. `elapsed_s` is the session's clock; `stopping` ends `trade` early."""

    def __init__(
        self,
        *,
        number: int,
        client: BourseClient,
        plan: Plan,
        chance: random.Random,
        elapsed_s: Callable[[], float],
        stopping: Event,
    ) -> None:
        self.findings = Findings()
        self.rounds_done = 0
        self.orders_checked = 0
        self._number = number
        self._client = client
        self._plan = plan
        self._chance = chance
        self._elapsed_s = elapsed_s
        self._stopping = stopping
        self._failures_in_a_row = 0
        self._exists: dict[str, bool] = {}

    def trade(self) -> None:
        """The session: every round a lookup and, by chance, a trade."""
        for _ in range(self._plan.requests):
            if self._stopping.is_set() or self._gives_up():
                return
            self._round()
            self.rounds_done += 1

    def verify(self) -> None:
        """Looks every order up that was made here."""
        self._failures_in_a_row = 0
        for own in self.findings.orders:
            if self._gives_up():
                return
            self._verify_order(own)
            self.orders_checked += 1

    def lookup(self, name: str) -> Quote | None:
        """The stock, or None if it was not to be had."""
        began_at_s = self._elapsed_s()
        answer = self._ask(Kind.LOOKUP, requests.lookup(name))
        if answer is None or not self._check_existence(name, answer):
            return None
        self._check_cache_header(name, answer)
        try:
            quote = answers.quote(answer)
        except Malformed as error:
            self._mismatch(f"lookup of {name}: {error}")
            return None
        if quote.name != name:
            self._mismatch(f"lookup of {name} answered for {quote.name}")
            return None
        if self._plan.alone:
            seen = SeenQuantity(name, quote.quantity, began_at_s, self._elapsed_s())
            self.findings.quantities.append(seen)
        return quote

    def _round(self) -> None:
        # Every draw is made each time: what one client tries depends on the seed alone.
        name = self._chance.choice(self._plan.stocks)
        trades = self._chance.random() < self._plan.probability
        type = self._chance.choice(list(TradeType))
        quantity = self._chance.randint(1, _LARGEST_TRADE)
        quote = self.lookup(name)
        if quote is not None and trades:
            self._trade(name, quantity, type if quote.quantity > 0 else TradeType.SELL)

    def _trade(self, name: str, quantity: int, type: TradeType) -> None:
        key = str(uuid.uuid4())  # never of the seed: another run's keys are taken
        began_at_s = self._elapsed_s()
        answer = self._ask(Kind.TRADE, requests.trade(name, quantity, type, key))
        if answer is not None and _is_refused(answer):
            self.findings.refused += 1
            return
        settled_at_s = NEVER_S
        number = None
        if answer is not None:
            number = self._order_number(answer, f"{type} {quantity} {name} under key {key}")
        if number is not None:
            settled_at_s = self._elapsed_s()
            order = Order(number, name, type, quantity)
            own = OwnOrder(order, self._number, key, began_at_s, settled_at_s)
            self.findings.orders.append(own)
        if self._plan.alone:
            change = -quantity if type is TradeType.BUY else quantity
            self.findings.moves.append(Move(name, change, began_at_s, settled_at_s))

    def _order_number(self, answer: Answer, trade: str) -> int | None:
        try:
            return answers.order_number(answer)
        except Malformed as error:
            self._mismatch(f"{trade}: {error}")
            return None

    def _verify_order(self, own: OwnOrder) -> None:
        answer = self._ask(Kind.ORDER, requests.order(own.order.number))
        if answer is None:
            return
        try:
            seen = answers.order(answer)
        except Malformed as error:
            self._mismatch(f"{own} is answered with {error}")
            return
        if seen == own.order:
            self.findings.verified += 1
        else:
            self._mismatch(f"{own} is answered with {seen}")

    def _ask(self, kind: Kind, request: Request) -> Answer | None:
        """The answer, or None if there is no right one; then the failure is noted."""
        began_at_s = self._elapsed_s()
        try:
            answer = self._client.send(request)
        except NoAnswer as error:
            self._failure(began_at_s, str(error))
            return None
        self.findings.latencies[kind].record(began_at_s, answer.latency_s)
        if answer.status not in (200, 404):
            self._failure(began_at_s, f"{request}: {answer}")
            return None
        self._failures_in_a_row = 0
        return answer

    def _check_existence(self, name: str, answer: Answer) -> bool:
        """Whether the stock is there. Stocks neither come nor go."""
        exists = answer.status == 200
        if not exists and answer.error_message != answers.STOCK_NOT_FOUND:
            self._mismatch(f"lookup of {name}: {answer}")
        elif self._exists.setdefault(name, exists) != exists:
            self._mismatch(f"lookup of {name}, which was {'not ' * exists}there before: {answer}")
        return exists

    def _check_cache_header(self, name: str, answer: Answer) -> None:
        result = answer.headers.get("X-Cache", "")
        if result in _CACHE_RESULTS:
            self.findings.cache[result] += 1
        else:
            self._mismatch(f"lookup of {name}: X-Cache is {result!r}")

    def _gives_up(self) -> bool:
        if self._failures_in_a_row < _FAILURES_TO_GIVE_UP:
            return False
        self._failure(self._elapsed_s(), "gives up, the rest of its requests is not made")
        return True

    def _failure(self, at_s: float, detail: str) -> None:
        self._failures_in_a_row += 1
        self.findings.failures.append(f"client {self._number} at +{at_s:.1f} s: {detail}")

    def _mismatch(self, detail: str) -> None:
        at_s = self._elapsed_s()
        self.findings.mismatches.append(f"client {self._number} at +{at_s:.1f} s: {detail}")


def _is_refused(answer: Answer) -> bool:
    return answer.status == 404 and answer.error_message == answers.INSUFFICIENT_VOLUME
