"""Counts what the clients of a session did and saw, and how long each answer took."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from client.checks import Move, OwnOrder, SeenQuantity
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


class Kind(StrEnum):
    LOOKUP = "lookup"
    TRADE = "trade"
    ORDER = "order lookup"


@dataclass(slots=True)
class Tally:
    """What one client did and saw."""

    latencies: dict[Kind, LatencyRecorder] = field(
        default_factory=lambda: {kind: LatencyRecorder() for kind in Kind}
    )
    orders: list[OwnOrder] = field(default_factory=list)
    # For the books, and only kept if they can be checked.
    moves: list[Move] = field(default_factory=list)
    quantities: list[SeenQuantity] = field(default_factory=list)
    cache: Counter[str] = field(default_factory=Counter)  # lookups by X-Cache
    refused: int = 0  # trades, for insufficient volume
    verified: int = 0  # orders
    failures: list[str] = field(default_factory=list)  # requests without a right answer
    mismatches: list[str] = field(default_factory=list)  # answers that contradict the API

    def add(self, other: Tally) -> None:
        for kind, recorder in other.latencies.items():
            self.latencies[kind].add(recorder)
        self.orders += other.orders
        self.moves += other.moves
        self.quantities += other.quantities
        self.cache.update(other.cache)
        self.refused += other.refused
        self.verified += other.verified
        self.failures += other.failures
        self.mismatches += other.mismatches
