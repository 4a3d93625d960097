"""Latencies: recorded one by one, told as percentiles."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from stack.numbers import percentile


@dataclass(frozen=True, slots=True)
class LatencySummary:
    count: int
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    max_at_s: float  # when the slowest one began, since the start of the run


class LatencyRecorder:
    """Eight bytes for each latency: as many as there are requests, on purpose."""

    def __init__(self) -> None:
        self._latencies_s = array("d")
        self._slowest = (0.0, 0.0)  # latency, when it began

    def __len__(self) -> int:
        return len(self._latencies_s)

    def record(self, began_at_s: float, latency_s: float) -> None:
        self._latencies_s.append(latency_s)
        self._slowest = max(self._slowest, (latency_s, began_at_s))

    def add(self, other: LatencyRecorder) -> None:
        self._latencies_s.extend(other._latencies_s)
        self._slowest = max(self._slowest, other._slowest)

    def summary(self) -> LatencySummary | None:
        """None when nothing was recorded."""
        if not self._latencies_s:
            return None
        ascending = sorted(self._latencies_s)
        p50_s, p90_s, p99_s = (percentile(ascending, percent) for percent in (50, 90, 99))
        return LatencySummary(len(ascending), p50_s, p90_s, p99_s, *self._slowest)
