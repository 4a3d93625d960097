"""What the tests of elections share: how long they wait, and how they read what came of it."""

from __future__ import annotations

from frontend.trading.election import Election, Leadership
from tests.support.clock import Clock
from tests.support.replica_fakes import PATIENCE_S, Replicas

# Long where nobody is silent: then nothing waits for it, on a busy machine neither.
LONG_S = PATIENCE_S
SHORT_S = 0.5


class Catalog:
    """What an election asks of it when no candidate could become leader."""

    def __init__(self) -> None:
        self.is_up = True
        self.times_asked = 0

    def is_reachable(self) -> bool:
        self.times_asked += 1
        return self.is_up


def impatient(
    replicas: Replicas, *, probe_timeout_s: float = LONG_S, candidate_timeout_s: float = LONG_S
) -> Election:
    """One that does not wait long for somebody who is silent."""
    return Election(replicas.peers, probe_timeout_s, candidate_timeout_s, lambda: True, Clock())


def leader_and_epoch(leadership: Leadership) -> tuple[int, int]:
    return leadership.peer.replica_id, leadership.epoch


def leadership(replicas: Replicas, replica_id: int, epoch: int) -> Leadership:
    return Leadership(replicas.peers[replica_id], epoch)


def asked_to_lead(replicas: Replicas) -> dict[int, list[int]]:
    """The epochs with which each replica was asked to lead itself."""
    requests = replicas.seen("SetLeader")
    own = {
        replica_id: [one.epoch for one in seen if one.leader_id == replica_id]
        for replica_id, seen in requests.items()
    }
    return {replica_id: epochs for replica_id, epochs in own.items() if epochs}
