"""Which fault strikes which part at what time: as given, or at random from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from faults.targets import BadSchedule, drawn, parse

# The leader is struck most often: most of the protocol deals with the loss of the leader.
_MIX = (
    ("kill:leader", 4),
    ("pause:leader", 4),
    ("partition:leader", 3),
    ("partition-catalog:leader", 2),
    ("stop:leader", 2),
    ("kill:two", 2),
    ("kill:follower", 1),
    ("pause:follower", 1),
    ("partition:follower", 1),
    ("pause:two", 1),
    ("partition:two", 1),
    ("lossy:leader", 2),
    ("lossy:follower", 1),
    ("lossy:catalog", 1),
    ("lossy:redis", 1),
    ("lossy:frontend", 1),
    ("wipe:leader", 2),
    ("wipe:follower", 1),
    ("kill:catalog", 2),
    ("pause:catalog", 2),
    ("stop:catalog", 1),
    ("partition:catalog", 1),
    ("kill:redis", 2),
    ("pause:redis", 2),
    ("partition:redis", 1),
    ("flush:redis", 2),
    ("pubsub:redis", 2),
    ("kill:frontend", 1),
    ("stop:frontend", 1),
    ("pause:frontend", 1),
    ("partition:frontend", 1),
    ("kill:edge", 1),
    ("stop:edge", 1),
    ("pause:edge", 1),
    ("kill:all", 1),
    ("rolling:all", 1),
    ("rolling:frontends", 1),
    ("rolling:replicas", 1),
)
# With compose.ha.yaml, these come on top.
_HA_MIX = (
    ("kill:catalog-active", 4),
    ("pause:catalog-active", 3),
    ("stop:catalog-active", 1),
    ("partition:catalog-active", 3),
    ("lossy:catalog-active", 1),
    ("kill:catalog-standby", 1),
    ("stop:catalog-standby", 1),
    ("pause:catalog-standby", 1),
    ("partition:catalog-standby", 1),
    ("lossy:catalog-standby", 1),
    ("kill:postgres-primary", 4),
    ("stop:postgres-primary", 2),
    ("pause:postgres-primary", 2),
    ("partition:postgres-primary", 3),
    ("lossy:postgres-primary", 2),
    ("crash:postgres-primary", 4),
    ("zombie:postgres-primary", 4),
    ("kill:postgres-standby", 2),
    ("stop:postgres-standby", 1),
    ("pause:postgres-standby", 2),
    ("partition:postgres-standby", 2),
    ("lossy:postgres-standby", 1),
    ("crash:postgres-standby", 1),
    ("kill:etcd", 2),
    ("stop:etcd", 1),
    ("pause:etcd", 2),
    ("partition:etcd", 1),
    ("lossy:etcd", 1),
    ("kill:machine", 4),
    ("stop:machine", 1),
    ("pause:machine", 2),
    ("partition:machine", 2),
    ("lossy:machine", 1),
)
# How long a part stays broken. It takes about a second to find out that a peer is silent.
_LASTS_S = (1.0, 2.0, 3.0, 5.0, 8.0)
_GAPS_S = (0.0, 2.0, 4.0, 6.0)
_FIRST_AT_S = 3.0
_ROLLING_LASTS_S, _ROLLING_REPLICATED_LASTS_S = 30.0, 120.0
# A primary that is silent is replaced after Patroni's ttl, 20 s: some faults last shorter, some
# longer. What was broken then takes its place again before the next such fault.
_SLOW_LASTS_S, _SLOW_GAPS_S = (4.0, 12.0, 28.0), (18.0, 24.0)
_SET_LASTS_S = {"zombie": 22.0, "crash": 6.0}
# This leaves time to heal, and to see how the service goes on.
_QUIET_AT_END_S = 12.0


@dataclass(frozen=True, slots=True)
class Strike:
    at_s: float  # from the start of the load
    fault: str
    target: str
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.fault}:{self.target}"


def by_hand(
    faults: Sequence[str], every_s: float, lasts_s: float, duration_s: float, seed: int = 0
) -> tuple[Strike, ...]:
    """The faults in turn, each for `lasts_s`. If that is longer than `every_s`, they overlap.

    Args:
        seed: chooses the member of etcd and the machine, where a target is any of them.

    Raises:
        BadSchedule: a fault is unknown, or there is no time for a single one.
    """
    chance = random.Random(seed)  # noqa: S311 - decides what breaks, keeps no secret
    parsed = [parse(text) for text in faults]
    strikes: list[Strike] = []
    at_s = min(_FIRST_AT_S, every_s / 2)
    for fault, target in cycle(parsed):
        if at_s + lasts_s > duration_s:
            break
        strikes.append(Strike(at_s, fault, drawn(target, chance), lasts_s))
        at_s += every_s
    if not strikes:
        raise BadSchedule(f"{duration_s:g} s leave no time for a fault of {lasts_s:g} s")
    return tuple(strikes)


def random_mix(seed: int, duration_s: float, *, replicated: bool = False) -> tuple[Strike, ...]:
    """A random schedule; the same arguments give the same one. Raises BadSchedule.

    Args:
        replicated: whether the stack has the parts of compose.ha.yaml.
    """
    chance = random.Random(seed)  # noqa: S311 - decides what breaks, keeps no secret
    end_s = duration_s - _QUIET_AT_END_S
    strikes: list[Strike] = []
    left: list[str] = []
    at_s = _FIRST_AT_S
    while at_s < end_s - min(_LASTS_S):
        left = left or _round(replicated, chance)
        fault, target = parse(left.pop())
        is_slow = _is_slow(target)
        lasts_s = _lasts_s(fault, target, replicated, chance)
        if at_s + lasts_s > end_s:
            lasts_s = min(_LASTS_S)
            if fault == "rolling" or is_slow:
                continue
        strikes.append(Strike(at_s, fault, drawn(target, chance), lasts_s))
        # Sometimes the next fault begins while this one lasts.
        overlaps = fault != "rolling" and not is_slow and chance.random() < 0.2
        gaps_s = _SLOW_GAPS_S if is_slow else _GAPS_S
        at_s += 0.5 if overlaps else lasts_s + chance.choice(gaps_s)
    if not strikes:
        least_s = _FIRST_AT_S + min(_LASTS_S) + _QUIET_AT_END_S
        raise BadSchedule(f"a random mix takes more than {least_s:g} s")
    return tuple(strikes)


def _round(replicated: bool, chance: random.Random) -> list[str]:
    """Every fault as often as its share says, in a random order."""
    mix = (*_MIX, *_HA_MIX) if replicated else _MIX
    faults = [text for text, share in mix for _ in range(share)]
    chance.shuffle(faults)
    return faults


def _is_slow(target: str) -> bool:
    """Whether the database has to find its primary or its standby again."""
    return target.startswith(("postgres", "etcd", "machine"))


def _lasts_s(fault: str, target: str, replicated: bool, chance: random.Random) -> float:
    if fault == "rolling":
        has_more = replicated and target == "all"
        return _ROLLING_REPLICATED_LASTS_S if has_more else _ROLLING_LASTS_S
    if fault in _SET_LASTS_S:
        return _SET_LASTS_S[fault]
    return chance.choice(_SLOW_LASTS_S if _is_slow(target) else _LASTS_S)
