"""The HTTP interface: each route asks one part, and makes an HTTP answer of what it says.

A route takes the WSGI environment of a request. It returns the answer, or raises an error that
`frontend.http.answers.error_answer` turns into one. Flask calls the routes, and so does the
fast path in front of it.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from common import logs
from common.errors import NotFound, Unavailable
from frontend.http.answers import Answer, data_answer, error_answer, quote_answer, text_answer
from frontend.http.request_start import elapsed_s
from frontend.http.validation import (
    Environ,
    idempotency_key,
    name_parameter,
    order_number_parameter,
    parse_trade,
    read_json_body,
)
from frontend.model import DONE, Decision, Parts

STOCKS_PATH = "/stocks"
ORDERS_PATH = "/orders"

_REFUSALS = {
    0: "Trading not permitted due to insufficient volume",
    -1: "stock not found",
}
_REPLAYED = ("Idempotency-Replayed", "true")

Route = Callable[[Environ], Answer]


class Routes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def table(self) -> dict[tuple[str, str], Route]:
        """The route of each method and path."""
        return {
            ("GET", "/hello"): self.hello,
            ("GET", STOCKS_PATH): self.stock,
            ("POST", ORDERS_PATH): self.trade,
            ("GET", ORDERS_PATH): self.order,
            ("GET", "/healthz"): self.alive,
            ("GET", "/readyz"): self.ready,
        }

    def hello(self, environ: Environ) -> Answer:
        return text_answer(f"Hello, {name_parameter(environ, 'name')}!")

    def stock(self, environ: Environ) -> Answer:
        return quote_answer(*self._parts.quotes.find(name_parameter(environ, "stockname")))

    def trade(self, environ: Environ) -> Answer:
        request_id = idempotency_key(environ.get("HTTP_IDEMPOTENCY_KEY")) or str(uuid4())
        logs.request_id.set(request_id)
        trade = parse_trade(read_json_body(environ), request_id)
        return _trade_answer(self._parts.trades.trade(trade, elapsed_s(environ)))

    def order(self, environ: Environ) -> Answer:
        number = order_number_parameter(environ, "order-number")
        order = None if number is None else self._parts.orders.order(number)
        if order is None:
            raise NotFound("order not found")
        return data_answer(
            {
                "number": order.number,
                "name": order.name,
                "type": order.type,
                "quantity": order.quantity,
            }
        )

    def alive(self, _environ: Environ) -> Answer:
        return data_answer({"status": "alive"})

    def ready(self, _environ: Environ) -> Answer:
        reason = self._parts.readiness.reason_not_ready()
        if reason is not None:
            raise Unavailable(reason)
        return data_answer({"status": "ready"})


def _trade_answer(decision: Decision) -> Answer:
    """The same answer for each copy of a request, except for the header of a repeat."""
    replayed = (_REPLAYED,) if decision.replayed else ()
    if decision.status != DONE:
        return error_answer(NotFound(_REFUSALS[decision.status]), *replayed)
    location = f"{ORDERS_PATH}?order-number={decision.number}"
    return data_answer({"transaction_number": decision.number}, ("Location", location), *replayed)
