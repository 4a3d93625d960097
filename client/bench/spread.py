"""Many measurements of one thing in one line: the median, and how far the others lie around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises ValueError if there is none."""
        known = sorted(values)
        if not known:
            raise ValueError("nothing was measured")
        return cls(median(known), known[0], known[-1])

    def shown(self, digits: int) -> str:
        least, most = (f"{value:,.{digits}f}" for value in (self.least, self.most))
        return f"{self.median:,.{digits}f} ({least} to {most})"

    def as_json(self) -> dict[str, float]:
        return {
            "median": round(self.median, 4),
            "min": round(self.least, 4),
            "max": round(self.most, 4),
        }


def ratios(values: Sequence[float], of: Sequence[float]) -> Spread:
    """Each value to the one that was measured beside it, in the same round."""
    return Spread.of(value / other for value, other in zip(values, of, strict=True))
