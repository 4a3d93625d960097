"""Small histories: a good one, and helpers to make bad ones from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from common.domain import Order, next_digest
from faults.history import (
    Call,
    Completion,
    End,
    Fault,
    Record,
    Run,
)
from faults.targets import catalogs_of
from stack.observations import Final, Observation, Position, Row
from stack.parts import HA_SERVICES, ORDER_SERVICES

S = 1_000_000_000
NOTHING = "00" * 32


def chained(rows: Iterable[Row], digest: str = NOTHING) -> list[Row]:
    """The same rows, each with its right digest."""
    found = []
    for row in rows:
        fields = dataclasses.asdict(row)
        fields.pop("digest")
        digest = next_digest(bytes.fromhex(digest), Order(**fields)).hex()
        found.append(dataclasses.replace(row, digest=digest))
    return found


def positions(number: int, digest: str, epoch: int = 1) -> dict[str, Position]:
    return {
        name: Position("leader" if name == "order-3" else "follower", epoch, 3, number, digest)
        for name in ORDER_SERVICES
    }


PARTS = ("edge", "frontend-1", "frontend-2", "catalog", *ORDER_SERVICES, "redis")
HA_PARTS = (*PARTS, *HA_SERVICES)


def run(first_number: int = 0, quantity: int = 100, parts: tuple[str, ...] = PARTS) -> Run:
    return Run(
        0, "http://x", "now", "again", 1, 1, parts, first_number, NOTHING, {"a": quantity}, {"a": 0}
    )


class Story:
    """Makes the history of a correct service: one call after the other, one second each."""

    def __init__(self, quantity: int = 100, parts: tuple[str, ...] = PARTS) -> None:
        self.now_ns = S
        self.records: list[Record] = [run(quantity=quantity, parts=parts)]
        self.rows: list[Row] = []
        self.quantity = quantity
        self._ids = 0

    def call(self, op: str, answer: dict[str, Any] | None, phase: str = "run", **said: Any) -> int:
        """A call, answered after half a second; never if `answer` is None. Returns its id."""
        self._ids += 1
        self.records.append(Call(self._ids, self.now_ns, 1, op, phase, **said))
        if answer is not None:
            self.records.append(Completion(self._ids, self.now_ns + S // 2, **answer))
        self.now_ns += S
        return self._ids

    def trade(self, key: str, quantity: int = 1, type: str = "BUY", epoch: int = 1) -> Story:
        """The first call with a key: it is executed, or refused if there is too little."""
        if type == "BUY" and quantity > self.quantity:
            return self.asked(key, quantity, type, status=404, error="insufficient volume")
        self.quantity += quantity if type == "SELL" else -quantity
        number = len(self.rows) + 1
        self.rows.append(Row(number, key, "a", type, quantity, number, epoch, ""))
        return self.asked(key, quantity, type, status=200, number=number)

    def asked(
        self, key: str, quantity: int = 1, type: str = "BUY", phase: str = "run", **answer: Any
    ) -> Story:
        self.call("trade", answer or None, phase, key=key, name="a", type=type, quantity=quantity)
        return self

    def repeat(self, key: str, number: int, **answer: Any) -> Story:
        row = self.rows[number - 1]
        said = {"status": 200, "number": number, "replayed": True, **answer}
        return self.asked(key, row.quantity, row.type, **said)

    def keyless(self, quantity: int = 1, type: str = "SELL", **answer: Any) -> Story:
        """A trade without a key. It is executed, and acknowledged unless another answer is given.

        The edge gave it a request id, which only the journal shows.
        """
        number = self.executed(quantity, type)
        answer = answer or {"status": 200, "number": number}
        self.call("trade", answer, name="a", type=type, quantity=quantity)
        return self

    def executed(self, quantity: int = 1, type: str = "SELL") -> int:
        """A row under a request id that no client sent; returns its number."""
        self.quantity += quantity if type == "SELL" else -quantity
        number = len(self.rows) + 1
        self.rows.append(Row(number, f"uuid-{number}", "a", type, quantity, number, 2, ""))
        return number

    def lookup(self, quantity: int | None = None, phase: str = "run") -> Story:
        shown = self.quantity if quantity is None else quantity
        self.call("lookup", {"status": 200, "quantity": shown}, phase, name="a")
        return self

    def order(self, number: int, phase: str = "run", **answer: Any) -> Story:
        row = self.rows[number - 1]
        shown = {"number": number, "name": "a", "type": row.type, "quantity": row.quantity}
        said = answer or {"status": 200, "order": shown}
        self.call("order", said, phase, number=number)
        return self

    def fault(
        self,
        step: str,
        *impairs: str,
        id: int = 1,
        kind: str = "kill",
        offices: Mapping[str, str] = MappingProxyType({}),
    ) -> Story:
        self.records.append(
            Fault(
                id,
                self.now_ns,
                step,
                kind,
                ",".join(impairs),
                impairs,
                impairs,
                offices=dict(offices),
            )
        )
        self.now_ns += S // 10
        return self

    def seen(self, **roles: Position) -> Story:
        said = {name.replace("_", "-"): one for name, one in roles.items()}
        self.records.append(Observation(self.now_ns, self.now_ns + 1, said))
        return self

    def last_two_swapped(self) -> Story:
        """Gives the earlier of two trades number 5 and the later one number 4."""
        # The records end with: answer, call, answer. The two answers get the numbers.
        for place, number in ((-3, 5), (-1, 4)):
            self.records[place] = dataclasses.replace(self.records[place], number=number)  # type: ignore[call-arg]
        first, second = self.rows[-2:]
        self.rows[-2:] = [
            dataclasses.replace(second, number=4, version=4),
            dataclasses.replace(first, number=5, version=5),
        ]
        return self

    def verified(self) -> Story:
        for row in self.rows:
            self.order(row.number, "verify")
        return self.lookup(phase="verify")

    def told(self, rows: Sequence[Row] | None = None, **final: Any) -> list[Record]:
        """The complete history, with the journal and the final state."""
        journal = chained(self.rows if rows is None else rows)
        last, digest = (journal[-1].number, journal[-1].digest) if journal else (0, NOTHING)
        volumes = {"a": self.quantity}
        end = Final(self.now_ns, last, volumes, {"a": len(self.rows)}, positions(last, digest))
        end = dataclasses.replace(end, **final)
        return [*self.records, *journal, end, End(self.now_ns, interrupted=False)]


def good(parts: tuple[str, ...] = PARTS) -> Story:
    """A history with every kind of record."""
    story = Story(quantity=5, parts=parts)
    story.lookup().trade("k1", 2).lookup().repeat("k1", 1)
    story.trade("k2", 9)  # refused: only 3 are left
    story.asked("k2", 9, status=404, error="insufficient volume", replayed=True)
    story.fault("begin", "order-3").trade("k3", 4, "SELL", epoch=2).order(1).lookup()
    story.fault("recovered", "order-3")
    story.fault("begin", *catalogs_of(parts), id=2)
    story.asked("k4", 1, status=503, error="outcome unknown")
    story.fault("recovered", *catalogs_of(parts), id=2).trade("k4", 1, epoch=2)
    return story


def changed(
    records: Iterable[Record], which: Callable[[Record], bool], **fields: Any
) -> list[Record]:
    """The same records, with other fields in those that `which` selects."""
    return [
        dataclasses.replace(record, **fields) if which(record) else record for record in records
    ]


def told(story: Story) -> list[Record]:
    return story.verified().told()


class Bad(NamedTuple):
    title: str
    records: Callable[[], Iterable[Record]]
    promises: str  # exactly these are broken
    says: str
