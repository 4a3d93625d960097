"""Many measurements of one thing in one line: the median, and the middle half in brackets.

The lowest and the highest one would only tell about the machine's worst moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    lower: float  # quartile
    upper: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises ValueError if there is none."""
        known = list(values)
        if not known:
            raise ValueError("nothing was measured")
        if len(known) == 1:
            return cls(known[0], known[0], known[0])
        lower, median, upper = quantiles(known, n=4, method="inclusive")
        return cls(median, lower, upper)

    def times(self, factor: float) -> Spread:
        return Spread(self.median * factor, self.lower * factor, self.upper * factor)

    def shown(self, digits: int) -> str:
        lower, upper = (f"{value:,.{digits}f}" for value in (self.lower, self.upper))
        return f"{self.median:,.{digits}f} ({lower} to {upper})"

    def as_json(self) -> dict[str, float]:
        return {
            "median": round(self.median, 4),
            "lower_quartile": round(self.lower, 4),
            "upper_quartile": round(self.upper, 4),
        }


def ratios(values: Sequence[float], of: Sequence[float]) -> Spread:
    """Each value to the one that was measured beside it, in the same round."""
    return Spread.of(value / other for value, other in zip(values, of, strict=True))
