"""The state machine of a replica: role, epoch, position.

It does no I/O and knows no clock; the rest of the service drives it and does what it allows.
The rules:

    FOLLOWER   stand           CANDIDATE   asks the fence for an epoch
    CANDIDATE  fence_refused   CANDIDATE   asks for the registered epoch + 1
    CANDIDATE  withdraw        FOLLOWER    the fence could not be reached
    CANDIDATE  fence_accepted  PROMOTING   the only way to lead
    PROMOTING  caught_up       LEADER      the log has what the journal had
    PROMOTING  step_down       FOLLOWER
    LEADER     step_down       FOLLOWER
    LEADER     open_batch      LEADER      one batch at a time ...
    LEADER     settle_batch    LEADER      ... and none after it before it is settled
    (any)      hear_of         FOLLOWER if it led in an older epoch, else unchanged
    (any)      advance         unchanged   the log grew, without a gap

A transition that the rules do not allow raises `IllegalTransition` and changes nothing. A step
that belongs to an epoch names it, because it can come after the replica lost that epoch, and even
after it won another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    PROMOTING = "promoting"
    LEADER = "leader"


LEADING = (Role.PROMOTING, Role.LEADER)


class IllegalTransition(Exception):
    """The rules do not allow this step in this state; nothing was changed."""


class Gap(Exception):
    """Rows cannot be appended because rows before them are missing."""

    def __init__(self, position: int, first: int) -> None:
        super().__init__(f"rows from {first} on do not follow the last number {position}")


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """The state at one moment."""

    replica_id: int
    role: Role
    epoch: int  # that it leads in, else the highest one heard of
    leader_id: int  # whom this replica takes for the leader, 0 nobody
    position: int  # the last order number in the log
    digest: bytes  # of the log up to the position


class Replica:
    """See the module's rules.

    Invariants: while promoting or leading, `leader_id` is this replica and `epoch` was accepted by
    the fence for this process; otherwise `leader_id` is never this replica. A batch is open only
    while leading. The position only ever grows, by one row after the other.
    """

    def __init__(self, replica_id: int, position: int, digest: bytes) -> None:
        self._id = replica_id
        self._role = Role.FOLLOWER
        self._epoch = 0
        self._leader_id = 0
        self._asked_epoch = 0
        self._batch_is_open = False
        self._position = position
        self._digest = digest

    def view(self) -> ReplicaView:
        return ReplicaView(
            self._id, self._role, self._epoch, self._leader_id, self._position, self._digest
        )

    # ------------------------------------------------------------ promotion

    def stand(self, suggested_epoch: int) -> int:
        """Becomes a candidate; returns the epoch to ask the fence for."""
        self._require(self._role is Role.FOLLOWER, "stand")
        self._role = Role.CANDIDATE
        self._asked_epoch = max(1, suggested_epoch)
        return self._asked_epoch

    def fence_refused(self, asked_epoch: int, registered_epoch: int) -> int:
        """Another epoch is registered; returns the next epoch to ask for.

        What is registered counts, whatever was seen before. A refusal that names this replica
        is still a refusal: the epoch may have been given to an earlier life of it.
        """
        # Without it, two can lead in one epoch ("a refusal is a refusal": test_interleavings.py).
        self._require_candidacy(asked_epoch, "fence_refused")
        self._asked_epoch = registered_epoch + 1
        return self._asked_epoch

    def fence_accepted(self, asked_epoch: int) -> None:
        """The epoch asked for is registered for this process."""
        self._require_candidacy(asked_epoch, "fence_accepted")
        self._role = Role.PROMOTING
        self._epoch = asked_epoch
        self._leader_id = self._id

    def withdraw(self) -> None:
        """Gives up a candidacy."""
        self._require(self._role is Role.CANDIDATE, "withdraw")
        self._role = Role.FOLLOWER

    def caught_up(self, epoch: int) -> None:
        """The log has all that the journal had when this epoch began."""
        self._require(self._role is Role.PROMOTING and self._epoch == epoch, "caught_up")
        self._role = Role.LEADER

    # ------------------------------------------------------------ stepping down

    def step_down(self, epoch: int) -> bool:
        """Stops leading in that epoch; False if it did so already."""
        if self._role not in LEADING or self._epoch != epoch:
            return False
        self._stop_leading()
        return True

    def hear_of(self, leader_id: int, epoch: int) -> bool:
        """News that another replica leads; True if this one led and is deposed.

        Another replica's word never makes this one a leader. An older leadership changes nothing.
        """
        # Without it, two can lead in one epoch ("no leader by hearsay": test_interleavings.py).
        if leader_id == self._id or epoch <= self._epoch or self._role is Role.CANDIDATE:
            return False
        deposed = self._role in LEADING
        if deposed:
            self._stop_leading()
        self._epoch = epoch
        self._leader_id = leader_id
        return deposed

    def _stop_leading(self) -> None:
        self._role = Role.FOLLOWER
        self._leader_id = 0
        self._batch_is_open = False

    # ------------------------------------------------------------ batches

    def open_batch(self) -> int:
        """Starts a batch; returns the epoch it is sent under, every time it is sent."""
        self._require(self._role is Role.LEADER and not self._batch_is_open, "open_batch")
        self._batch_is_open = True
        return self._epoch

    def settle_batch(self, epoch: int) -> bool:
        """The batch's decisions are known; False if its epoch was lost meanwhile."""
        if self._role is not Role.LEADER or self._epoch != epoch:
            return False
        self._require(self._batch_is_open, "settle_batch")
        self._batch_is_open = False
        return True

    # ------------------------------------------------------------ the log

    def split(self, numbers: Iterable[int]) -> tuple[list[int], list[int]]:
        """Which of these rows the log has already, and which come next, in order.

        Raises:
            Gap: the rows above the position do not follow it one by one.
        """
        ordered = sorted(set(numbers))
        known = [number for number in ordered if number <= self._position]
        fresh = ordered[len(known) :]
        # Without it, a log gets a gap ("in-order append": test_interleavings.py).
        if fresh and fresh[-1] - self._position != len(fresh):
            raise Gap(self._position, fresh[0])
        return known, fresh

    def advance(self, number: int, count: int, digest: bytes) -> None:
        """The log grew by `count` rows and ends at `number` now."""
        self._require(count >= 1 and number == self._position + count, "advance")
        self._position = number
        self._digest = digest

    # ------------------------------------------------------------ guards

    def _require(self, allowed: bool, step: str) -> None:
        if not allowed:
            raise IllegalTransition(f"{step}: not allowed in {self.view()}")

    def _require_candidacy(self, asked_epoch: int, step: str) -> None:
        self._require(self._role is Role.CANDIDATE and self._asked_epoch == asked_epoch, step)
