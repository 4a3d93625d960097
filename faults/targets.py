"""What faults there are, what they strike, and which parts a target means at the moment."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence

from stack.offices import OFFICES, PRIMARY, STANDBY
from stack.parts import (
    CATALOGS,
    DATABASE_SERVICES,
    ETCD_SERVICES,
    HA_SERVICES,
    ORDER_SERVICES,
    POSTGRES_SERVICES,
)

_REPLICAS = ("leader", "follower", *ORDER_SERVICES, "two")
_NUMBERED = "frontend-N"  # N is a number from 1 up
_MEMBER, _MACHINE = "etcd", "machine"  # one of three, drawn when the run is planned
_MACHINES = tuple(f"{_MACHINE}-{number}" for number in (1, 2, 3))
# Those that only a stack with compose.ha.yaml has.
_HA = (*OFFICES, _MEMBER, _MACHINE, *HA_SERVICES, *_MACHINES)
_ALWAYS = (*_REPLICAS, "catalog", "redis", "frontend", _NUMBERED, "edge", "all")
_EVERYTHING = (*_ALWAYS, *_HA)
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
    "crash": (PRIMARY, STANDBY),
    "zombie": (PRIMARY,),
}
MEANINGS = {
    "kill": "SIGKILL, and started again later",
    "stop": "SIGTERM, and started again later",
    "pause": "frozen; a leader is resumed only after another has committed",
    "partition": "cut off from the inner networks, both ways",
    "partition-catalog": "reaches its peers, but no catalog",
    "lossy": "a fifth of its packets is lost each way, and delayed where the kernel can",
    "wipe": "killed, its volume emptied, started again",
    "flush": "FLUSHALL",
    "pubsub": "all its pub/sub connections dropped",
    "rolling": "each container of the target is restarted, one after the other",
    "crash": "SIGKILL to PostgreSQL alone, which its container starts again",
    "zombie": "frozen until another is the primary, and then resumed",
}
# Only one part of each group is broken at a time, and only when the last one serves again. The
# service survives the loss of one, and is not meant to survive two. `all` breaks it on purpose.
_GROUPS = {
    "the catalogs": frozenset(CATALOGS),
    "the database": frozenset(DATABASE_SERVICES),
}


class BadSchedule(Exception):
    """A fault, a target or a duration is wrong. The message says what is valid."""


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


def catalogue() -> str:
    """Every fault, what it is and what it strikes, for --help."""
    lines = ["faults and what they strike:"]
    for fault, targets in TARGETS.items():
        said = "every target" if targets is _EVERYTHING else ", ".join(targets)
        lines += [f"  {fault:18} {MEANINGS[fault]}", f"  {'':18}   {said}"]
    lines += ["every target:", f"  {', '.join(_ALWAYS)}"]
    lines += ["on a stack with compose.ha.yaml also:", f"  {', '.join(_HA)}"]
    return "\n".join(lines)


def drawn(target: str, chance: random.Random) -> str:
    """The target with its number, where it is any of three: `etcd` becomes `etcd-2`, say."""
    if target == _MEMBER:
        return chance.choice(ETCD_SERVICES)
    return chance.choice(_MACHINES) if target == _MACHINE else target


def refuse_missing(targets: Collection[str], parts: Sequence[str]) -> None:
    """Raises BadSchedule for a target that this stack does not have."""
    for target in targets:
        if target not in _HA:
            struck(target, parts)
        elif not is_replicated(parts):
            raise BadSchedule(
                f"{target}: the stack was started without compose.ha.yaml, it has "
                f"{', '.join(parts)}"
            )


def is_replicated(parts: Sequence[str]) -> bool:
    """Whether these are the parts of a stack with compose.ha.yaml."""
    return set(HA_SERVICES) <= set(parts)


def may_hold_an_office(target: str) -> bool:
    """Whether the target means a part that can hold an office."""
    return target in (*OFFICES, *CATALOGS, *POSTGRES_SERVICES, *_MACHINES, "all")


def struck(
    target: str,
    parts: Sequence[str],
    leader: str | None = None,
    turn: int = 0,
    holders: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The parts that a target means now. None if it is an office that nobody holds.

    Args:
        parts: all parts of the stack.
        leader: None stands for the replica that would be elected.
        turn: counts up; `frontend` means each frontend in turn.
        holders: of each office, as `stack.offices.Offices.holders` tells them.

    Raises:
        BadSchedule: there is no such part.
    """
    if target in OFFICES:
        holder = (holders or {}).get(target)
        return () if holder is None else (holder,)
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
        **{name: _on_machine(int(name[-1]), parts) for name in _MACHINES},
    }
    hits = meaning.get(target, (target,))
    if not set(hits) <= set(parts):
        raise BadSchedule(f"the stack has no {target}, it has {', '.join(parts)}")
    return hits


def _on_machine(number: int, parts: Sequence[str]) -> tuple[str, ...]:
    """One of each kind, as far as the stack has that many. Redis and the edge are elsewhere."""
    kinds = ("order", "frontend", "catalog", "postgres", "etcd")
    names = {f"{kind}-{number}" for kind in kinds} | ({CATALOGS[0]} if number == 1 else set())
    return tuple(name for name in parts if name in names)


def frontends_of(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in parts if name.startswith("frontend"))


def catalogs_of(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in parts if name in CATALOGS)


def reserved(hits: Sequence[str]) -> set[str]:
    """What no other fault may break meanwhile: these parts, and the others of their groups."""
    return {*hits, *(name for name, group in _GROUPS.items() if not group.isdisjoint(hits))}
