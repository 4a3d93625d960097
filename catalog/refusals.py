"""How many refusals are recorded, how many more may be, and when the old ones are deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable

from catalog.store import MAX_BATCH, MAX_REFUSALS, REFUSALS_KEPT_S
from common.errors import BourseError
from common.on_change import OnChange

logger = logging.getLogger(__name__)

PURGE_INTERVAL_S = 60
# A step deletes what one batch can add at most, so the purge keeps up with any load.
PURGE_STEP = MAX_BATCH


def room_beside(count: int) -> int:
    """How many more may be recorded."""
    return MAX_REFUSALS - count


class RefusalLimit:
    """The refusals of one store. Whoever has the turn to write uses it.

    Args:
        clock: the wall clock, in seconds.

    Attributes:
        count: how many are recorded; None: they are to be counted anew.
    """

    def __init__(self, clock: Callable[[], float], count: int | None = None) -> None:
        self.count = count
        self._clock = clock
        self._next_purge_s = clock()
        self._full = OnChange(logger)

    def counted(self, count: int) -> None:
        """So many are recorded, as a COMMIT left them."""
        self.count = count
        if count < MAX_REFUSALS:
            self._full.over("refusals are recorded again")
        else:
            self._full.trouble(
                "%d refusals are recorded, which is the limit: what would have to be refused for "
                "lack of volume is answered as not executed, until the oldest are a day old",
                count,
            )

    def purge(self, delete: Callable[[float, int], int]) -> None:
        """Deletes some of the old ones when it is time. It never fails.

        Args:
            delete: deletes the oldest up to a time, at most so many, in a transaction of its own,
                and returns how many those were.
        """
        now_s = self._clock()
        if now_s < self._next_purge_s:
            return
        try:
            deleted = delete(now_s - REFUSALS_KEPT_S, PURGE_STEP)
        except BourseError as error:  # the decisions were committed before, and must be told
            logger.warning("cannot delete old refusals: %s", error)
            deleted = 0
            self.count = None
        if self.count is not None:
            self.count -= deleted
        if deleted < PURGE_STEP:
            self._next_purge_s = now_s + PURGE_INTERVAL_S
