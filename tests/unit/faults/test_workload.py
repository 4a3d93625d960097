"""The load against a server with faults: what is recorded, and what is repeated."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from faults.history import Call, Completion
from faults.workload import LoadSettings, Workload
from tests.unit.client import fake as client_fake
from tests.unit.client.fake import FakeBourse

QUANTITIES = {f"stock{number}": 100 for number in range(1, 11)}


@pytest.fixture
def server() -> Iterator[FakeBourse]:
    with FakeBourse() as found:
        yield found


class Watched:
    """A workload, and the records that it wrote."""

    def __init__(
        self,
        server: FakeBourse,
        *,
        clients: int = 4,
        rate: float = 0,
        seed: int = 1,
        has_keys: bool = True,
    ) -> None:
        load = LoadSettings(clients, rate, seed, f"run{seed}", has_keys)
        self.calls: list[Call] = []
        self.answers: list[Completion] = []
        self.workload = Workload(server.url, load, QUANTITIES, self._write)

    def _write(self, record: Call | Completion) -> None:
        (self.calls if isinstance(record, Call) else self.answers).append(record)  # type: ignore[arg-type]

    def run(self, lasts_s: float) -> None:
        stopping = threading.Event()
        threading.Timer(lasts_s, stopping.set).start()
        self.workload.run(stopping, lambda: None)

    def finish(self) -> None:
        self.workload.settle(10, lambda: None)
        self.workload.verify(lambda: None)
        self.workload.close()


def test_every_call_is_recorded_and_answered_once(server: FakeBourse) -> None:
    watched = Watched(server)
    watched.run(0.5)
    watched.finish()
    assert Counter(one.id for one in watched.calls) == Counter(one.id for one in watched.answers)
    assert max(Counter(one.id for one in watched.calls).values()) == 1
    assert {one.op for one in watched.calls} == {"trade", "lookup", "order"}
    began = {one.id: one.at_ns for one in watched.calls}
    assert all(one.at_ns >= began[one.id] for one in watched.answers)
    assert len(watched.calls) == len(server.received) == watched.workload.requests


def test_every_acknowledged_order_and_every_stock_is_looked_up_at_the_end(
    server: FakeBourse,
) -> None:
    watched = Watched(server)
    watched.run(0.5)
    watched.finish()
    numbers = {one.number for one in watched.answers if one.number is not None}
    at_end = [one for one in watched.calls if one.phase == "verify"]
    assert {one.number for one in at_end if one.op == "order"} == numbers
    assert {one.name for one in at_end if one.op == "lookup"} == set(QUANTITIES)


def test_what_is_unknown_is_repeated_under_its_key_to_the_end(server: FakeBourse) -> None:
    kinds = [client_fake.unavailable, client_fake.lost_answer, client_fake.reset]
    server.misbehave("POST /orders", *itertools.islice(itertools.cycle(kinds), 30))
    watched = Watched(server)
    watched.run(0.5)
    watched.finish()
    assert watched.workload.unknown == 0
    status = {one.id: one.status for one in watched.answers}
    keys = {one.key for one in watched.calls if one.op == "trade"}
    assert any(one in (None, 503) for one in status.values())
    for key in keys:
        trades = [one for one in watched.calls if one.key == key]
        assert status[trades[-1].id] in (200, 404)
        assert len({(one.name, one.type, one.quantity) for one in trades}) == 1


def test_a_refusal_is_no_unknown_outcome(server: FakeBourse) -> None:
    watched = Watched(server)
    watched.run(1.0)
    refused = {one.id for one in watched.answers if one.status == 404}
    assert refused
    assert watched.workload.unknown == 0
    watched.workload.close()


def test_nobody_listening_is_recorded_as_never_sent(server: FakeBourse) -> None:
    watched = Watched(server, clients=1)
    server.shutdown()
    server.server_close()
    watched.run(0.3)
    watched.workload.close()
    assert watched.answers
    assert {(one.status, one.sent) for one in watched.answers} == {(None, False)}
    assert len(watched.answers) < 20  # it pauses between attempts


def test_a_rate_is_kept_to(server: FakeBourse) -> None:
    watched = Watched(server, clients=4, rate=40)
    began_s = time.monotonic()
    watched.run(1.0)
    lasted_s = time.monotonic() - began_s
    watched.workload.close()
    assert 4 <= len(watched.calls) <= 40 * lasted_s + 4


def test_a_seed_gives_the_same_requests(server: FakeBourse) -> None:
    """This holds for the first requests of one client, before it repeats anything."""

    def first_asked(seed: int) -> list[tuple[str | None, str | None, int | None]]:
        watched = Watched(server, clients=1, rate=20, seed=seed)
        watched.run(1.5)  # enough time for far more than three requests
        watched.workload.close()
        return [(one.name, one.type, one.quantity) for one in watched.calls[:3]]

    assert first_asked(5) != first_asked(6)
    server.decisions.clear()
    again = first_asked(5)
    server.decisions.clear()
    assert first_asked(5) == again


def test_clients_race_each_other_for_a_key_now_and_then(server: FakeBourse) -> None:
    """A slow server makes it likely that two calls with the same key overlap."""
    server.before_reply = lambda received, _reply: (
        time.sleep(0.02) if received.method == "POST" else None
    )
    watched = Watched(server, clients=8)
    watched.run(2.0)
    watched.workload.close()
    ended = {one.id: one.at_ns for one in watched.answers}
    trades = [one for one in watched.calls if one.op == "trade"]
    races = [
        (one, other)
        for one, other in itertools.combinations(trades, 2)
        if one.key == other.key
        and one.client != other.client
        and one.at_ns < ended[other.id]
        and other.at_ns < ended[one.id]
    ]
    assert races
    assert watched.workload.unknown == 0


def test_without_keys_nothing_is_sent_twice_and_no_key_at_all(server: FakeBourse) -> None:
    kinds = [client_fake.unavailable, client_fake.lost_answer, client_fake.reset]
    server.misbehave("POST /orders", *itertools.islice(itertools.cycle(kinds), 12))
    watched = Watched(server, has_keys=False)
    watched.run(0.5)
    watched.workload.settle(10, lambda: None)
    watched.workload.close()
    trades = [one for one in watched.calls if one.op == "trade"]
    assert len(trades) > 12
    assert {one.key for one in trades} == {None}
    assert server.keys() == [None] * len(trades)
    assert {one.phase for one in watched.calls} == {"run"}
    assert watched.workload.unknown == 0
    assert {one.op for one in watched.calls} == {"trade", "lookup", "order"}
