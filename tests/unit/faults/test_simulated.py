"""The checker on histories of a correct service, and on the same with one record changed."""

from __future__ import annotations

import dataclasses
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults.checker import judge
from faults.history import Call, Completion, End, Fault, Record, Run
from stack.observations import Final, Row
from tests.unit.faults.histories import NOTHING, PARTS, chained, positions

STOCKS = {"a": 6, "b": 3}
MS = 1_000_000


@dataclass
class Asked:
    """A request that has begun: it may be executed, then it is answered or lost."""

    call: Call
    answer: dict[str, Any] | None = None  # None: not executed yet


@dataclass
class Service:
    """A correct service: each request takes effect at one moment between call and answer."""

    chance: random.Random
    clients: int
    is_cut: bool  # whether answers are lost, and requests are refused
    has_keys: bool = True  # without keys, nothing is sent twice
    now_ns: int = 0
    records: list[Record] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    quantities: dict[str, int] = field(default_factory=lambda: dict(STOCKS))
    versions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STOCKS, 0))
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    trades: list[Call] = field(default_factory=list)  # the first call of each key
    acknowledged: set[int] = field(default_factory=set)
    _calls: int = 0

    def history(self, steps: int) -> list[Record]:
        no_number = (0, NOTHING, STOCKS, dict.fromkeys(STOCKS, 0))
        self.records.append(Run(0, "http://x", "now", "again", 1, self.clients, PARTS, *no_number))
        if self.is_cut:
            self._fault("begin")
        under_way: dict[int, Asked] = {}
        for _ in range(steps):
            client = self.chance.randrange(self.clients)
            self._tick()
            if client not in under_way:
                under_way[client] = Asked(self._begin(client))
            elif self._went_on(under_way[client]):
                del under_way[client]
        for asked in under_way.values():
            while not self._went_on(asked):
                self._tick()
        if self.is_cut:
            self._fault("recovered")
        self._settle_and_verify()
        rows = chained(self.rows)
        last, digest = (rows[-1].number, rows[-1].digest) if rows else (0, NOTHING)
        held = (last, self.quantities, self.versions, positions(last, digest))
        return [*self.records, *rows, Final(self.now_ns, *held), End(self.now_ns, False)]

    def _tick(self) -> None:
        self.now_ns += self.chance.randint(1, 20) * MS

    def _fault(self, step: str) -> None:
        self._tick()
        hits = ("edge",)
        self.records.append(Fault(1, self.now_ns, step, "kill", "edge", hits, hits))
        self._tick()

    def _call(self, client: int, op: str, phase: str, **said: Any) -> Call:
        self._calls += 1
        call = Call(self._calls, self.now_ns, client, op, phase, **said)
        self.records.append(call)
        return call

    def _begin(self, client: int) -> Call:
        kind = self.chance.choice(["new", "new", "again", "lookup", "lookup", "order"])
        if kind == "again" and self.trades:
            return self._again(client, self.chance.choice(self.trades), "run")
        if kind == "order" and self.acknowledged:
            number = self.chance.choice(sorted(self.acknowledged))
            return self._call(client, "order", "run", number=number)
        name = self.chance.choice(sorted(STOCKS))
        if kind != "new":
            return self._call(client, "lookup", "run", name=name)
        said = {"type": self.chance.choice(["BUY", "SELL"]), "quantity": self.chance.randint(1, 4)}
        key = f"k{self._calls}" if self.has_keys else None
        call = self._call(client, "trade", "run", key=key, name=name, **said)
        if self.has_keys:
            self.trades.append(call)
        return call

    def _again(self, client: int, first: Call, phase: str) -> Call:
        said = {name: getattr(first, name) for name in ("key", "name", "type", "quantity")}
        return self._call(client, "trade", phase, **said)

    def _went_on(self, asked: Asked) -> bool:
        """Advances a request by one step. Returns whether it is over."""
        dice = self.chance.random() if self.is_cut else 1.0
        if asked.answer is None and dice < 0.1:
            return self._answer(asked.call, {"status": 503, "error": "outcome unknown"})
        if asked.answer is None:
            asked.answer = self._execute(asked.call)
            return False
        if dice < 0.1:
            return self._answer(asked.call, {"status": None, "error": "reset"})
        return self._answer(asked.call, asked.answer)

    def _answer(self, call: Call, answer: dict[str, Any]) -> bool:
        if answer.get("number") is not None:
            self.acknowledged.add(answer["number"])
        self.records.append(Completion(call.id, self.now_ns, **answer))
        return True

    def _execute(self, call: Call) -> dict[str, Any]:
        if call.op == "lookup":
            return {"status": 200, "quantity": self.quantities[str(call.name)]}
        if call.op == "order":
            row = self.rows[int(call.number or 0) - 1]
            shown = {field: getattr(row, field) for field in ("number", "name", "type", "quantity")}
            return {"status": 200, "order": shown}
        key, name, quantity = call.key or f"u{call.id}", str(call.name), int(call.quantity or 0)
        if key in self.decisions:
            return {**self.decisions[key], "replayed": True}
        change = quantity if call.type == "SELL" else -quantity
        if self.quantities[name] + change < 0:
            decided: dict[str, Any] = {"status": 404, "error": "insufficient volume"}
        else:
            self.quantities[name] += change
            self.versions[name] += 1
            number = len(self.rows) + 1
            version = self.versions[name]
            self.rows.append(Row(number, key, name, str(call.type), quantity, version, 1, ""))
            decided = {"status": 200, "number": number}
        self.decisions[key] = decided
        return decided

    def _settle_and_verify(self) -> None:
        for first in self.trades:
            self._exchange(self._again(1, first, "settle"))
        for number in sorted(self.acknowledged):
            self._exchange(self._call(1, "order", "verify", number=number))
        for name in STOCKS:
            self._exchange(self._call(1, "lookup", "verify", name=name))

    def _exchange(self, call: Call) -> None:
        self._tick()
        self._answer(call, self._execute(call))
        self._tick()


def service_of(seed: int, clients: int, *, is_cut: bool, has_keys: bool = True) -> Service:
    return Service(random.Random(seed), clients, is_cut, has_keys)  # noqa: S311 - keeps no secret


seeds, counts = st.integers(0, 2**32), st.integers(1, 8)


@settings(max_examples=200)
@given(seeds, counts, st.booleans(), st.booleans(), st.integers(0, 200))
def test_a_right_service_is_never_called_wrong(
    seed: int, clients: int, is_cut: bool, has_keys: bool, steps: int
) -> None:
    service = service_of(seed, clients, is_cut=is_cut, has_keys=has_keys)
    verdicts = judge(service.history(steps)).verdicts
    assert [one for one in verdicts if one.held is False] == []
    if service.acknowledged:
        assert all(one.held for one in verdicts)


@settings(max_examples=200)
@given(seeds, counts, st.booleans(), st.booleans(), st.floats(0, 1))
def test_a_history_cut_off_anywhere_is_not_called_wrong(
    seed: int, clients: int, is_cut: bool, has_keys: bool, share: float
) -> None:
    """A history is cut off when the process that writes it is killed."""
    records = service_of(seed, clients, is_cut=is_cut, has_keys=has_keys).history(100)
    judgement = judge(records[: max(1, int(share * (len(records) - 1)))])
    assert [one for one in judgement.verdicts if one.held is False] == []
    assert not judgement.held


# Changes of one record that no other record can explain.
Wrong = Callable[[Any], Any]
WRONG: dict[str, tuple[str, Callable[[Record], bool], Wrong]] = {
    "an acknowledged number": (
        "G1 G2",  # the number of another trade, or a number that is not in the journal
        lambda one: isinstance(one, Completion) and one.number is not None,
        lambda one: dataclasses.replace(one, number=one.number + 1000),
    ),
    "a refusal": (
        "G1",
        lambda one: isinstance(one, Completion) and one.number is not None,
        lambda one: dataclasses.replace(
            one, number=None, status=404, error="insufficient volume", replayed=True
        ),
    ),
    "a row left out": ("G3", lambda one: isinstance(one, Row), lambda _one: None),
    "the quantity of a row": (
        "G7",
        lambda one: isinstance(one, Row),
        lambda one: dataclasses.replace(one, quantity=one.quantity + 1),
    ),
    "a quantity that never was": (
        "G6",
        lambda one: isinstance(one, Completion) and one.quantity is not None,
        lambda one: dataclasses.replace(one, quantity=one.quantity + 100_000),
    ),
    "an order shown": (
        "G2",
        lambda one: isinstance(one, Completion) and one.order is not None,
        lambda one: dataclasses.replace(one, order={**one.order, "quantity": 99}),
    ),
    "a digest": (
        "G9",
        lambda one: isinstance(one, Row),
        lambda one: dataclasses.replace(one, digest="ff" * 32),
    ),
    "an answer left out": ("G8", lambda one: isinstance(one, Completion), lambda _one: None),
}


@settings(max_examples=40)
@pytest.mark.parametrize("what", WRONG)
@given(seeds, counts, st.data())
def test_one_thing_made_wrong_is_caught(
    what: str, seed: int, clients: int, data: st.DataObject
) -> None:
    promises, is_meant, wrong = WRONG[what]
    # Without the edge, an answer may be missing.
    is_cut = what != "an answer left out" and data.draw(st.booleans())
    # Without keys, the checker may take another equal trade of unknown outcome for the refused one.
    has_keys = what == "a refusal" or data.draw(st.booleans())
    records = service_of(seed, clients, is_cut=is_cut, has_keys=has_keys).history(150)
    meant = [place for place, record in enumerate(records) if is_meant(record)]
    if not meant:
        return
    place = data.draw(st.sampled_from(meant))
    made = wrong(records[place])
    records[place : place + 1] = [] if made is None else [made]
    broken = {one.promise for one in judge(records).verdicts if one.held is False}
    assert broken & set(promises.split())


def test_a_history_of_eight_times_the_length_takes_about_eight_times_the_time() -> None:
    """Compares two runs. If the checker took quadratic time, the longer one would take 64 times."""

    def takes_s(steps: int) -> float:
        records = service_of(1, 8, is_cut=False).history(steps)
        times_s = []
        for _ in range(3):
            gc.collect()
            began_s = time.process_time()
            judge(records)
            times_s.append(time.process_time() - began_s)
        return min(times_s)

    gc.disable()  # it runs at any time, and takes longer the more tests ran before
    try:
        takes_s(1_000)
        assert takes_s(24_000) < 30 * takes_s(3_000)
    finally:
        gc.enable()
