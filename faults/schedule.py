"""Which fault strikes which part at what time: as given, or at random from a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from stack.parts import ORDER_SERVICES

_REPLICAS = ("leader", "follower", *ORDER_SERVICES, "two")
_NUMBERED = "frontend-N"  # N is a number from 1 up
_EVERYTHING = (*_REPLICAS, "catalog", "redis", "frontend", _NUMBERED, "edge", "all")
# The targets of each fault. The first one is the default.
TARGETS = {
    "kill": _EVERYTHING,
    "stop": _EVERYTHING,
    "pause": _EVERYTHING,
    "partition": _EVERYTHING,
    "partition-catalog": ("leader", "follower", *ORDER_SERVICES),
    "lossy": _EVERYTHING,
    "wipe": _REPLICAS,
    "flush": ("redis",),
    "pubsub": ("redis",),
    "rolling": ("all", "frontends", "replicas"),
}
MEANINGS = {
    "kill": "SIGKILL, and started again later",
    "stop": "SIGTERM, and started again later",
    "pause": "frozen; a leader is resumed only after another has committed",
    "partition": "cut off from the inner network, both ways",
    "partition-catalog": "reaches its peers, but not the catalog",
    "lossy": "a fifth of its packets is lost each way, and delayed where the kernel can",
    "wipe": "killed, its volume emptied, started again",
    "flush": "FLUSHALL",
    "pubsub": "all its pub/sub connections dropped",
    "rolling": "each container of the target is restarted, one after the other",
}

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
# How long a part stays broken. It takes about a second to find out that a peer is silent.
_LASTS_S = (1.0, 2.0, 3.0, 5.0, 8.0)
_GAPS_S = (0.0, 2.0, 4.0, 6.0)
_FIRST_AT_S = 3.0
_ROLLING_LASTS_S = 30.0
# This leaves time to heal, and to see how the service goes on.
_QUIET_AT_END_S = 12.0


class BadSchedule(Exception):
    """A fault, a target or a duration is wrong. The message says what is valid."""


@dataclass(frozen=True, slots=True)
class Strike:
    at_s: float  # from the start of the load
    fault: str
    target: str
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.fault}:{self.target}"


def parse(text: str) -> tuple[str, str]:
    """`kill:leader`. Raises BadSchedule."""
    fault, _, target = text.partition(":")
    if fault not in TARGETS:
        raise BadSchedule(f"{text!r}: the faults are {', '.join(TARGETS)}")
    target = target or TARGETS[fault][0]
    numbered = re.sub(r"(?<=^frontend-)[1-9]\d?$", "N", target)
    if numbered not in TARGETS[fault] or target == _NUMBERED:
        raise BadSchedule(f"{text!r}: {fault} strikes {', '.join(TARGETS[fault])}")
    return fault, target


def by_hand(
    faults: Sequence[str], every_s: float, lasts_s: float, duration_s: float
) -> tuple[Strike, ...]:
    """The faults in turn, each for `lasts_s`. If that is longer than `every_s`, they overlap.

    Raises:
        BadSchedule: a fault is unknown, or there is no time for a single one.
    """
    parsed = [parse(text) for text in faults]
    strikes: list[Strike] = []
    at_s = min(_FIRST_AT_S, every_s / 2)
    for fault, target in cycle(parsed):
        if at_s + lasts_s > duration_s:
            break
        strikes.append(Strike(at_s, fault, target, lasts_s))
        at_s += every_s
    if not strikes:
        raise BadSchedule(f"{duration_s:g} s leave no time for a fault of {lasts_s:g} s")
    return tuple(strikes)


def random_mix(seed: int, duration_s: float) -> tuple[Strike, ...]:
    """A random schedule; the same seed and duration give the same one. Raises BadSchedule."""
    chance = random.Random(seed)  # noqa: S311 - decides what breaks, keeps no secret
    end_s = duration_s - _QUIET_AT_END_S
    strikes: list[Strike] = []
    left: list[str] = []
    at_s = _FIRST_AT_S
    while at_s < end_s - min(_LASTS_S):
        if not left:  # each round contains every fault as often as its share says
            left = [text for text, share in _MIX for _ in range(share)]
            chance.shuffle(left)
        fault, target = parse(left.pop())
        lasts_s = _ROLLING_LASTS_S if fault == "rolling" else chance.choice(_LASTS_S)
        if at_s + lasts_s > end_s:
            lasts_s = min(_LASTS_S)
            if fault == "rolling":
                continue
        strikes.append(Strike(at_s, fault, target, lasts_s))
        # Sometimes the next fault begins while this one lasts.
        overlaps = fault != "rolling" and chance.random() < 0.2
        at_s += 0.5 if overlaps else lasts_s + chance.choice(_GAPS_S)
    if not strikes:
        least_s = _FIRST_AT_S + min(_LASTS_S) + _QUIET_AT_END_S
        raise BadSchedule(f"a random mix takes more than {least_s:g} s")
    return tuple(strikes)


def catalogue() -> str:
    """Every fault, what it is and what it strikes, for --help."""
    lines = ["faults and what they strike:"]
    for fault, targets in TARGETS.items():
        lines += [f"  {fault:18} {MEANINGS[fault]}", f"  {'':18}   {', '.join(targets)}"]
    return "\n".join(lines)


def struck(
    target: str, parts: Sequence[str], leader: str | None = None, turn: int = 0
) -> tuple[str, ...]:
    """The parts that a target means now.

    Args:
        parts: all parts of the stack.
        leader: None stands for the replica that would be elected.
        turn: counts up; `frontend` means each frontend in turn.

    Raises:
        BadSchedule: there is no such part.
    """
    leader = leader or ORDER_SERVICES[-1]
    followers = tuple(name for name in reversed(ORDER_SERVICES) if name != leader)
    frontends = frontends_of(parts)
    meaning: dict[str, tuple[str, ...]] = {
        "leader": (leader,),
        "follower": followers[:1],
        "two": (leader, followers[0]),
        "frontend": (frontends[turn % len(frontends)],),
        "frontends": frontends,
        "replicas": ORDER_SERVICES,
        "all": tuple(parts),
    }
    hits = meaning.get(target, (target,))
    if not set(hits) <= set(parts):
        raise BadSchedule(f"the stack has no {target}, it has {', '.join(parts)}")
    return hits


def frontends_of(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in parts if name.startswith("frontend"))
