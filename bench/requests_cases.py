"""What `bench` measures: each kind of request, what it is compared with, and who serves it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from stack.parts import ORDER_SERVICES

CONNECTIONS = (1, 8, 16, 32)
PROBABILITIES = (0.0, 0.2, 0.4, 0.6, 0.8)
DIRECT_FRONTEND = "frontend-direct"
PLAIN = "plain"


class Case(StrEnum):
    HELLO = "bare hello"
    HOP = "bare hop"
    CACHED = "cached lookup"
    UNCACHED = "uncached lookup"
    TRADE = "trade"
    ORDER = "order lookup"
    PLAIN_LOOKUP = "plain: lookup"
    PLAIN_TRADE = "plain: trade"
    PLAIN_ORDER = "plain: order lookup"
    DIRECT_CACHED = "cached lookup, no edge"
    DIRECT_TRADE = "trade, no edge"


FLOOR_OF: Mapping[Case, Case] = {
    Case.CACHED: Case.HELLO,
    Case.UNCACHED: Case.HOP,
    Case.TRADE: Case.HOP,
    Case.ORDER: Case.HOP,
}
RIVAL_OF: Mapping[Case, Case] = {
    Case.CACHED: Case.PLAIN_LOOKUP,
    Case.UNCACHED: Case.PLAIN_LOOKUP,
    Case.TRADE: Case.PLAIN_TRADE,
    Case.ORDER: Case.PLAIN_ORDER,
}
WITHOUT_EDGE: Mapping[Case, Case] = {
    Case.CACHED: Case.DIRECT_CACHED,
    Case.TRADE: Case.DIRECT_TRADE,
}
# Side by side, what is compared.
IN_TURN = (
    Case.HELLO,
    Case.CACHED,
    Case.DIRECT_CACHED,
    Case.PLAIN_LOOKUP,
    Case.UNCACHED,
    Case.HOP,
    Case.ORDER,
    Case.PLAIN_ORDER,
    Case.DIRECT_TRADE,
    Case.TRADE,
    Case.PLAIN_TRADE,
)
OUR_TRADES = (Case.TRADE, Case.DIRECT_TRADE)
TRADES = (*OUR_TRADES, Case.PLAIN_TRADE)
_CASE_OF_PART = {
    "cached": Case.CACHED,
    "uncached": Case.UNCACHED,
    "trade": Case.TRADE,
    "order": Case.ORDER,
}


class Point(NamedTuple):
    """Of the tables."""

    case: Case
    connections: int


class SessionPoint(NamedTuple):
    """Of the figure."""

    probability: float
    is_cached: bool


def cases_of(part: str) -> set[Case]:
    """The request, and all that it is compared with; none for what is no request."""
    case = _CASE_OF_PART.get(part)
    if case is None:
        return set()
    compared = (FLOOR_OF, RIVAL_OF, WITHOUT_EDGE)
    return {case, *(others[case] for others in compared if case in others)}


# ---------------------------------------------------------------- who serves it

_WEB: Mapping[Case, str] = {
    Case.HELLO: "floor-hello",
    Case.HOP: "floor-hop",
    Case.PLAIN_LOOKUP: PLAIN,
    Case.PLAIN_TRADE: PLAIN,
    Case.PLAIN_ORDER: PLAIN,
    Case.DIRECT_CACHED: DIRECT_FRONTEND,
    Case.DIRECT_TRADE: DIRECT_FRONTEND,
}


class Part(StrEnum):
    """Whose processor time is told apart."""

    EDGE = "edge"
    WEB = "frontends"  # and what stands in their place
    LEADER = "leader"
    FOLLOWERS = "followers"
    CATALOG = "catalog"
    REDIS = "redis"
    PEER = "peer"
    POSTGRES = "postgres"


def web_of(case: Case) -> str:
    """The service that answers HTTP."""
    return _WEB.get(case, "frontend")


def behind(case: Case, leader: str) -> dict[Part, tuple[str, ...]]:
    """The services behind that one. All of ours count, also where a request does not need them."""
    match web_of(case):
        case "floor-hello":
            return {}
        case "floor-hop":
            return {Part.PEER: ("floor-peer",)}
        case "plain":
            return {Part.POSTGRES: ("postgres",)}
    return {
        Part.LEADER: (leader,),
        Part.FOLLOWERS: tuple(name for name in ORDER_SERVICES if name != leader),
        Part.CATALOG: ("catalog",),
        Part.REDIS: ("redis",),
    }
