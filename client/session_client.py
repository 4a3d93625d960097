"""One client of a session: looks stocks up, trades now and then, and checks every answer."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event

from client.api import (
    INSUFFICIENT_VOLUME,
    STOCK_NOT_FOUND,
    Answer,
    BourseClient,
    Malformed,
    NoAnswer,
    Order,
    Quote,
    Request,
    TradeType,
)
from client.checks import NEVER_S, Move, OwnOrder, SeenQuantity
from client.tally import Kind, Tally

_LARGEST_TRADE = 10
_RIGHT = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
_CACHE_RESULTS = frozenset({"HIT", "MISS", "BYPASS"})
# When so many requests in a row get no answer, each with all its repeats, the server is gone.
_FAILURES_TO_GIVE_UP = 3


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """`alone`: nobody else trades on these stocks meanwhile."""

    clients: int
    requests: int  # lookups of each client
    probability: float  # of a trade after a lookup
    stocks: tuple[str, ...]
    seed: int
    alone: bool = False


class SessionClient:
    """Runs in one thread. `elapsed_s` is the session's clock; `stopping` ends `trade` early."""

    def __init__(
        self,
        *,
        number: int,
        client: BourseClient,
        settings: SessionSettings,
        chance: random.Random,
        elapsed_s: Callable[[], float],
        stopping: Event,
    ) -> None:
        self.tally = Tally()
        self.rounds_done = 0
        self.orders_checked = 0
        self._number = number
        self._client = client
        self._settings = settings
        self._chance = chance
        self._elapsed_s = elapsed_s
        self._stopping = stopping
        self._failures_in_a_row = 0
        self._exists: dict[str, bool] = {}

    def trade(self) -> None:
        """The session: every round a lookup and, by chance, a trade."""
        for _ in range(self._settings.requests):
            if self._stopping.is_set() or self._gives_up():
                return
            self._round()
            self.rounds_done += 1

    def verify(self) -> None:
        """Looks every order up that was made here."""
        self._failures_in_a_row = 0
        for own in self.tally.orders:
            if self._gives_up():
                return
            self._verify_order(own)
            self.orders_checked += 1

    def lookup(self, name: str) -> Quote | None:
        """The stock, or None if it was not to be had."""
        began_at_s = self._elapsed_s()
        answer = self._ask(Kind.LOOKUP, Request.lookup(name))
        if answer is None or not self._check_existence(name, answer):
            return None
        self._check_cache_header(name, answer)
        try:
            quote = answer.quote()
        except Malformed as error:
            self._mismatch(f"lookup of {name}: {error}")
            return None
        if quote.name != name:
            self._mismatch(f"lookup of {name} answered for {quote.name}")
            return None
        if self._settings.alone:
            seen = SeenQuantity(name, quote.quantity, began_at_s, self._elapsed_s())
            self.tally.quantities.append(seen)
        return quote

    def _round(self) -> None:
        # Every random number is drawn each time, so that the trades depend on the seed alone.
        name = self._chance.choice(self._settings.stocks)
        trades = self._chance.random() < self._settings.probability
        type = self._chance.choice(list(TradeType))
        quantity = self._chance.randint(1, _LARGEST_TRADE)
        quote = self.lookup(name)
        if quote is not None and trades:
            self._trade(name, quantity, type if quote.quantity > 0 else TradeType.SELL)

    def _trade(self, name: str, quantity: int, type: TradeType) -> None:
        key = str(uuid.uuid4())  # never of the seed: another run's keys are taken
        began_at_s = self._elapsed_s()
        answer = self._ask(Kind.TRADE, Request.trade(name, quantity, type, key))
        if answer is not None and _is_refused(answer):
            self.tally.refused += 1
            return
        settled_at_s = NEVER_S
        number = None
        if answer is not None:
            number = self._order_number(answer, f"{type} {quantity} {name} under key {key}")
        if number is not None:
            settled_at_s = self._elapsed_s()
            order = Order(number, name, type, quantity)
            own = OwnOrder(order, self._number, key, began_at_s, settled_at_s)
            self.tally.orders.append(own)
        if self._settings.alone:
            change = -quantity if type is TradeType.BUY else quantity
            self.tally.moves.append(Move(name, change, began_at_s, settled_at_s))

    def _order_number(self, answer: Answer, trade: str) -> int | None:
        try:
            return answer.order_number()
        except Malformed as error:
            self._mismatch(f"{trade}: {error}")
            return None

    def _verify_order(self, own: OwnOrder) -> None:
        answer = self._ask(Kind.ORDER, Request.order(own.order.number))
        if answer is None:
            return
        try:
            seen = answer.order()
        except Malformed as error:
            self._mismatch(f"{own} is answered with {error}")
            return
        if seen == own.order:
            self.tally.verified += 1
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
        self.tally.latencies[kind].record(began_at_s, answer.latency_s)
        if answer.status not in _RIGHT:
            self._failure(began_at_s, f"{request}: {answer}")
            return None
        self._failures_in_a_row = 0
        return answer

    def _check_existence(self, name: str, answer: Answer) -> bool:
        """Whether the stock is there. Stocks neither come nor go."""
        exists = answer.status == HTTPStatus.OK
        if not exists and answer.error_message != STOCK_NOT_FOUND:
            self._mismatch(f"lookup of {name}: {answer}")
        elif self._exists.setdefault(name, exists) != exists:
            self._mismatch(f"lookup of {name}, which was {'not ' * exists}there before: {answer}")
        return exists

    def _check_cache_header(self, name: str, answer: Answer) -> None:
        result = answer.headers.get("X-Cache", "")
        if result in _CACHE_RESULTS:
            self.tally.cache[result] += 1
        else:
            self._mismatch(f"lookup of {name}: X-Cache is {result!r}")

    def _gives_up(self) -> bool:
        if self._failures_in_a_row < _FAILURES_TO_GIVE_UP:
            return False
        self._failure(self._elapsed_s(), "gives up, the rest of its requests is not made")
        return True

    def _failure(self, at_s: float, detail: str) -> None:
        self._failures_in_a_row += 1
        self.tally.failures.append(f"client {self._number} at +{at_s:.1f} s: {detail}")

    def _mismatch(self, detail: str) -> None:
        at_s = self._elapsed_s()
        self.tally.mismatches.append(f"client {self._number} at +{at_s:.1f} s: {detail}")


def _is_refused(answer: Answer) -> bool:
    return answer.status == HTTPStatus.NOT_FOUND and answer.error_message == INSUFFICIENT_VOLUME
