"""Trades, decided in front of the application: one that was done is answered there.

What Flask does around a route is a fifth of a trade's time in the frontend. Only a trade as most
clients send it is taken here, and only a done one is answered: for everything else the
application has the answers, and is told how the trade was decided.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import uuid4

from common import logs
from common.domain import Trade
from common.errors import InvalidRequest
from frontend.http.answers import COMMON_HEADERS, REQUEST_ID_HEADER, data_body
from frontend.http.hits import Application, Environment, StartResponse
from frontend.http.request_start import elapsed_s, is_too_old
from frontend.http.validation import MAX_BODY_BYTES, idempotency_key, parse_trade
from frontend.model import DONE, Decision, Trades

logger = logging.getLogger(__name__)

ORDERS_PATH = "/orders"
KEY_HEADER = "Idempotency-Key"

REPLAYED = ("Idempotency-Replayed", "true")

_DECIDED = "bourse.decided"
_LENGTHS = frozenset(map(str, range(1, MAX_BODY_BYTES + 1)))


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of the trade of a request before the application got it."""

    request_id: str
    outcome: Decision | Exception
    started_s: float  # on the performance counter


class DoneFirst:
    """A WSGI application around another one.

    Args:
        application: answers whatever is no trade that was done.
    """

    def __init__(self, application: Application, trades: Trades) -> None:
        self._application = application
        self._trades = trades

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == ORDERS_PATH and environ["REQUEST_METHOD"] == "POST":
            started_s = time.perf_counter()
            trade = _trade(environ)
            if trade is not None:
                outcome = self._decide(trade, elapsed_s(environ))
                if isinstance(outcome, Decision) and outcome.status == DONE:
                    return _answer(trade.request_id, outcome, started_s, start_response)
                environ[_DECIDED] = Decided(trade.request_id, outcome, started_s)
        return self._application(environ, start_response)

    def _decide(self, trade: Trade, elapsed_s: float) -> Decision | Exception:
        logs.request_id.set(trade.request_id)
        try:
            return self._trades.trade(trade, elapsed_s)
        except Exception as error:  # noqa: BLE001 - the application raises it, and answers
            return error
        finally:
            logs.request_id.set("-")


def location(decision: Decision) -> str:
    """Where a done trade can be looked up."""
    return f"{ORDERS_PATH}?order-number={decision.number}"


def decided(environ: Environment) -> Decided | None:
    """How the trade of this request was decided, unless it was not yet: never decide it again."""
    found: Decided | None = environ.get(_DECIDED)
    return found


def _trade(environ: Environment) -> Trade | None:
    """The trade asked for, if it is asked for as usual and there is time for it."""
    length = environ.get("CONTENT_LENGTH")
    if (
        environ.get("CONTENT_TYPE") != "application/json"
        or length not in _LENGTHS
        or "HTTP_TRANSFER_ENCODING" in environ
        or is_too_old(environ)
    ):
        return None
    try:
        received = environ["wsgi.input"].read(int(length))
    except Exception:  # noqa: BLE001 - servers have no error in common for a broken body
        return None
    environ["wsgi.input"] = io.BytesIO(received)  # for whoever reads it next
    if len(received) < int(length):
        return None
    try:
        key = idempotency_key(environ.get("HTTP_IDEMPOTENCY_KEY"))
        return parse_trade(received, key or str(uuid4()))
    except InvalidRequest:
        return None


def _answer(
    request_id: str, decision: Decision, started_s: float, start_response: StartResponse
) -> Iterable[bytes]:
    body = data_body({"transaction_number": decision.number}).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Location", location(decision)),
        (REQUEST_ID_HEADER, request_id),
        *COMMON_HEADERS.items(),
    ]
    if decision.replayed:
        headers.append(REPLAYED)
    elapsed_ms = (time.perf_counter() - started_s) * 1000
    logger.info("POST %s 200 %.1f ms", ORDERS_PATH, elapsed_ms, extra={"request_id": request_id})
    start_response("200 OK", headers)
    return (body,)
