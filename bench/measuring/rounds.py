"""Measures in turns, so that other work on the machine disturbs all measurements alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from bench.measuring.spread import Spread, ratios
from bench.measuring.wrk import Measured

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Contestant(Generic[Key]):
    """Something to measure, once in each round; `key` names it."""

    key: Key
    measure: Callable[[], Measured]


@dataclass(slots=True)
class Results(Generic[Key]):
    """What was measured, by key, one for each round."""

    by_key: dict[Key, list[Measured]] = field(default_factory=dict)

    def add(self, key: Key, measured: Measured) -> None:
        self.by_key.setdefault(key, []).append(measured)

    def rates(self, key: Key) -> list[float]:
        return [one.rate_per_s for one in self.by_key[key]]

    def p50s(self, key: Key) -> list[float]:
        return [one.p50_ms for one in self.by_key[key]]

    def p99s(self, key: Key) -> list[float]:
        return [one.p99_ms for one in self.by_key[key]]

    def processor_ms(self, key: Key) -> list[float]:
        """Of all parts, for one request."""
        return [one.processor_ms for one in self.by_key[key]]

    def processor_ms_by_part(self, key: Key) -> dict[str, list[float]]:
        """For one request."""
        rounds = [one.processor_ms_by_part for one in self.by_key[key]]
        return {part: [one[part] for one in rounds] for part in rounds[0]}

    def rate_ratio(self, key: Key, of: Key) -> Spread:
        return ratios(self.rates(key), self.rates(of))

    def p50_ratio(self, key: Key, of: Key) -> Spread:
        return ratios(self.p50s(key), self.p50s(of))

    def processor_ratio(self, key: Key, of: Key) -> Spread:
        return ratios(self.processor_ms(key), self.processor_ms(of))

    def errors(self) -> dict[str, int]:
        """Of all, by kind: answers other than 2xx and 3xx are `status`."""
        total: dict[str, int] = {}
        for measured in self.by_key.values():
            for one in measured:
                for kind, count in one.errors.items():
                    total[kind] = total.get(kind, 0) + count
        return total


def in_turns(
    contestants: Sequence[Contestant[Key]],
    rounds: int,
    show: Callable[[int, Key, Measured], None],
    into: Results[Key] | None = None,
) -> Results[Key]:
    """Every contestant in every round, in one direction and then in the other."""
    results: Results[Key] = Results() if into is None else into
    for number in range(rounds):
        for contestant in _order(contestants, number):
            measured = contestant.measure()
            results.add(contestant.key, measured)
            show(number, contestant.key, measured)
    return results


def _order(contestants: Sequence[Contestant[Key]], round_number: int) -> Iterable[Contestant[Key]]:
    return contestants if round_number % 2 == 0 else reversed(contestants)
