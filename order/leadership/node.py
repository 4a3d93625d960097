"""The state machine behind one lock, for the threads of a replica to share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from order.leadership.replica import Replica, ReplicaView, Role

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Node:
    """Every step of the state machine goes through here, one at a time, and is logged."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._changed = threading.Condition()

    def view(self) -> ReplicaView:
        with self._changed:
            return self._replica.view()

    def step(self, transition: Callable[[Replica], Result], why: str = "") -> Result:
        """Takes one transition.

        Raises:
            IllegalTransition, Gap: as the transition does; nothing was changed.
        """
        with self._changed:
            before = self._replica.view()
            result = transition(self._replica)
            after = self._replica.view()
            if (before.role, before.epoch) != (after.role, after.epoch):
                _log_change(before, after, why)
                self._changed.notify_all()
        return result

    def wait_while_promoting(self, timeout_s: float) -> ReplicaView:
        """Waits until this replica is not promoting, or the time is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._replica.view().role is not Role.PROMOTING, timeout_s
            )
            return self._replica.view()


def _log_change(before: ReplicaView, after: ReplicaView, why: str) -> None:
    logger.info(
        "%s of epoch %d -> %s of epoch %d, leader %s, last number %d%s",
        before.role,
        before.epoch,
        after.role,
        after.epoch,
        after.leader_id or "unknown",
        after.position,
        f": {why}" if why else "",
    )
