"""Sends each request exactly once, and records when it was sent and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus

from client.api import Answer, Connection, Malformed, NoAnswer, Request
from faults.history import Call, Completion


@dataclass(slots=True)
class Trade:
    key: str | None  # None: it is sent only once
    name: str
    type: str
    quantity: int
    is_decided: bool = False
    attempts: int = 0
    not_before_s: float = 0.0


class Recorder:
    """Sends one request at a time, and records it. `ids` are shared by all clients."""

    def __init__(
        self,
        client: int,
        connection: Connection,
        ids: Iterator[int],
        write: Callable[[Call | Completion], None],
        clock: Callable[[], int],
    ) -> None:
        self.client = client
        self._connection = connection
        self._ids = ids
        self._write = write
        self._clock = clock
        self.requests = 0

    def trade(self, trade: Trade, phase: str) -> Completion:
        request = Request.trade(trade.name, trade.quantity, trade.type, trade.key)
        call = self._call("trade", phase)
        return self._send(
            request,
            replace(call, key=trade.key, name=trade.name, type=trade.type, quantity=trade.quantity),
        )

    def lookup(self, name: str, phase: str) -> Completion:
        return self._send(Request.lookup(name), replace(self._call("lookup", phase), name=name))

    def order(self, number: int, phase: str) -> Completion:
        call = replace(self._call("order", phase), number=number)
        return self._send(Request.order(number), call)

    def _call(self, op: str, phase: str) -> Call:
        return Call(next(self._ids), self._clock(), self.client, op, phase)

    def _send(self, request: Request, call: Call) -> Completion:
        self._write(call)
        self.requests += 1
        try:
            completion = _read(call, self._connection.exchange(request), self._clock())
        except NoAnswer as error:
            completion = Completion(
                call.id, self._clock(), None, sent=error.may_have_arrived, error=str(error)
            )
        self._write(completion)
        return completion

    def close(self) -> None:
        self._connection.close()


def _read(call: Call, answer: Answer, at_ns: int) -> Completion:
    completion = Completion(
        call.id,
        at_ns,
        answer.status,
        replayed=answer.headers.get("Idempotency-Replayed") == "true",
    )
    if answer.status != HTTPStatus.OK:
        return replace(completion, error=answer.error_message or str(answer))
    try:
        if call.op == "trade":
            return replace(completion, number=answer.order_number())
        if call.op == "lookup":
            shown = answer.quote()
            if shown.name != call.name:
                raise Malformed(f"a quote of {shown.name}")
            cache = answer.headers.get("X-Cache")
            return replace(completion, quantity=shown.quantity, cache=cache)
        return replace(completion, order=asdict(answer.order()))
    except Malformed as error:
        return replace(completion, error=f"malformed: {error}")
