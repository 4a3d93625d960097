"""The processor time of a measurement, from what the engine says of each container."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from docker.errors import APIError

from bench.copies.meter import Meter
from bench.measuring.rounds import Results
from bench.measuring.spread import Spread
from bench.measuring.wrk import Measured
from stack.parts import StackError

SEEN = Measured(requests=100, duration_s=1.0, mean_ms=1, p50_ms=1, p99_ms=2, max_ms=3)


class Container:
    """Has used `used_ns` of the processor since its start."""

    name = "one"

    def __init__(self, used_ns: int) -> None:
        self.used_ns = used_ns
        self.is_gone = False

    def stats(self, stream: bool, one_shot: bool) -> dict[str, Any]:
        assert (stream, one_shot) == (False, True), "anything else waits for a second"
        if self.is_gone:
            raise APIError("no such container")
        return {"cpu_stats": {"cpu_usage": {"total_usage": self.used_ns}}}


def test_a_part_is_all_its_containers_and_only_meanwhile() -> None:
    edge, first, second = Container(5_000_000), Container(10**12), Container(7)

    def measure() -> Measured:
        edge.used_ns += 10_000_000
        first.used_ns += 200_000_000
        second.used_ns += 100_000_000
        return SEEN

    measured = Meter({"edge": [edge], "frontends": [first, second]}).around(measure)
    assert measured.processor_s == pytest.approx({"edge": 0.01, "frontends": 0.3})
    assert measured.processor_ms_by_part == pytest.approx({"edge": 0.1, "frontends": 3.0})
    assert measured.processor_ms == pytest.approx(3.1)
    assert replace(measured, processor_s={}) == SEEN


def test_a_container_that_is_gone_is_an_error() -> None:
    container = Container(1)
    meter = Meter({"edge": [container]})

    def measure() -> Measured:
        container.is_gone = True
        return SEEN

    with pytest.raises(StackError, match="one: no such container"):
        meter.around(measure)


def test_time_without_an_answer_is_still_told() -> None:
    nothing = replace(SEEN, requests=0, processor_s={"edge": 1.0})
    assert nothing.processor_ms_by_part == {"edge": 1000.0}


def test_times_are_compared_within_each_round() -> None:
    results: Results[str] = Results()
    for slowness in (1, 3):
        results.add("ours", replace(SEEN, processor_s={"edge": 0.125 * slowness, "web": 0.25}))
        results.add("plain", replace(SEEN, processor_s={"web": 0.0625 * slowness + 0.125}))
    assert results.processor_ratio("ours", "plain") == Spread(2, 2, 2)
    assert results.processor_ms_by_part("ours")["edge"] == [1.25, 3.75]


def test_what_is_taken_while_nobody_asks_is_of_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    etcd, now_s = Container(10**12), 100.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        etcd.used_ns += 500_000_000

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    assert Meter({"etcd": [etcd]}).idle(10.0) == pytest.approx({"etcd": 0.05})
