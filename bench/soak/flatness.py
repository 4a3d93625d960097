"""The rule: what counts as flat, and what counts as back after the faults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.soak.samples import AFTER, MEASURES, STEADY, Sample, containers_of

# At first caches fill, and threads and memory pools are made.
_WARM_UP_SHARE = 1 / 6
_LONGEST_WARM_UP_S = 600.0
# A level may be higher by this share, or by the slack of its measure if that is more.
_SHARE = 0.1

_SLACKS = ", ".join(f"{one.slack:g} ({one.title})" for one in MEASURES.values() if not one.grows)

RULE = f"""\
Flat: from the first quarter after the warm-up to the last quarter of the steady load, the median
rises by at most {_SHARE:.0%}, or by {_SLACKS}.
Back: after the faults, the median is at most so much above the last quarter. A replica is compared
with the highest replica, and a frontend with the highest frontend: another one can lead now."""


def warm_up_s(steady_s: float) -> float:
    """Ten minutes of an hour, and as large a part of less."""
    return min(_LONGEST_WARM_UP_S, _WARM_UP_SHARE * steady_s)


@dataclass(frozen=True, slots=True)
class Level:
    """Of one measure of one container: medians. One is None where nothing was sampled."""

    measure: str
    container: str
    first: float | None  # quarter of the steady load after the warm-up
    last: float | None  # quarter of it
    after: float | None  # the faults
    usual: float | None  # the highest last quarter of the containers of its kind

    @property
    def is_flat(self) -> bool:
        return _within(self.measure, self.last, self.first)

    @property
    def is_back(self) -> bool:
        return _within(self.measure, self.after, self.usual)


@dataclass(frozen=True, slots=True)
class Growth:
    """Of a file that keeps every trade. It is told, and not judged."""

    measure: str
    container: str
    bytes_per_trade: float


def levels(samples: Sequence[Sample], steady_s: float) -> list[Level]:
    """Of each measure that is to stay flat, in every container that has it."""
    warm_s = warm_up_s(steady_s)
    quarter_s = (steady_s - warm_s) / 4
    after_s = [one.moment.at_s for one in samples if one.moment.phase == AFTER]
    # Right after the faults, parts that were restarted warm up.
    settled_s = median(after_s) if after_s else math.inf
    found = []
    for name, measure in MEASURES.items():
        if measure.grows:
            continue
        first = _medians(samples, name, STEADY, warm_s, warm_s + quarter_s)
        last = _medians(samples, name, STEADY, steady_s - quarter_s)
        after = _medians(samples, name, AFTER, settled_s)
        for container in containers_of(samples):
            if measure.of_all or container in {*first, *last, *after}:
                alike = [last[one] for one in last if kind_of(one) == kind_of(container)]
                medians = first.get(container), last.get(container), after.get(container)
                found.append(Level(name, container, *medians, max(alike, default=None)))
    return found


def growths(samples: Sequence[Sample], steady_s: float) -> list[Growth]:
    """Of each file that grew with the trades, from the end of the warm-up to that of the load."""
    growing = [name for name, measure in MEASURES.items() if measure.grows]
    warm_s = warm_up_s(steady_s)
    found = []
    for name, container in itertools.product(growing, containers_of(samples)):
        seen = [one for one in _of(samples, name, STEADY, warm_s) if one.container == container]
        trades = seen[-1].moment.trades - seen[0].moment.trades if seen else 0
        if trades and (grown_mib := seen[-1].values[name] - seen[0].values[name]):
            found.append(Growth(name, container, grown_mib * 2**20 / trades))
    return found


def _medians(
    samples: Sequence[Sample], measure: str, phase: str, since_s: float, until_s: float = math.inf
) -> dict[str, float]:
    """By container, of those that were sampled then."""
    found: dict[str, list[float]] = {}
    for one in _of(samples, measure, phase, since_s, until_s):
        found.setdefault(one.container, []).append(one.values[measure])
    return {container: median(values) for container, values in found.items()}


def _of(
    samples: Sequence[Sample], measure: str, phase: str, since_s: float, until_s: float = math.inf
) -> list[Sample]:
    return [
        one
        for one in samples
        if one.moment.phase == phase
        and since_s <= one.moment.at_s < until_s
        and measure in one.values
    ]


def kind_of(container: str) -> str:
    """`order` for `order-2`."""
    return container.rstrip("0123456789").rstrip("-")


def _within(measure: str, level: float | None, base: float | None) -> bool:
    if level is None or base is None:
        return False
    return level <= base + max(_SHARE * base, MEASURES[measure].slack)
