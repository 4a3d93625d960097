"""The HTTP interface: what is asked of which part, and how its answer is shown."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from flask import Blueprint, Response, request

from common import logs
from common.errors import NotFound, Unavailable
from frontend.http.answers import data_answer, error_answer, quote_answer
from frontend.http.done import KEY_HEADER, ORDERS_PATH, REPLAYED, decided, location
from frontend.http.hits import STOCK_PARAMETER, STOCK_PATH, missed
from frontend.http.request_start import elapsed_s
from frontend.http.validation import (
    idempotency_key,
    name_parameter,
    order_number_parameter,
    parse_trade,
    read_json_body,
)
from frontend.model import DONE, Decision, Orders, Quotes, Readiness, Trades
from frontend.quotes.quotes import find_quote

_REFUSALS = {
    0: "Trading not permitted due to insufficient volume",
    -1: "stock not found",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes need."""

    trades: Trades
    quotes: Quotes
    orders: Orders
    readiness: Readiness


def create_routes(parts: Parts) -> Blueprint:
    routes = _Routes(parts)
    blueprint = Blueprint("bourse", __name__)
    blueprint.get("/hello")(routes.hello)
    blueprint.get(STOCK_PATH)(routes.stock)
    blueprint.post(ORDERS_PATH)(routes.trade)
    blueprint.get(ORDERS_PATH)(routes.order)
    blueprint.get("/healthz")(routes.alive)
    blueprint.get("/readyz")(routes.ready)
    return blueprint


class _Routes:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def hello(self) -> Response:
        name = name_parameter(request.query_string, "name")
        return Response(f"Hello, {name}!", mimetype="text/plain")

    def stock(self) -> Response:
        name = name_parameter(request.query_string, STOCK_PARAMETER)
        quote, cache_result = find_quote(self._parts.quotes, name, missed(request.environ))
        answer = quote_answer(quote) if quote else error_answer(NotFound("stock not found"))
        answer.headers["X-Cache"] = cache_result.value
        return answer

    def trade(self) -> Response:
        was_decided = decided(request.environ)
        if was_decided is not None:
            if isinstance(was_decided.outcome, Exception):
                raise was_decided.outcome
            return _trade_answer(was_decided.outcome)
        request_id = idempotency_key(request.headers.get(KEY_HEADER)) or str(uuid4())
        logs.request_id.set(request_id)
        trade = parse_trade(read_json_body(request), request_id)
        return _trade_answer(self._parts.trades.trade(trade, elapsed_s(request.environ)))

    def order(self) -> Response:
        number = order_number_parameter(request.query_string, "order-number")
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

    def alive(self) -> Response:
        return data_answer({"status": "alive"})

    def ready(self) -> Response:
        reason = self._parts.readiness.reason_not_ready()
        if reason is not None:
            raise Unavailable(reason)
        return data_answer({"status": "ready"})


def _trade_answer(decision: Decision) -> Response:
    """The same answer for every copy of a request, save for the header that says so."""
    if decision.status == DONE:
        answer = data_answer({"transaction_number": decision.number})
        answer.headers["Location"] = location(decision)
    else:
        answer = error_answer(NotFound(_REFUSALS[decision.status]))
    if decision.replayed:
        answer.headers.set(*REPLAYED)
    return answer
