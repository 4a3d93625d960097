"""A walk through the API: each request with what is expected and what is seen."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import TextIO, TypeVar

from client import bad_input
from client.api import (
    INSUFFICIENT_VOLUME,
    ORDER_NOT_FOUND,
    STOCK_NOT_FOUND,
    Answer,
    BourseClient,
    Malformed,
    NoAnswer,
    Quote,
    Request,
    TradeType,
)
from client.expectation import Expectation

_QUANTITY = 2
_LARGEST_QUANTITY = 1_000_000_000
_NUMBER_LIMIT = 2**63
_ANY_CACHE_RESULT = ("MISS", "HIT", "BYPASS")
_T = TypeVar("_T")
_REPLAYED = {"Idempotency-Replayed": ("true",)}


class Demo:
    """`run` it once. It sells before it buys: that works even when nothing is left to buy."""

    def __init__(self, client: BourseClient, stock: str, out: TextIO) -> None:
        self._client = client
        self._stock = stock
        self._out = out
        self._steps = 0
        self._mismatches = 0
        self._sold = 0  # and not yet bought back
        self._in_doubt = 0  # trades that may have been executed or not
        self._orders_at_start = 0
        self._own_orders = 0

    def run(self) -> int:
        """The number of steps that showed something else than they should.

        Raises NoAnswer when the server cannot be reached at the start.
        """
        self._client.connect()
        self._client.hello("demo")
        self._say(f"A walk through the API of {self._client.base}, trading {self._stock}.")
        try:
            self._walk()
        finally:
            self._settle()
        right = self._steps - self._mismatches
        self._say(f"\n{right} of {self._steps} steps were as they should be")
        return self._mismatches

    def _walk(self) -> None:
        self._greet()
        self._orders_at_start = _last_order(self._client)
        quote = self._look_up()
        number, key = self._sell(quote)
        if number is not None:
            self._look_back(number, key)
        if quote is not None:
            self._ask_too_much(quote)
        if number is not None:
            self._buy_back(quote)
        self._ask_for_the_unknown()
        for title, request, expectation in bad_input.cases(self._stock):
            self._step(title, request, expectation)

    def _greet(self) -> None:
        for path, title in [("/healthz", "Is it alive?"), ("/readyz", "Is it able to serve?")]:
            request = Request("GET", path, awaits_recovery=False)
            self._step(title, request, Expectation(HTTPStatus.OK))
        self._step("Hello", Request.hello("user"), Expectation(HTTPStatus.OK, text="Hello, user!"))

    def _look_up(self) -> Quote | None:
        request = Request.lookup(self._stock)
        first = Expectation(
            HTTPStatus.OK,
            data={"name": self._stock},
            form=Answer.quote,
            headers={"X-Cache": _ANY_CACHE_RESULT},
            note="MISS, or HIT if someone just asked; BYPASS without Redis",
        )
        self._step("Look a stock up", request, first)
        again = Expectation(
            HTTPStatus.OK,
            data={"name": self._stock},
            form=Answer.quote,
            headers={"X-Cache": ("HIT", "BYPASS")},
            note="the cache has it now",
        )
        # Between two lookups the entry can expire, or a trade can remove it, but not every time.
        answer = self._step("Look it up again", request, again, tries=3)
        return _read(Answer.quote, answer)

    def _sell(self, quote: Quote | None) -> tuple[int | None, str]:
        """The order's number, if it was executed, and its key."""
        key = str(uuid.uuid4())
        number = self._trade("Sell, under a fresh key", TradeType.SELL, key)
        if quote is not None and number is not None:
            self._see_quantity("The next lookup shows it", quote.quantity + _QUANTITY)
        return number, key

    def _look_back(self, number: int, key: str) -> None:
        found = {
            "number": number,
            "name": self._stock,
            "type": "SELL",
            "quantity": _QUANTITY,
        }
        self._step(
            "Look the order up", Request.order(number), Expectation(HTTPStatus.OK, data=found)
        )
        same = Expectation(
            HTTPStatus.OK,
            data={"transaction_number": number},
            headers=_REPLAYED,
            note="executed once: the same number",
        )
        for title, sent_key in [("bare", key), ("in quotes", f'"{key}"')]:
            repeat = Request.trade(self._stock, _QUANTITY, "SELL", sent_key)
            self._step(f"The same trade under the same key, {title}", repeat, same)
        other = Request.trade(self._stock, _QUANTITY + 1, "SELL", key)
        self._step(
            "Another trade under that key", other, Expectation(HTTPStatus.UNPROCESSABLE_ENTITY)
        )

    def _ask_too_much(self, quote: Quote) -> None:
        if quote.quantity >= _LARGEST_QUANTITY:
            self._say(f"\nskipped: no trade is too large for {quote.quantity} of {quote.name}")
            return
        refused = Expectation(HTTPStatus.NOT_FOUND, message=INSUFFICIENT_VOLUME)
        request = Request.trade(self._stock, _LARGEST_QUANTITY, "BUY", str(uuid.uuid4()))
        self._step("Buy more than there is", request, refused)
        refused = Expectation(HTTPStatus.NOT_FOUND, message=INSUFFICIENT_VOLUME, headers=_REPLAYED)
        self._step("The same again: a refusal is for good", request, refused)

    def _buy_back(self, quote: Quote | None) -> None:
        number = self._trade("Buy it back, without a key", TradeType.BUY, key=None)
        if quote is not None and number is not None:
            self._see_quantity("The next lookup shows the old quantity", quote.quantity)

    def _ask_for_the_unknown(self) -> None:
        name = f"nobody-{uuid.uuid4().hex[:8]}"
        unknown = Expectation(HTTPStatus.NOT_FOUND, message=STOCK_NOT_FOUND)
        self._step("Look an unknown stock up", Request.lookup(name), unknown)
        trade = Request.trade(name, 1, "BUY", str(uuid.uuid4()))
        self._step("Trade an unknown stock", trade, unknown)
        unknown = Expectation(HTTPStatus.NOT_FOUND, message=ORDER_NOT_FOUND)
        self._step("Look an unknown order up", Request.order(2**62), unknown)

    def _trade(self, title: str, type: TradeType, key: str | None) -> int | None:
        """The order's number, or None if there is none to be seen."""
        request = Request.trade(self._stock, _QUANTITY, type, key)
        expectation = Expectation(
            HTTPStatus.OK,
            form=Answer.order_number,
            headers={"Location": ()},
            note="the order's number",
        )
        self._in_doubt += 1
        answer = self._step(title, request, expectation)
        if answer is None or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return None
        self._in_doubt -= 1
        if answer.status == HTTPStatus.OK:
            self._sold += _QUANTITY if type is TradeType.SELL else -_QUANTITY
            self._own_orders += 1
        return _read(Answer.order_number, answer)

    def _see_quantity(self, title: str, quantity: int) -> None:
        expectation = Expectation(
            HTTPStatus.OK,
            data={"name": self._stock, "quantity": quantity},
            headers={"X-Cache": _ANY_CACHE_RESULT},
            note="never an older quantity",
        )
        request = Request.lookup(self._stock)
        self._step(title, request, expectation, excuse=self._others_traded)

    def _others_traded(self) -> str | None:
        """Numbers have no gaps: what is more than our own orders came from others."""
        others = _last_order(self._client) - self._orders_at_start - self._own_orders
        return f"others made {others} orders meanwhile" if others > 0 else None

    def _step(
        self,
        title: str,
        request: Request,
        expectation: Expectation,
        *,
        tries: int = 1,
        excuse: Callable[[], str | None] = lambda: None,
    ) -> Answer | None:
        """The answer, or None if there was none."""
        self._steps += 1
        self._say(f"\n{self._steps}. {title}\n   request   {request}")
        self._say(f"   expected  {expectation}")
        try:
            answer = self._client.send(request)
            for _ in range(tries - 1):
                if expectation.differences(answer):
                    answer = self._client.send(request)
        except NoAnswer as error:
            self._verdict([f"no answer: {error}"])
            return None
        headers = [f"{name}: {answer.headers.get(name)}" for name in expectation.headers]
        self._say("   seen      " + "  ".join([str(answer), *headers, _ms(answer)]))
        differences = expectation.differences(answer)
        excused = excuse() if differences else None
        if excused is not None:
            self._say(f"   ok        (cannot be compared: {excused})")
        else:
            self._verdict(differences)
        return answer

    def _verdict(self, differences: list[str]) -> None:
        self._mismatches += bool(differences)
        self._say("   MISMATCH  " + "; ".join(differences) if differences else "   ok")

    def _settle(self) -> None:
        """Restores the quantity as it was, as far as the outcomes are known."""
        if self._in_doubt:
            self._say("\nwhether a trade was executed is unknown: the books are left as they are")
        elif self._sold:
            type = TradeType.BUY if self._sold > 0 else TradeType.SELL
            key = str(uuid.uuid4())
            try:
                answer = self._client.trade(self._stock, abs(self._sold), type, key)
            except NoAnswer as error:
                self._say(f"\n{self._sold} of {self._stock} stay sold: {error}")
            else:
                self._say(f"\nto leave the books as they were: {type} {self._sold}: {answer}")

    def _say(self, text: str) -> None:
        print(text, file=self._out)


def _read(read: Callable[[Answer], _T], answer: Answer | None) -> _T | None:
    """What the answer holds, or None if it holds no such thing; then the step said so."""
    try:
        return None if answer is None else read(answer)
    except Malformed:
        return None


def _ms(answer: Answer) -> str:
    return f"({answer.latency_s * 1000:.1f} ms)"


def _last_order(client: BourseClient) -> int:
    """The highest order number there is, 0 if there is none. Raises NoAnswer.

    It searches by doubling and halving, because numbers start at 1 and have no gaps.
    """
    above = 1
    while above < _NUMBER_LIMIT and client.order(above).status == HTTPStatus.OK:
        above *= 2
    last = above // 2
    while above - last > 1:
        middle = (last + above) // 2
        if client.order(middle).status == HTTPStatus.OK:
            last = middle
        else:
            above = middle
    return last
