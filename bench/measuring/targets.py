"""What is aimed at, and whether it was reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.measuring.spread import Spread

Relation = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Target:
    """`unit` is empty for a ratio."""

    what: str
    relation: Relation
    limit: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    target: Target
    measured: float
    spread: Spread

    @classmethod
    def of_median(cls, target: Target, spread: Spread) -> Judged:
        return cls(target, spread.median, spread)

    @property
    def is_met(self) -> bool:
        if self.target.relation == "at least":
            return self.measured >= self.target.limit
        return self.measured <= self.target.limit

    def row(self) -> tuple[str, ...]:
        unit = self.target.unit and f" {self.target.unit}"
        digits = 0 if self.target.unit else 2
        limit = f"{self.target.limit:.0f}" if unit else f"{self.target.limit:.4g}"
        return (
            self.target.what,
            f"{self.target.relation} {limit}{unit}",
            f"{self.measured:.{digits}f}{unit}",
            f"{self.spread.lower:.{digits}f} to {self.spread.upper:.{digits}f}{unit}",
            "met" if self.is_met else "MISSED",
        )

    def as_json(self) -> dict[str, object]:
        return {
            "target": self.target.what,
            "relation": self.target.relation,
            "limit": self.target.limit,
            "unit": self.target.unit or "ratio",
            "measured": round(self.measured, 4),
            "spread": self.spread.as_json(),
            "met": self.is_met,
        }


HEADING = ("target", "wanted", "measured", "middle half", "")
