"""What is seen of the replicas and the catalog: positions, rows, who leads, who is in sync."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.domain import EMPTY_DIGEST as _EMPTY_DIGEST
from common.domain import Order, next_digest

EMPTY_DIGEST = _EMPTY_DIGEST.hex()


@dataclass(frozen=True, slots=True)
class Position:
    """What one replica said of itself."""

    role: str
    epoch: int
    leader_id: int
    last_number: int
    digest: str  # in hexadecimal, read together with last_number
    in_sync: tuple[int, ...] = ()
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """What the replicas said between `at_ns` and `until_ns`; one that is missing did not answer."""

    at_ns: int
    until_ns: int
    replicas: Mapping[str, Position]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the catalog's journal, read after the run."""

    number: int
    request_id: str
    name: str
    type: str
    quantity: int
    version: int
    epoch: int
    digest: str  # in hexadecimal

    def digest_after(self, digest: str) -> str:
        """What its digest is to be, by that of the row before it; both in hexadecimal."""
        fields = (self.number, self.request_id, self.name, self.type, self.quantity, self.version)
        return next_digest(bytes.fromhex(digest), Order(*fields, self.epoch)).hex()


@dataclass(frozen=True, slots=True)
class Final:
    """What the catalog and the replicas held when everything was healed and nobody traded."""

    at_ns: int
    last_number: int  # of the journal
    quantities: Mapping[str, int]
    versions: Mapping[str, int]
    replicas: Mapping[str, Position]


def restored_positions(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Position]:
    """What JSON has of them. Raises TypeError, AttributeError."""
    return {
        name: Position(**{**fields, "in_sync": tuple(fields.get("in_sync", ()))})
        for name, fields in said.items()
    }


def leader_of(seen: Observation | None) -> str | None:
    """The service that leads the newest epoch, if one was seen."""
    replicas = {} if seen is None else seen.replicas
    leaders = [(said.epoch, name) for name, said in replicas.items() if said.role == "leader"]
    return max(leaders)[1] if leaders else None


def in_sync(seen: Observation, service: str) -> bool:
    """It is ready, and leads or is among those that the leader keeps in sync.

    With nobody leading there is nobody to be in sync with.
    """
    said = seen.replicas.get(service)
    if said is None or not said.ready:
        return False
    leader = leader_of(seen)
    if leader is None or leader == service:
        return True
    return int(service.rpartition("-")[2]) in seen.replicas[leader].in_sync
